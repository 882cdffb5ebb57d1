"""Charts of text: curves and heat maps."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from switchover.units import format_rate, format_size, format_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from switchover import Trace

BARS = " ▁▂▃▄▅▆▇█"
HEAT = " ░▒▓█"
WIDTH = 72
HEIGHT = 8
ROWS = 16


def curve(values: NDArray[np.float64], left: str, right: str, label: Callable[[float], str]) -> str:
    """Values from left to right as columns, with what the edges of the axes say."""
    top = float(values.max()) if len(values) else 0.0
    levels = np.round(values / top * HEIGHT * 8).astype(int) if top else np.zeros(len(values), dtype=int)
    lines = []
    for row in reversed(range(HEIGHT)):
        cells = "".join(BARS[min(8, max(0, level - row * 8))] for level in levels)
        edge = label(top) if row == HEIGHT - 1 else ("0" if row == 0 else "")
        lines.append(f"{edge:>10} │{cells}")
    lines.append(f"{'':>10} └{'─' * len(levels)}")
    lines.append(f"{'':>12}{left}{right:>{max(1, len(levels) - len(left))}}")
    return "\n".join(lines)


def columns(values: NDArray[np.float64], width: int = WIDTH) -> NDArray[np.float64]:
    """As many means of neighbours as fit."""
    if len(values) <= width:
        return values
    edges = np.linspace(0, len(values), width + 1).astype(int)
    return np.array([values[a:b].mean() for a, b in pairwise(edges)])


def dirty_rate(trace: Trace) -> str:
    """Bytes of distinct pages written per second, over time."""
    values = columns(trace.dirty_rate)
    return "dirty rate over time\n" + curve(values, "0", format_time(trace.duration), format_rate)


def windows(trace: Trace, count: int = WIDTH) -> list[float]:
    """Lengths of windows from one interval to the whole trace, evenly on a logarithmic scale."""
    most = max(1, trace.intervals)
    steps = np.unique(np.round(np.geomspace(1, most, count)).astype(int))
    return [float(step) * trace.interval for step in steps]


def working_set(trace: Trace) -> str:
    """The working-set curve."""
    lengths = windows(trace)
    values = trace.unique_pages(lengths) * 4096
    left, right = format_time(lengths[0]), format_time(lengths[-1])
    return "distinct memory written in a window, by its length (logarithmic)\n" + curve(
        values, left, right, format_size
    )


def heat(trace: Trace) -> str:
    """Where was written when: memory from top to bottom, time from left to right."""
    counts = _counts(trace)
    top = counts.max() or 1.0
    # By logarithm: a few hot pages would leave everything else blank.
    shades = np.ceil(np.log1p(counts) / np.log1p(top) * (len(HEAT) - 1)).astype(int)
    size = format_size(trace.memory_bytes)
    edges = ["0", *[""] * (len(shades) - 2), size]
    lines = [f"{edge:>10} │{''.join(HEAT[s] for s in row)}" for edge, row in zip(edges, shades, strict=True)]
    return "\n".join(["pages written, by place in memory and time", *lines])


def _counts(trace: Trace) -> NDArray[np.float64]:
    """Pages written in each of the chart's cells."""
    rows, pages = trace.rows, list(trace.blocks.values())
    begins = np.concatenate(([0], np.cumsum(pages)))[:-1].astype(np.float64)
    first = begins[rows["block"]] + rows["first_page"]
    end = first + rows["pages"]
    width = max(1, min(WIDTH, trace.intervals))
    column = (rows["interval"].astype(np.int64) * width // max(1, trace.intervals)).astype(np.intp)
    edges = np.linspace(0, sum(pages), ROWS + 1)
    counts = np.zeros((ROWS, width))
    for row in range(ROWS):
        inside = np.clip(np.minimum(end, edges[row + 1]) - np.maximum(first, edges[row]), 0, None)
        counts[row] = np.bincount(column, weights=inside, minlength=width)
    return counts
