"""What recording costs a process of 1 GiB that writes 100 MB/s, and what a large trace takes on disk.

``python benches/recording.py [--quick]`` prints both.

A program computes as fast as it can, and writes to random pages at a steady pace, both by the CPU time that it has
used: so other programs on the machine do not count. It runs in turns, recorded at 10 Hz and not; the ratio of how much
neighbouring turns have computed in a second of CPU time is what recording costs.
"""

from __future__ import annotations

import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import switchover as sw

PAIRS = 5 if "--quick" in sys.argv else 15
TURN = 2.0
PROGRAM = r"""
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}
int main(int argc, char **argv) {
    size_t pages = (size_t)atol(argv[1]) << 8;
    double rate = atof(argv[2]) / 4096, begun, written = 0;
    volatile uint64_t *count;
    FILE *file = fopen(argv[3], "w+");
    if (ftruncate(fileno(file), 4096)) return 1;
    count = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(file), 0);
    char *memory = mmap(0, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    madvise(memory, pages * 4096, MADV_NOHUGEPAGE);
    for (size_t page = 0; page < pages; page++) memory[page * 4096] = 1;
    uint64_t state = 1, sum = 0;
    puts("ready");
    fflush(stdout);
    for (begun = now();;) {
        for (int i = 0; i < 20000; i++) sum = sum * 6364136223846793005ULL + 1442695040888963407ULL;
        count[0]++;
        count[2] = sum;
        count[1] = (now() - begun) * 1e9;
        for (double due = (now() - begun) * rate; written < due; written++) {
            state = state * 6364136223846793005ULL + 1442695040888963407ULL;
            char *page = memory + (state >> 33) % pages * 4096;
            for (int i = 0; i < 4096; i += 64) page[i]++;
        }
    }
}
"""


def speed(counter: Path) -> float:
    """Units of computing in a second of CPU time, over a turn."""

    def read() -> tuple[int, int]:
        return struct.unpack("<QQ", counter.read_bytes()[:16])

    (units, used), _ = read(), time.sleep(TURN)
    later = read()
    return (later[0] - units) / (later[1] - used) * 1e9


def recorded(pid: int, counter: Path) -> tuple[float, sw.Trace]:
    """The same while it is recorded."""
    traces: list[sw.Trace] = []
    begins = threading.Event()

    def record() -> None:
        duration = TURN * 1.3
        traces.append(sw.Trace.record(pid, duration=duration, interval="100ms", on_progress=lambda _: begins.set()))

    thread = threading.Thread(target=record)
    thread.start()
    begins.wait(10)
    measured = speed(counter)
    thread.join()
    return measured, traces[0]


def main() -> None:
    """Measures, and prints a line each."""
    size()
    with tempfile.TemporaryDirectory() as folder:
        source, program, counter = (Path(folder) / name for name in ("w.c", "w", "count"))
        source.write_text("#include <unistd.h>\n" + PROGRAM)
        subprocess.run(["cc", "-O2", "-o", program, source], check=True)
        with subprocess.Popen([program, "1024", "100e6", counter], stdout=subprocess.PIPE) as process:
            assert process.stdout
            process.stdout.readline()
            pairs = []
            for _ in range(PAIRS):
                plain = speed(counter)
                watched, trace = recorded(process.pid, counter)
                pairs.append((1 - watched / plain, trace))
            process.kill()
    costs = sorted(cost for cost, _ in pairs)
    share = statistics.median(json.loads(trace.metadata["cost"])["first_write_share"] for _, trace in pairs)
    quarter = len(costs) // 4
    print(
        f"recording 1 GiB at 10 Hz, 100 MB written in a second of CPU time, {len(pairs)} pairs, {os.cpu_count()} CPUs: "
        f"costs {statistics.median(costs) * 100:.1f} % "
        f"(quartiles {costs[quarter] * 100:.1f} to {costs[-1 - quarter] * 100:.1f} %); "
        f"the recorder's own figure for first writes: {share * 100:.1f} % of a CPU by the clock on the wall"
    )


def size() -> None:
    """Of the trace that packs worst: pages all over memory."""
    busy = sw.workloads.Uniform(rate="200MB/s")
    trace = sw.Trace.generate("64GiB", busy, duration="10min", interval="100ms", seed=1)
    with tempfile.TemporaryDirectory() as folder:
        trace.save(path := Path(folder) / "t.parquet")
        taken = path.stat().st_size / 1e6
    print(f"64 GiB written at random at 200 MB/s for 10 minutes, at 10 Hz: {taken:.0f} MB on disk (target 100)")


if __name__ == "__main__":
    main()
