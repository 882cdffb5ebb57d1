"""QEMU streams, as ratios taken in the same run: ``python benches/streams.py [GiB]``.

* ``inspect`` against merely reading the file. Target: 0.6 or more of its speed, in less than 64 MiB.
* ``extract`` against ``cp`` of the file. Target: 0.5 or more of its speed.

The file is made here, in the form that QEMU writes: a pass over memory whose pages are text, noise and zeros, then a
second one over a quarter of them. It lies in the page cache. Pairs are run alternately.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PAGE = 4096
PAIRS = 7
READ = (
    "import sys\nwith open(sys.argv[1], 'rb', buffering=0) as f:\n b = bytearray(1 << 18)\n while f.readinto(b): pass\n"
)
LOOK = (
    "import resource, sys, switchover._native as n\nn.stream_summary([sys.argv[1]])\n"
    "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
)
TAKE = "import sys, switchover._native as n\nn.stream_extract([sys.argv[1]], sys.argv[2])\n"
NOTHING = "import switchover._native, resource\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"


def records(pages: int, step: int, source: random.Random) -> Iterator[bytes]:
    """Pages of pc.ram in the stream's form: an eighth of them zero."""
    noise = [source.randbytes(PAGE - 8) for _ in range(64)]
    yield struct.pack(">Q", 8) + b"\x06pc.ram" + bytes(PAGE)
    for page in range(step, pages, step):
        if page % 8 == 0:
            yield struct.pack(">Q", page * PAGE | 0x22) + b"\0"
        else:
            yield struct.pack(">QQ", page * PAGE | 0x28, page) + noise[page % 64]


def write(path: Path, gib: float) -> None:
    """A stream of a guest of so many GiB."""
    pages, source = int(gib * (1 << 30)) // PAGE, random.Random(7)
    with path.open("wb") as to:
        to.write(b"QEVM\0\0\0\x03\x07\0\0\0\x05pc-10")
        to.write(b"\x01\0\0\0\x02\x03ram\0\0\0\0\0\0\0\x04" + struct.pack(">Q", pages * PAGE | 4))
        to.write(b"\x06pc.ram" + struct.pack(">QQ", pages * PAGE, 0x10) + b"\x7e\0\0\0\x02")
        for kind, step in ((2, 1), (3, 4)):
            to.write(bytes([kind]) + b"\0\0\0\x02")
            to.writelines(records(pages, step, source))
            to.write(struct.pack(">Q", 0x10) + b"\x7e\0\0\0\x02")
        to.write(b"\0\x06\0\0\0\x0e" + b'{"devices":[]}')


def took(*command: str) -> float:
    """Seconds, from start to end."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def compare(name: str, theirs: tuple[str, ...], ours: tuple[str, ...], clean: list[Path], size: int) -> None:
    """Prints how fast ours is against theirs."""
    idle = statistics.median(took(sys.executable, "-c", NOTHING) for _ in range(5))
    pairs = []
    for number in range(PAIRS + 1):
        times = []
        for command in (theirs, ours):
            for path in clean:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            seconds = took(*command)
            times.append(seconds - idle if command[0] == sys.executable else seconds)
        # The first pair warms up.
        if number:
            pairs.append(times)
    ratios = sorted(a / b for a, b in pairs)
    a, b = (size / statistics.median(column) / 1e9 for column in zip(*pairs, strict=True))
    print(
        f"{name}: {statistics.median(ratios):.2f} of its speed ({ratios[0]:.2f} to {ratios[-1]:.2f}), {PAIRS} pairs; "
        f"median {b:.2f} GB/s against {a:.2f} GB/s",
        flush=True,
    )


def memory(script: str, *arguments: str) -> int:
    """Most memory of a program, in bytes."""
    said = subprocess.run([sys.executable, "-c", script, *arguments], check=True, capture_output=True, text=True)
    return int(said.stdout) * 1024


def main(gib: float) -> None:
    """The table."""
    with tempfile.TemporaryDirectory(prefix="switchover-", dir=os.environ.get("BENCH_DIR")) as folder:
        path, copy, out = (Path(folder) / name for name in ("stream", "copy", "out"))
        write(path, gib)
        size = path.stat().st_size
        print(f"a stream of {size / 1e9:.2f} GB, of a guest of {gib} GiB")
        python, file = (sys.executable, "-c"), str(path)
        compare("inspect against reading", (*python, READ, file), (*python, LOOK, file), [], size)
        most, idle = memory(LOOK, file), memory(NOTHING)
        print(f"inspect: {most / 2**20:.0f} MiB at most, of which {idle / 2**20:.0f} MiB are Python with nothing to do")
        compare("extract against cp", ("cp", file, str(copy)), (*python, TAKE, file, str(out)), [copy, out], size)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 2)
