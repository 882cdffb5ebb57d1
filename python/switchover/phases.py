"""Phases of a trace: times in which the dirty rate stays about the same."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from switchover.trace import Trace

LEAST = 5
"""Intervals of a phase at least."""

MOST = 12
"""Phases that are told apart at most: more would tell nobody anything."""


class Phase(NamedTuple):
    """A time in which the dirty rate stays about the same.

    Attributes:
        start: Seconds from the trace's start.
        end: The same of its end.
        dirty_rate: Bytes of distinct pages written per second, on average over its intervals.
    """

    start: float
    end: float
    dirty_rate: float


def phases(trace: Trace) -> list[Phase]:
    """The phases of a trace.

    The trace is cut in two where that explains most of the squared deviation, and so are its parts, for as long as
    a cut explains more than chance would: Schwarz's criterion, with the noise taken from neighbouring intervals. It
    looks at the roots of the counts of pages, whose noise is much the same however large they are.
    """
    rates = trace.dirty_rate
    if not len(rates):
        return []
    roots = np.sqrt(trace.written_pages)
    noise = np.median(np.abs(np.diff(roots))) / 0.954 if len(roots) > 1 else 0.0
    # What a cut must explain; a fiftieth of the mean is no phase of its own, however steady a trace is.
    floor = 3 * np.log(len(roots)) * max(noise, 0.01 * float(roots.mean()), 0.1) ** 2
    edges = [0, len(rates)]
    while len(edges) <= MOST:
        cuts = [(gain, at) for a, b in pairwise(edges) for gain, at in [_cut(roots, a, b)]]
        gain, at = max(cuts)
        if gain <= floor:
            break
        edges = sorted([*edges, at])
    step = trace.interval
    return [Phase(a * step, b * step, float(rates[a:b].mean())) for a, b in pairwise(edges)]


def _cut(roots: NDArray[np.float64], first: int, end: int) -> tuple[float, int]:
    """The best place for a cut, and the squared deviation that it explains."""
    part = roots[first:end]
    count = len(part)
    if count < 2 * LEAST:
        return 0.0, first
    left = np.arange(1, count)
    sums = np.cumsum(part)[:-1]
    gap = sums / left - (part.sum() - sums) / (count - left)
    gains = gap**2 * left * (count - left) / count
    gains[: LEAST - 1] = gains[count - LEAST :] = 0.0
    best = int(np.argmax(gains))
    return float(gains[best]), first + best + 1
