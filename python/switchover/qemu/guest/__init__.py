"""The guest of `switchover qemu run`: `guest.c`, shipped compiled, and its command line out of a workload."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path
from typing import Any

from switchover import contents, workloads
from switchover.errors import UsageError

TICKS = 3_579_545
PAGE = 4096
KINDS = {"zero": 0, "counter": 1, "text": 2, "random": 3, "mix": 4, "image": 5}
# Of memory: the guest itself, its versions, and what the machine keeps for itself at the top.
SPARE = 8 << 20
LEAST = 16 << 20
MOST = 2048 << 20
# Steps that stand for a Zipf law.
STEPS = 64
PATTERNS = ("idle", "sweep", "uniform", "zipf", "hot-cold", "sliding")


def image() -> bytes:
    """The guest, as QEMU's `-kernel` takes it."""
    return bytes.fromhex((Path(__file__).parent / "guest.hex").read_text())


def pages_in(memory: int) -> int:
    """How many pages the guest has for data in a VM of `memory` bytes.

    Raises:
        UsageError: It is too small, or more than a program of 32 bits is to fill.
    """
    if not LEAST <= memory <= MOST:
        raise UsageError(f"a VM of ours has from {LEAST >> 20} to {MOST >> 20} MiB, not {memory >> 20}")
    # Four bytes a page for its version.
    return (memory - SPARE) // (PAGE + 4)


def command_line(workload: object, memory: int, seed: int = 0, beat: float = 1000.0) -> str:
    """The guest's parameters, which stand for one of the memory world's patterns.

    >>> command_line("uniform:rate=10MB/s", 64 << 20).split()[:4]
    ['pages=14322', 'gap=375342', 'beat=3579', 'seed=1']
    """
    part = workloads.registry.of(workload)
    if part.name not in PATTERNS:
        raise UsageError(f"the guest of a VM runs patterns ({', '.join(PATTERNS)}), not {part.name}")
    pages, rate = pages_in(memory), float(part.rate)
    given = {
        "pages": pages,
        "gap": max(1, min(0xFFFFFFFF, round(256 * TICKS * PAGE / rate))) if rate > 0 else 0,
        "beat": max(1, int(TICKS / beat)),
        "seed": seed + 1,
        **_content(contents.registry.of(part.content)),
        **_pattern(part, pages),
    }
    segments = given.pop("seg", [])
    words = [f"{name}={value}" for name, value in given.items()]
    return " ".join(words + [f"seg={weight}:{first}:{count}" for weight, first, count in segments])


def _content(content: Any) -> dict[str, int]:
    kind: dict[str, int] = {"content": KINDS[content.name]}
    if content.name == "counter":
        kind["edits"] = int(content.edits)
    if content.name in ("mix", "image"):
        kind["share"] = round(100 * content.incompressible)
    return kind


def _pattern(part: Any, pages: int) -> dict[str, Any]:
    if part.name == "sweep":
        return {"mode": 1, "seg": [(65536, 0, max(1, round(part.share * pages)))]}
    if part.name == "sliding":
        window, period = max(1, round(part.window * pages)), max(1, round(1000 * part.period))
        return {"mode": 2, "window": window, "period": period}
    if part.name == "idle":
        return {"mode": 0, "seg": [(65536, 0, min(pages, int(part.pages)))]}
    if part.name == "uniform":
        return {"mode": 0, "seg": [(65536, 0, max(1, round(part.share * pages)))]}
    segments = _hot_cold(part, pages) if part.name == "hot-cold" else _zipf(part.s, pages)
    return {"mode": 0, "scatter": _scatter(pages), "seg": segments}


def _hot_cold(part: Any, pages: int) -> list[tuple[int, int, int]]:
    hot, weight = max(1, round(part.hot_share * pages)), round(65536 * part.hot_writes)
    cold = [(65536 - weight, hot, pages - hot)] if pages > hot else []
    return [(weight, 0, hot), *cold]


def _zipf(s: float, pages: int) -> list[tuple[int, int, int]]:
    """Ranks in steps that grow by a constant factor; within a step all are taken as equal."""
    factor = pages ** (1 / STEPS)
    edges = sorted({0, *(min(pages, round(factor**step)) for step in range(STEPS + 1)), pages})
    shares = [sum_of_powers(first, end, s) for first, end in itertools.pairwise(edges)]
    whole, weights, given = sum(shares), [], 0
    for number in range(len(shares)):
        up_to = 65536 if number == len(shares) - 1 else round(65536 * sum(shares[: number + 1]) / whole)
        weights.append(up_to - given)
        given = up_to
    return [
        (weight, first, end - first) for weight, first, end in zip(weights, edges, edges[1:], strict=False) if weight
    ]


def sum_of_powers(first: int, end: int, s: float) -> float:
    """The sum of rank**-s over the ranks first+1 to end: the first hundred as they are, the rest as an integral."""
    exact: float = sum(rank**-s for rank in range(first + 1, min(end, first + 100) + 1))
    low, high = first + 100.5, end + 0.5
    if high <= low:
        return exact
    rest: float = math.log(high / low) if s == 1 else (high ** (1 - s) - low ** (1 - s)) / (1 - s)
    return exact + rest


def _scatter(pages: int) -> int:
    """A factor that spreads ranks over memory; it has no divisor in common with the number of pages."""
    draw = random.Random(pages)  # noqa: S311  no secret
    while True:
        factor = draw.randrange(pages // 3, pages)
        if math.gcd(factor, pages) == 1:
            return factor
