"""The adaptive codec against every fixed one: total time to migrate page sets over links of several speeds.

``python benches/adaptive.py [--repeats N] [--sets a,b] [--links a,b]``

Each row is a cell (page set, link): the fixed codec with the least median time, and the ratio of adaptive's time to
its, taken pair by pair in turns, as median and spread. Below 1.10 is the target; on `mixed`, below 1.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import sysconfig
from pathlib import Path

import numpy as np
import switchover as sw

FIXED = ("raw", "zero", "xbzrle", "lz4", "zstd", "delta-lz4", "delta-zstd", "dedup", "zero+dedup+delta-zstd")
ADAPTIVE = "adaptive"
# Memory by link, so that a cell takes a second or less.
LINKS = {"100Mbit/s": 16 << 20, "1Gbit/s": 16 << 20, "10Gbit/s": 48 << 20, "40Gbit/s": 48 << 20}
MOVING = ("kv", "mixed")
"""Sets whose pages come again in a newer version."""


def joined(paths: list[Path], size: int) -> bytes:
    """The contents of files, one after the other, as often as it takes."""
    contents = bytearray()
    for path in paths:
        contents += path.read_bytes()
        if len(contents) >= size:
            break
    return (bytes(contents) * (size // len(contents) + 1))[:size]


def text(size: int) -> bytes:
    """The sources of Python's library."""
    return joined(sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")), size)


def executable(size: int) -> bytes:
    """Python itself and the libraries that it loads."""
    maps = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    return joined([Path(name) for name in sorted(maps) if name.startswith("/") and Path(name).is_file()], size)


def media(size: int) -> bytes:
    """What compression has left nothing of."""
    return random.Random(7).randbytes(size)


def heap(size: int) -> bytes:
    """This process's own heap, with objects of a few kinds in it."""
    keep = [{"name": f"object {i}", "values": [i, i * 0.5, str(i)]} for i in range(size // 600)]
    contents = bytearray()
    with Path("/proc/self/mem").open("rb", buffering=0) as memory:
        for line in Path("/proc/self/maps").read_text().splitlines():
            span, rights, *_, inode = line.split()[:5]
            first, end = (int(address, 16) for address in span.split("-"))
            if rights.startswith("rw") and inode == "0" and end - first < 256 << 20 and "[v" not in line:
                memory.seek(first)
                contents += memory.read(end - first)
    pages = np.frombuffer(bytes(contents), dtype=np.uint8).reshape(-1, 4096)
    used = pages[pages.any(axis=1)].tobytes()
    assert keep
    return (used * (size // len(used) + 1))[:size]


def mixed(size: int) -> bytes:
    """A quarter each, by turns of 256 pages: no fixed codec suits all."""
    turn, kinds = 1 << 20, [make(size) for make in (text, media, executable, heap)]
    return b"".join(kinds[i // turn % 4][i : i + turn] for i in range(0, size, turn))[:size]


SETS = {"text": text, "executable": executable, "media": media, "heap": heap, "mixed": mixed, "kv": None}


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
