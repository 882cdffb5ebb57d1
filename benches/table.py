"""The table of speeds: ratios taken in the same run, with median and spread. ``make bench`` prints it.

``python benches/table.py [--quick]``: quick takes less memory and fewer repetitions, for a look.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import multifd
import streams
import switchover as sw

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
QUICK = "--quick" in sys.argv
BENCHES = {
    "bitmap": [],
    "trackers": [],
    "tracking": ["3"] if QUICK else [],
    "migration": ["256", "3"] if QUICK else [],
    "simulation": [],
    "post_copy": ["256", "3", "1024"] if QUICK else [],
    "throttle": ["1"] if QUICK else [],
    "codec": ["16", "2"] if QUICK else [],
    "page_sets": [],
}


def core() -> None:
    """The benches of the core, which print their own tables."""
    for name, arguments in BENCHES.items():
        print(f"\n== {name}", flush=True)
        command = ["cargo", "bench", "--quiet", "-p", "migrate_core", "--features", "testing", "--bench", name]
        subprocess.run([*command, "--", *arguments], cwd=ROOT, check=True)


def ours(mib: int, channels: int) -> float:
    """Bytes of guest memory a second, from the end of setup to the word that the guest runs."""
    idle = sw.workloads.Idle(rate=4096)
    with sw.Guest(f"{mib}MiB", idle, seed=1, fill="random") as guest:
        report = sw.migrate(guest, sw.PreCopy(), link=sw.Link(channels=channels), warm_up="10ms")
    report.raise_for_outcome()
    return report.memory_bytes / (report.total_time - report.data["setup_time"])


def against_qemu() -> None:
    """Pre-copy over two channels against QEMU's multifd on two, in turns."""
    print("\n== QEMU")
    if not multifd.installed():
        print(f"not measured: no {multifd.BINARY}")
        return
    mib, pairs = (256, 3) if QUICK else (1024, 7)
    ours(mib, 2)
    measured = [(ours(mib, 2), multifd.throughput(mib)) for _ in range(pairs)]
    ratios = sorted(a / b for a, b in measured)
    mine, theirs = (statistics.median(column) / 1e9 for column in zip(*measured, strict=True))
    print(
        f"pre-copy of {mib} MiB over 2 channels against QEMU's multifd on 2, {pairs} pairs: "
        f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}); "
        f"median {mine:.2f} GB/s and {theirs:.2f} GB/s"
    )


@contextmanager
def receiver() -> Iterator[str]:
    """Our destination for a real source, in a thread; what the source is told to migrate to."""
    with sw.stream.Receiver("tcp:127.0.0.1:0") as receiver:
        found: list[sw.stream.Reception] = []
        thread = threading.Thread(target=lambda: found.append(receiver.receive(timeout="20s")))
        thread.start()
        yield receiver.endpoint
        thread.join()
    if found[0].outcome != "accepted":
        raise RuntimeError(found[0].reason)


def received() -> None:
    """A real source that sends to our receiver against one that sends to a QEMU, in turns."""
    print("\n== receiver")
    if not multifd.installed():
        print(f"not measured: no {multifd.BINARY}")
        return
    mib, pairs = (256, 3) if QUICK else (1024, 7)
    for channels in (0, 2):
        measured = [
            (multifd.throughput_to(receiver, mib, channels), multifd.throughput(mib, channels)) for _ in range(pairs)
        ]
        ratios = sorted(a / b for a, b in measured)
        mine, theirs = (statistics.median(column) / 1e9 for column in zip(*measured, strict=True))
        print(
            f"QEMU's {mib} MiB over {f'multifd on {channels}' if channels else 'one channel'} to our receiver against "
            f"a QEMU, {pairs} pairs: ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}); "
            f"median {mine:.2f} GB/s and {theirs:.2f} GB/s"
        )


if __name__ == "__main__":
    against_qemu()
    received()
    print("\n== streams", flush=True)
    streams.main(0.25 if QUICK else 2)
    core()
