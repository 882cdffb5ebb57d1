"""Recording real processes: what they say they wrote is found, and they go on unharmed whatever becomes of us."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import switchover as sw
from switchover import _native

PAGE = 4096


def available():
    try:
        _native.probe_process()
    except sw.SwitchoverError as error:
        return str(error)
    return None


needs_recording = pytest.mark.skipif(available() is not None, reason=f"no recording here: {available()}")

WRITER = """
    import mmap, random, sys, time
    # Pages of its own, which it writes in an order of its own: what it wrote is a list of page numbers.
    pages, numbers = 512, random.Random(int(sys.argv[1]))
    memory = mmap.mmap(-1, pages * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for page in range(pages):
        memory[page * 4096] = 1
    import ctypes
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    print(address, flush=True)
    for line in sys.stdin:
        if line == "end\\n":
            break
        wrote = sorted(numbers.sample(range(pages), 40))
        for page in wrote:
            memory[page * 4096 + 9] = (memory[page * 4096 + 9] + 1) % 256
        print(*wrote, flush=True)
    print(sum(memory[page * 4096] for page in range(pages)) == pages, flush=True)
"""

C_WRITER = """
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/mman.h>
    int main(int argc, char **argv) {
        unsigned long pages = 512, state = strtoul(argv[1], 0, 10) + 1;
        char line[16], *memory = mmap(0, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (unsigned long page = 0; page < pages; page++) memory[page * 4096] = 1;
        printf("%lu\\n", (unsigned long)memory);
        fflush(stdout);
        while (fgets(line, sizeof line, stdin) && strcmp(line, "end\\n")) {
            for (int i = 0; i < 40; i++) {
                state = state * 6364136223846793005UL + 1442695040888963407UL;
                unsigned long page = (state >> 33) % pages;
                memory[page * 4096 + 9]++;
                printf("%lu ", page);
            }
            printf("\\n");
            fflush(stdout);
        }
        unsigned long sum = 0;
        for (unsigned long page = 0; page < pages; page++) sum += memory[page * 4096];
        puts(sum == pages ? "True" : "False");
    }
"""


@pytest.fixture
def start():
    """Starts programs, and ends them."""
    started = []

    def start(*command, **options):
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, **options
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def writers(tmp_path):
    yield "python", [sys.executable, "-c", textwrap.dedent(WRITER)]
    if shutil.which("cc"):
        source, program = tmp_path / "writer.c", tmp_path / "writer"
        source.write_text(textwrap.dedent(C_WRITER))
        subprocess.run(["cc", "-O1", "-o", program, source], check=True)
        yield "c", [str(program)]


@needs_recording
def test_what_a_process_says_it_wrote_is_in_the_trace(start, tmp_path):
    for seed, (language, command) in enumerate(writers(tmp_path)):
        process = start(*command, str(seed))
        first = int(process.stdout.readline()) // PAGE
        recording = _native.Recording.of_process(process.pid, 0.02, 16)
        told = []
        for _ in range(10):
            process.stdin.write("go\n")
            wrote = {first + int(page) for page in process.stdout.readline().split()}
            told.append((recording.advance(10**6, 0.0)[0], wrote))
        trace, text = recording.finish()
        places = placed(trace, json.loads(text)["addresses"])
        ours = set(range(first, first + 512))
        for interval, wrote in told:
            assert places.get(interval - 1, set()) & ours == wrote, (language, seed, interval)
        process.stdin.write("end\n")
        assert process.stdout.readline() == "True\n"


def placed(native, addresses):
    """Pages written in each interval, by address."""
    trace = sw.Trace._of(native, {})
    found = {}
    for interval, block, first, pages in trace.rows.tolist():
        page = addresses[block] // PAGE + first
        found.setdefault(interval, set()).update(range(page, page + pages))
    return found


@needs_recording
def test_a_trace_of_a_process_has_its_blocks_its_samples_and_what_it_cost(start, tmp_path):
    body = """
        import numpy as np
        data = np.zeros(8 << 20, np.uint8)
        print("ready", flush=True)
        while True:
            data[: 2 << 20] += 1
    """
    process = start(sys.executable, "-c", textwrap.dedent(body))
    process.stdout.readline()
    seen = []
    trace = sw.Trace.record(process.pid, duration="400ms", interval="40ms", on_progress=seen.append)
    assert trace.intervals == 10
    assert {"heap", "stack"} <= set(trace.blocks)
    assert trace.memory_bytes > 10 << 20
    assert trace.written_pages.max() >= 512
    assert seen[-1].seconds == pytest.approx(0.4)
    assert (trace.samples["pages"] > 0).any()
    cost = json.loads(trace.metadata["cost"])
    assert cost["harvests"] >= 1
    assert cost["stopped"] > 0
    assert set(json.loads(trace.metadata["addresses"])) == set(trace.blocks)
    path = tmp_path / "t.parquet"
    trace.save(path)
    loaded = sw.Trace.load(path)
    assert loaded == trace
    assert loaded.samples.tolist() == trace.samples.tolist()
    assert loaded.metadata == trace.metadata


@needs_recording
@pytest.mark.parametrize(
    "body",
    [
        "pass",
        "os.kill(os.getpid(), 9)",
        "os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(0.3)'])",
        "p = os.fork(); p and os.waitpid(p, 0); os._exit(0)",
        "[os.waitpid(os.fork() or os._exit(0), 0) for _ in range(50)]",
    ],
    ids=["exits", "is killed", "executes another program", "forks", "forks often"],
)
def test_a_process_that_ends_half_way_ends_the_recording(start, body):
    process = start(sys.executable, "-c", f"import os, sys; print('ready', flush=True); input(); {body}")
    process.stdout.readline()
    told = []

    def go(now):
        if not told:
            process.stdin.write("go\n")
        told.append(now)

    trace = sw.Trace.record(process.pid, duration="50s", interval="10ms", on_progress=go)
    assert trace.metadata["ended"] == "the process ended"
    assert any(name.startswith("2:") for name in trace.blocks) == ("execv" in body)


@needs_recording
def test_ctrl_c_keeps_what_there_is(start):
    process = start(sys.executable, "-c", "print('ready', flush=True)\nwhile True: x = list(range(1000))")
    process.stdout.readline()

    def press(now):
        if now.seconds > 0.05:
            os.kill(os.getpid(), signal.SIGINT)

    trace = sw.Trace.record(process.pid, duration="60s", interval="10ms", on_progress=press)
    assert trace.metadata["ended"] == "interrupted"
    assert 0.05 < trace.duration < 30
    assert process.poll() is None


TARGET = """
    import signal, sys, threading, time
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    stop, beats = threading.Event(), [0, 0]
    def beat(which):
        while not stop.is_set():
            beats[which] += sum(range(200)) == 19900
            data = bytearray(4096 * 50)
            data[::4096] = b"x" * 50
            assert data.count(b"x") == 50
    threads = [threading.Thread(target=beat, args=(i,)) for i in range(2)]
    for t in threads: t.start()
    print("ready", flush=True)
    for line in sys.stdin:
        print(*beats, flush=True)
        if line == "end\\n":
            break
    stop.set()
    for t in threads: t.join()
    print("whole", flush=True)
"""

RECORDER = """
    import sys
    from switchover import _native
    print("ready", flush=True)
    while True:
        _native.Recording.of_process(int(sys.argv[1]), 0.001, 8).advance(3, 1.0)
"""


@needs_recording
def test_a_recorder_that_is_killed_leaves_the_process_running(start):
    """At any moment of attaching, harvesting and letting go, again and again."""
    seed = random.randrange(2**32)
    print("seed", seed)
    moments = random.Random(seed)
    target = start(sys.executable, "-c", textwrap.dedent(TARGET))
    target.stdout.readline()
    for _ in range(12):
        recorder = start(sys.executable, "-c", textwrap.dedent(RECORDER), str(target.pid), start_new_session=True)
        recorder.stdout.readline()
        time.sleep(moments.uniform(0, 0.06))
        # Its whole group: what helps it must get away from that by itself.
        os.killpg(recorder.pid, signal.SIGKILL)
        recorder.wait()
        before = beats(target)
        deadline = time.monotonic() + 10
        while not all(now > then for now, then in zip(beats(target), before, strict=True)):
            assert time.monotonic() < deadline, Path(f"/proc/{target.pid}/status").read_text()
    target.stdin.write("end\n")
    assert target.stdout.readline()
    assert target.stdout.readline() == "whole\n"
    assert target.wait(timeout=10) == 0
    assert " uw" not in "".join(flags(os.getpid()))


def beats(target):
    target.stdin.write("beats\n")
    return [int(word) for word in target.stdout.readline().split()]


def flags(pid):
    return [line for line in Path(f"/proc/{pid}/smaps").read_text().splitlines() if line.startswith("VmFlags")]


def test_a_guest_is_recorded_by_its_tracker():
    with sw.Guest("16MiB", sw.workloads.Sweep(rate="40MB/s"), seed=3) as guest:
        guest.start()
        trace = sw.Trace.record(guest=guest, duration="300ms", interval="30ms")
        guest.check()
    assert trace.blocks == {"ram": 4096}
    assert trace.metadata["source"] == "guest"
    assert 10e6 < trace.dirty_rate[1:].mean() < 80e6


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, "one process"),
        ({"pid": 2**22 + 1}, "no process"),
        ({"pid": os.getpid()}, "cannot record itself"),
        ({"pid": 1, "interval": "0s"}, "interval"),
        ({"pid": 1, "interval": "1s", "duration": "0.5s"}, "one or more intervals"),
        ({"pid": 1, "samples": -1}, "samples"),
    ],
)
def test_what_cannot_be_recorded_is_said(arguments, expected):
    with pytest.raises(sw.SwitchoverError, match=expected):
        sw.Trace.record(**{"duration": "1s", **arguments})


@needs_recording
def test_a_process_that_is_traced_already_is_refused(start):
    strace = shutil.which("strace")
    if not strace:
        pytest.skip("no strace")
    process = start(strace, "-f", "-o", "/dev/null", sys.executable, "-c", "print('ready'); input()")
    process.stdout.readline()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    with pytest.raises(sw.TrackerUnavailable, match="traced by process"):
        sw.Trace.record(int(children[0]), duration="1s")


def test_doctor_says_whether_processes_can_be_recorded():
    from switchover.cli.doctor import findings

    row = next(row for row in findings() if row["what"].startswith("recording"))
    assert row["works"] is (available() is None)
