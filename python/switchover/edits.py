"""Traces out of other traces: cut, merged, scaled."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from switchover import samples, units
from switchover.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from switchover.trace import Trace


def cut(trace: Trace, start: units.Time, end: units.Time | None) -> Trace:
    """See [`Trace.cut`][switchover.trace.Trace.cut]."""
    first = round(units.parse_time(start, "start") / trace.interval)
    last = trace.intervals if end is None else round(units.parse_time(end, "end") / trace.interval)
    last = min(last, trace.intervals)
    if first >= last:
        raise UsageError(f"nothing is left: the trace covers {units.format_time(trace.duration)}")
    rows, taken = trace.rows, trace.samples
    rows = rows[(rows["interval"] >= first) & (rows["interval"] < last)].copy()
    rows["interval"] -= first
    taken = taken[(taken["interval"] >= first) & (taken["interval"] < last)].copy()
    taken["interval"] -= first
    edit = {"cut": [first * trace.interval, last * trace.interval]}
    return _made(trace, rows, trace.blocks, trace.interval, last - first, edit=edit, taken=taken)


def merge(traces: Sequence[Trace], one_after_another: bool) -> Trace:
    """See [`Trace.merge`][switchover.trace.Trace.merge]."""
    if not traces:
        raise UsageError("nothing to merge")
    longest = max(trace.interval for trace in traces)
    traces = [coarser(trace, longest) for trace in traces]
    return _after(traces) if one_after_another else _beside(traces)


def _beside(traces: Sequence[Trace]) -> Trace:
    names = [name for trace in traces for name in trace.blocks]
    twice = {name for name in names if names.count(name) > 1}
    blocks: dict[str, int] = {}
    parts = []
    for number, trace in enumerate(traces):
        rows = trace.rows.copy()
        rows["block"] += len(blocks)
        parts.append(rows)
        blocks |= {f"{number}:{name}" if name in twice else name: pages for name, pages in trace.blocks.items()}
    intervals = max(trace.intervals for trace in traces)
    return _made(traces[0], _sorted(parts), blocks, traces[0].interval, intervals, edit={"merged": len(traces)})


def _after(traces: Sequence[Trace]) -> Trace:
    """Blocks of one name are one block, as large as the largest."""
    blocks: dict[str, int] = {}
    for trace in traces:
        for name, pages in trace.blocks.items():
            blocks[name] = max(pages, blocks.get(name, 0))
    numbers = {name: number for number, name in enumerate(blocks)}
    begins, rows_of, samples_of = 0, [], []
    for trace in traces:
        rows, taken = trace.rows.copy(), trace.samples.copy()
        rows["block"] = np.array([numbers[name] for name in trace.blocks], dtype=np.uint32)[rows["block"]]
        rows["interval"] += begins
        taken["interval"] += begins
        rows_of.append(rows)
        samples_of.append(taken)
        begins += trace.intervals
    edit = {"merged": len(traces), "one_after_another": True}
    return _made(
        traces[0], _sorted(rows_of), blocks, traces[0].interval, begins, edit=edit, taken=np.concatenate(samples_of)
    )


def scale(trace: Trace, speed: float, memory: int, interval: units.Time | None) -> Trace:
    """See [`Trace.scale`][switchover.trace.Trace.scale]."""
    if not speed > 0:
        raise UsageError(f"speed must be more than 0, not {speed}")
    if memory != int(memory) or memory < 1:
        raise UsageError(f"memory must be grown by a whole number, 1 or more, not {memory}")
    rows = trace.rows.copy()
    rows["first_page"] *= int(memory)
    rows["pages"] *= int(memory)
    blocks = {name: pages * int(memory) for name, pages in trace.blocks.items()}
    edit = {"speed": speed, "memory": int(memory)}
    made = _made(trace, rows, blocks, trace.interval / speed, trace.intervals, edit=edit, taken=trace.samples)
    return made if interval is None else coarser(made, units.parse_time(interval, "interval"))


def coarser(trace: Trace, interval: float) -> Trace:
    """The same in intervals that are a multiple of its own: what was written in each of them."""
    factor = round(interval / trace.interval)
    if factor < 1 or abs(factor * trace.interval - interval) > 1e-6 * interval:
        raise UsageError(
            f"an interval of {units.format_time(interval)} is no multiple of the trace's, "
            f"{units.format_time(trace.interval)}"
        )
    if factor == 1:
        return trace
    rows, taken = trace.rows.copy(), trace.samples.copy()
    rows["interval"] //= factor
    taken["interval"] //= factor
    intervals = -(-trace.intervals // factor)
    return _made(trace, _united(rows), trace.blocks, interval, intervals, edit={"interval": interval}, taken=taken)


def _sorted(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    rows = np.concatenate(parts)
    return rows[np.lexsort((rows["first_page"], rows["block"], rows["interval"]))]


def _united(rows: NDArray[Any]) -> NDArray[Any]:
    """Rows in order, where those of an interval and block that overlap or touch are one."""
    if not len(rows):
        return rows
    rows = _sorted([rows])
    place = (rows["interval"].astype(np.uint64) << 32) | rows["block"]
    ends = rows["first_page"] + rows["pages"]
    # The furthest end so far within each place: ends grow from place to place by more than any block has pages.
    _, group = np.unique(place, return_inverse=True)
    shift = group.astype(np.uint64) * np.uint64(ends.max() + 1)
    furthest = np.maximum.accumulate(ends + shift)
    begins = np.ones(len(rows), dtype=bool)
    begins[1:] = (rows["first_page"] + shift)[1:] > furthest[:-1]
    heads = np.flatnonzero(begins)
    tails = np.append(heads[1:], len(rows)) - 1
    united = rows[heads].copy()
    united["pages"] = furthest[tails] - shift[tails] - united["first_page"]
    return united


def _made(
    source: Trace,
    rows: NDArray[Any],
    blocks: dict[str, int],
    interval: float,
    intervals: int,
    *,
    edit: dict[str, Any],
    taken: NDArray[Any] = samples.NONE,
) -> Trace:
    edits = [*json.loads(source.metadata.get("edits", "[]")), edit]
    made = type(source)(rows, blocks, interval, intervals, source.metadata | {"edits": json.dumps(edits)})
    made.samples = taken
    return made
