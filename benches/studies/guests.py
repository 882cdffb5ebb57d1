"""The guests of the studies: real programs, recorded, and virtual machines made of such recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import switchover as sw

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "traces"
NAMES = ("redis", "sqlite", "postgres", "gcc", "stress-ng", "numpy")
GIB = 1 << 30


def recorded(names: tuple[str, ...] = NAMES) -> dict[str, sw.Trace]:
    """As they were recorded."""
    return {name: sw.Trace.load(FOLDER / f"{name}.parquet") for name in names}


def dirty_rate(trace: sw.Trace, window: float = 1.0) -> float:
    """Bytes a second of distinct pages written in a window, in the mean over the trace."""
    return float(trace.unique_pages([window])[0]) * 4096 / window


def working_set(trace: sw.Trace) -> np.ndarray:
    """For each page that is written at all, in which share of the intervals it is."""
    counts = np.zeros(sum(trace.blocks.values()) + 1, dtype=np.int64)
    firsts = np.concatenate(([0], np.cumsum(list(trace.blocks.values()))))
    begins = firsts[trace.rows["block"]] + trace.rows["first_page"].astype(np.int64)
    np.add.at(counts, begins, 1)
    np.add.at(counts, begins + trace.rows["pages"].astype(np.int64), -1)
    written = np.cumsum(counts)[:-1]
    return written[written > 0] / trace.intervals


def machine(trace: sw.Trace, rate: float, memory: int) -> sw.Trace:
    """A virtual machine in which the program dirties `rate` bytes a second: made larger, and the rest is idle."""
    grown = trace.scale(memory=max(1, round(rate / dirty_rate(trace))))
    blocks, rest = dict(grown.blocks), memory // 4096 - sum(grown.blocks.values())
    if rest > 0:
        blocks["idle"] = rest
    made = sw.Trace(grown.rows, blocks, grown.interval, grown.intervals, dict(grown.metadata))
    made.samples = trace.samples
    return made
