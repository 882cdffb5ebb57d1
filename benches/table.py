"""The table of speeds: ratios taken in the same run, with median and spread. ``make bench`` prints it.

``python benches/table.py [--quick]``: quick takes less memory and fewer repetitions, for a look.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

import qemu
import switchover as sw

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
}


def core() -> None:
    """The benches of the core, which print their own tables."""
    for name, arguments in BENCHES.items():
        print(f"\n== {name}", flush=True)
        command = ["cargo", "bench", "--quiet", "-p", "migrate_core", "--bench", name, "--", *arguments]
        subprocess.run(command, cwd=ROOT, check=True)


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
    if not qemu.installed():
        print(f"not measured: no {qemu.BINARY}")
        return
    mib, pairs = (256, 3) if QUICK else (1024, 7)
    ours(mib, 2)
    measured = [(ours(mib, 2), qemu.throughput(mib)) for _ in range(pairs)]
    ratios = sorted(a / b for a, b in measured)
    mine, theirs = (statistics.median(column) / 1e9 for column in zip(*measured, strict=True))
    print(
        f"pre-copy of {mib} MiB over 2 channels against QEMU's multifd on 2, {pairs} pairs: "
        f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}); "
        f"median {mine:.2f} GB/s and {theirs:.2f} GB/s"
    )


if __name__ == "__main__":
    against_qemu()
    core()
