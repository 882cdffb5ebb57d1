"""The adaptive codec against every fixed one: total time to migrate page sets over links of several speeds.

``python benches/adaptive.py [--repeats N] [--sets a,b] [--links a,b]``

Each row is a cell (page set, link): the fixed codec with the least median time, and the ratio of adaptive's time to
its, taken pair by pair in turns, as median and spread. Below 1.10 is the target; on `mixed`, below 1.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import page_sets
import switchover as sw

FIXED = ("raw", "zero", "xbzrle", "lz4", "zstd", "delta-lz4", "delta-zstd", "dedup", "zero+dedup+delta-zstd")
ADAPTIVE = "adaptive"
# Memory by link, so that a cell takes a second or less.
LINKS = {"100Mbit/s": 16 << 20, "1Gbit/s": 16 << 20, "10Gbit/s": 48 << 20, "40Gbit/s": 48 << 20}
MOVING = ("kv", "mixed")
"""Sets whose pages come again in a newer version."""


def mixed(size: int) -> bytes:
    """A quarter each, by turns of 256 pages: no fixed codec suits all."""
    turn, kinds = 1 << 20, [page_sets.SETS[name](size)[0] for name in ("text", "media", "executable", "heap")]
    return b"".join(kinds[i // turn % 4][i : i + turn] for i in range(0, size, turn))[:size]


SETS = {name: lambda size, name=name: page_sets.SETS[name](size)[0] for name in ("text", "executable", "media", "heap")}
SETS |= {"mixed": mixed, "kv": None}


def guest_of(name: str, size: int) -> sw.Guest:
    """A guest that holds the set."""
    if name == "kv":
        return sw.Guest(size, sw.workloads.Kv(), seed=7)
    load = (
        sw.workloads.Sweep(rate="40MB/s", content=sw.contents.Counter())
        if name == "mixed"
        else sw.workloads.Idle(rate=4096)
    )
    guest = sw.Guest(size, load, seed=7, fill="zero")
    guest.memory[:] = np.frombuffer(CONTENTS[name, size], dtype=np.uint8)
    return guest


CONTENTS: dict[tuple[str, int], bytes] = {}


def seconds(name: str, link: str, codec: str) -> float:
    """From the first page to the word that the guest runs there."""
    size = LINKS[link]
    if SETS[name] is not None and (name, size) not in CONTENTS:
        CONTENTS[name, size] = SETS[name](size)
    moving = name in MOVING
    plan = sw.PreCopy(codec=codec) if moving else sw.StopAndCopy(codec=codec)
    with guest_of(name, size) as guest:
        report = sw.migrate(guest, plan, "max-rounds:3", link=link, warm_up="1ms")
    report.raise_for_outcome()
    return report.total_time - report.data["setup_time"]


def cell(name: str, link: str, repeats: int) -> tuple[str, float]:
    """A row of the table, and its ratio."""
    times: dict[str, list[float]] = {codec: [] for codec in (*FIXED, ADAPTIVE)}
    for turn in range(repeats + 1):
        for codec, own in times.items():
            taken = seconds(name, link, codec)
            if turn > 0:  # the first warms up
                own.append(taken)
    best = min(FIXED, key=lambda codec: statistics.median(times[codec]))
    ratios = sorted(ours / theirs for ours, theirs in zip(times[ADAPTIVE], times[best], strict=True))
    ratio, mine = statistics.median(ratios), statistics.median(times[ADAPTIVE])
    row = (
        f"{name:10} {link:>10}  {ratio:5.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})  "
        f"{mine * 1e3:7.1f} ms against {statistics.median(times[best]) * 1e3:7.1f} ms of {best}"
    )
    return row, ratio


def main() -> int:
    """Prints the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--sets", default=",".join(SETS))
    options.add_argument("--links", default=",".join(LINKS))
    given = options.parse_args()
    print(f"adaptive's total time as a ratio to the best fixed codec's; {given.repeats} pairs; median (least to most)")
    ratios = []
    for name in given.sets.split(","):
        for link in given.links.split(","):
            row, ratio = cell(name, link, given.repeats)
            print(row, flush=True)
            ratios.append(ratio)
    print(f"{sum(ratio <= 1.10 for ratio in ratios)} of {len(ratios)} cells within 10 % of the best fixed codec")
    return 0


if __name__ == "__main__":
    sys.exit(main())
