"""A dirty trace out of the pages that a source sent again.

A source harvests its dirty bitmap when a pass begins, and sends what was written since the harvest before. So a page
that comes again in pass *p* was written between the beginnings of the passes *p - 1* and *p*; when in that time, and
how often, nothing says. The trace spreads such pages evenly over the time, in the order in which they came.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from switchover import _native, samples, units
from switchover.errors import StreamError, UsageError
from switchover.stream.capture import Capture
from switchover.stream.page_log import is_log, read_log
from switchover.trace import ROW, Trace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from switchover.stream.capture import Paths

PAGE = np.dtype([("seconds", "f8"), ("block", "u4"), ("page", "u8"), ("pass", "u4"), ("sent_again", "?")])
"""A page as it came."""


def from_stream(source: Capture | Paths, interval: units.Time, bandwidth: units.Rate) -> Trace:
    """See `Trace.from_stream`."""
    if isinstance(source, str | os.PathLike) and is_log(source):
        log = read_log(source)
        return build(
            spread_out(log.rows), log.blocks, log.page_bytes, interval, {"times": "recorded"}, contents=log.samples
        )
    capture = source if isinstance(source, Capture) else Capture(source)
    pages, sizes, ended = came(capture)
    metadata = {"machine": capture.machine or "", "times": "recorded", "ended": ended}
    if np.isnan(pages["seconds"]).any():
        rate = units.parse_rate(bandwidth, "bandwidth")
        pages["seconds"] = np.cumsum(sizes, dtype=np.float64) / rate
        metadata["times"] = f"assumed: {units.format_rate(rate)}"
    blocks = {block.name: block.bytes for block in capture.blocks}
    return build(pages, blocks, capture.page_bytes, interval, metadata)


def came(capture: Capture) -> tuple[NDArray[Any], NDArray[np.uint32], str]:
    """The pages that came, their bytes in the stream, and how the capture ends, which may be too early."""
    pages, sizes, ended = [np.empty(0, PAGE)], [np.empty(0, "u4")], "complete"
    try:
        for rows in capture.pages():
            sizes.append(rows["bytes"])
            pages.append(taken(rows))
    except StreamError as error:
        ended = str(error)
    return np.concatenate(pages), np.concatenate(sizes), ended


def taken(rows: NDArray[np.void]) -> NDArray[Any]:
    """What a trace needs of a capture's rows."""
    pages = np.empty(len(rows), PAGE)
    for name in PAGE.names or ():
        pages[name] = rows[name]
    return pages


def spread_out(runs: NDArray[Any]) -> NDArray[Any]:
    """A row for each page of the runs of a page log."""
    counts = runs["pages"].astype(np.int64)
    pages = np.empty(int(counts.sum()), PAGE)
    for name in ("seconds", "block", "pass", "sent_again"):
        pages[name] = np.repeat(runs[name], counts)
    begins = np.cumsum(counts) - counts
    pages["page"] = np.repeat(runs["first_page"], counts) + (np.arange(len(pages)) - np.repeat(begins, counts))
    return pages


def build(
    pages: NDArray[Any],
    blocks: dict[str, int],
    page_bytes: int,
    interval: units.Time,
    metadata: dict[str, str],
    *,
    contents: NDArray[Any] = samples.NONE,
) -> Trace:
    """The trace of pages in the order in which they came; `contents` are samples by pass."""
    if page_bytes != _native.PAGE:
        raise UsageError(f"pages of {page_bytes} bytes; a trace is of pages of {_native.PAGE}")
    step = units.parse_time(interval, "interval")
    begins, sent_from = starts(pages)
    end = begins[-1] if len(begins) else 0.0
    intervals = max(1, int(np.ceil((end - sent_from) / step)))
    again = pages[pages["sent_again"] & (pages["pass"] > 0)]
    moments = written(again, begins) - sent_from
    numbers = np.minimum((moments / step).astype(np.uint32), intervals - 1)
    metadata = {"source": "stream", "passes": str(len(begins)), **metadata}
    names = {name: size // page_bytes for name, size in blocks.items()}
    trace = Trace(runs(numbers, again), names, step, intervals, metadata)
    trace.samples = by_interval(contents, (begins - sent_from) / step, intervals)
    return trace


def by_interval(contents: NDArray[Any], begins: NDArray[np.float64], intervals: int) -> NDArray[Any]:
    """Samples by the interval in which their pass's pages began to be written; what was there first is in the first."""
    placed = contents[contents["interval"] < len(begins)].copy()
    written = np.maximum(placed["interval"].astype(np.int64) - 1, 0)
    placed["interval"] = np.minimum(begins[written], intervals - 1).astype(np.uint32)
    return placed


def starts(pages: NDArray[Any]) -> tuple[NDArray[np.float64], float]:
    """When each pass began, and the first of them. A pass of which nothing came begins with the next."""
    if not len(pages):
        return np.empty(0), 0.0
    begins = np.full(int(pages["pass"].max()) + 1, np.inf)
    np.minimum.at(begins, pages["pass"], pages["seconds"])
    begins = np.minimum.accumulate(begins[::-1])[::-1]
    return begins, float(begins[0])


def written(again: NDArray[Any], begins: NDArray[np.float64]) -> NDArray[np.float64]:
    """A moment for each page that came again: its place among those of its pass gives its place in the time before."""
    moments = np.empty(len(again))
    for number in np.unique(again["pass"]):
        of_pass = again["pass"] == number
        count = int(of_pass.sum())
        first, last = begins[number - 1], begins[number]
        moments[of_pass] = first + (last - first) * (np.arange(count) + 0.5) / count
    return moments


def runs(intervals: NDArray[np.uint32], pages: NDArray[Any]) -> NDArray[Any]:
    """Rows of a trace: neighbouring pages of an interval and a block are one."""
    keys = np.empty(len(pages), [("interval", "u4"), ("block", "u4"), ("page", "u8")])
    keys["interval"], keys["block"], keys["page"] = intervals, pages["block"], pages["page"]
    keys = np.unique(keys)
    if not len(keys):
        return np.empty(0, ROW)
    same = (np.diff(keys["interval"]) == 0) & (np.diff(keys["block"]) == 0) & (np.diff(keys["page"]) == 1)
    firsts = np.flatnonzero(np.concatenate(([True], ~same)))
    rows = np.empty(len(firsts), ROW)
    rows["interval"], rows["block"], rows["first_page"] = (keys[name][firsts] for name in ("interval", "block", "page"))
    rows["pages"] = np.diff(np.append(firsts, len(keys)))
    return rows
