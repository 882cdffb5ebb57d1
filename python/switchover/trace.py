"""Dirty traces: which pages a guest wrote when."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from switchover import _native, contents, samples, units, workloads
from switchover.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from os import PathLike

    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray

    from switchover import trackers
    from switchover.guest import Guest
    from switchover.phases import Phase
    from switchover.qemu.qmp import Address, Qmp
    from switchover.recording import Standing
    from switchover.stream.capture import Capture, Paths

ROW = np.dtype([("interval", "<u4"), ("block", "<u4"), ("first_page", "<u8"), ("pages", "<u4")])
"""A run of pages written in an interval: its number, the block's, the first page in the block, how many."""

SCHEMA = 1
"""The version of the files that are written; older ones are read."""

_KEY = b"switchover.trace"
_SAMPLES = b"switchover.samples"


class Trace:
    """What a dirty log harvested at a steady pace held: for each interval the runs of pages written in it.

    Made by [`record`][switchover.trace.Trace.record], [`generate`][switchover.trace.Trace.generate] or
    [`from_stream`][switchover.trace.Trace.from_stream], read by [`load`][switchover.trace.Trace.load], or out of rows
    of your own.

    Attributes:
        samples: What the pages written looked like, where that was recorded: an array of `samples.SAMPLE`.

    Args:
        rows: A structured array or rows `(interval, block, first_page, pages)`, in ascending order.
        blocks: Pages of each RAM block, by name.
        interval: The length of an interval.
        intervals: How many there are, those without a write included; by default up to the last row's.
        metadata: Where it comes from: texts by name, kept in the file.

    Examples:
        >>> trace = Trace([(0, 0, 10, 5), (2, 0, 12, 1)], {"ram": 256}, "100ms")
        >>> trace.intervals, trace.duration, trace.memory_bytes
        (3, 0.3..., 1048576)
        >>> trace.written_pages.tolist()
        [5, 0, 1]
    """

    def __init__(
        self,
        rows: NDArray[Any] | Iterable[tuple[int, int, int, int]],
        blocks: Mapping[str, int],
        interval: units.Time,
        intervals: int | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        packed = rows if isinstance(rows, np.ndarray) else np.array(list(rows), dtype=ROW)
        if packed.dtype != ROW:
            raise UsageError(f"a trace's rows have the fields {', '.join(ROW.names or ())}, not {packed.dtype}")
        if intervals is None:
            intervals = int(packed["interval"].max()) + 1 if len(packed) else 0
        seconds = units.parse_time(interval, "interval")
        self._native = _native.Trace(list(blocks.items()), seconds, intervals, np.ascontiguousarray(packed).tobytes())
        self.metadata = dict(metadata or {})
        self.samples: NDArray[Any] = samples.NONE

    @classmethod
    def _of(cls, native: _native.Trace, metadata: Mapping[str, str]) -> Trace:
        trace = cls.__new__(cls)
        trace._native, trace.metadata, trace.samples = native, dict(metadata), samples.NONE
        return trace

    @classmethod
    def record(
        cls,
        pid: int | None = None,
        *,
        guest: Guest | None = None,
        qmp: Qmp | Address | None = None,
        duration: units.Time = "30s",
        interval: units.Time = "100ms",
        samples: int = 64,
        tracker: trackers.Tracker | str = "auto",
        bandwidth: units.Rate = "32MB/s",
        on_progress: Callable[[Standing], object] | None = None,
    ) -> Trace:
        """Records what a running process, or a guest of ours, writes. Ctrl-C ends it early; what was recorded stays.

        A process is watched from outside, whatever it is, a QEMU with its guest too: it is stopped for some 100 us at
        the start and left as it was found. What it cost is in `metadata["cost"]`. See docs/traces.md for the names of
        its blocks, and for what is not seen.

        Args:
            pid: The process. Its permission to be traced is needed: the same user's, or root's.
            guest: Or the guest, which may be running or not.
            qmp: Or the monitor of a real VM, for a rehearsal: it copies its memory to a receiver of ours, which notes
                the pages' numbers and lets them fall; it never moves and is never stopped. Takes QEMU 8.1 or later.
            duration: For how long, unless it ends before.
            interval: How often written pages are looked for; 1 ms or more.
            samples: Pages of each interval whose content is looked at; 0 for none.
            tracker: For a guest; a process has one of its own.
            bandwidth: The most that a rehearsal may use. Its first pass takes memory / bandwidth.
            on_progress: Called a few times a second.

        Examples:
            >>> import subprocess, sys
            >>> with subprocess.Popen([sys.executable, "-c", "while True: x = list(range(10**5))"]) as process:
            ...     trace = Trace.record(process.pid, duration="200ms", interval="20ms")
            ...     process.kill()
            >>> trace.intervals, trace.metadata["source"]
            (10, 'process')

        Raises:
            TrackerUnavailable: It cannot be watched; the text says what would help.
        """
        if qmp is not None:
            if pid is not None or guest is not None:
                raise UsageError("record a process, a guest or a VM by its monitor: one of them")
            from switchover.qemu import rehearsal

            return rehearsal.record(qmp, duration, interval=interval, bandwidth=bandwidth)
        from switchover.recording import record

        return record(pid, guest, duration, interval, sample=samples, tracker=tracker, on_progress=on_progress)

    @classmethod
    def generate(
        cls,
        memory: units.Size,
        workload: workloads.Workload | str | Sequence[workloads.Workload | str],
        *,
        duration: units.Time = "30s",
        interval: units.Time = "100ms",
        seed: int = 0,
        fill: contents.Content | str | None = None,
    ) -> Trace:
        """The trace that a guest would leave, without waiting for it.

        A pattern needs no memory, so that its guest may be of any size; a program that keeps data is run in
        memory of that size. Workloads need a rate.

            >>> import switchover as sw
            >>> trace = Trace.generate("64GiB", sw.workloads.Zipf(rate="200MB/s"), duration="2s", seed=7)
            >>> trace.intervals, bool(trace.dirty_rate.max() < 200e6)
            (20, True)
        """
        given = list(workload) if isinstance(workload, list | tuple) else [workload]
        spec: dict[str, Any] = {
            "layout": {"blocks": [{"name": "ram", "bytes": units.parse_size(memory, "memory")}]},
            "workloads": [workloads.registry.of(item).spec() for item in given],
            "seed": seed,
        }
        if fill is not None:
            spec["fill"] = contents.registry.of(fill).spec()
        seconds, step = units.parse_time(duration, "duration"), units.parse_time(interval, "interval")
        native = _native.Trace.generate(json.dumps(spec), seconds, step)
        return cls._of(native, {"source": "generated", "guest": json.dumps(spec)})

    @classmethod
    def from_stream(
        cls,
        source: Capture | Paths,
        *,
        interval: units.Time = "100ms",
        bandwidth: units.Rate = "1Gbit/s",
    ) -> Trace:
        """What a QEMU guest wrote while it was migrated, out of the pages that were sent again.

        A page that comes again in a pass was written between the beginnings of that pass and of the one before. The
        trace has it there once, with others spread evenly over the time: a page written many times in a pass counts
        once, so that the dirty rate is a lower bound that falls as passes get longer. Pages that XBZRLE found to be as
        before are not in the stream.

        Args:
            source: A capture or its files, as `sw.stream.open` takes them, or the page log of a receiver.
            interval: Of the trace.
            bandwidth: Where no receiver noted when the pages came, they are taken to have come at this rate. Which
                it is says `metadata["times"]`.

        Raises:
            StreamError: It is no stream. One that was cut off is taken as far as it goes: `metadata["ended"]`.
        """
        from switchover.stream.written import from_stream

        return from_stream(source, interval, bandwidth)

    def native(self) -> _native.Trace:
        """The engine's object, for the package's own modules."""
        return self._native

    @property
    def blocks(self) -> dict[str, int]:
        """Pages of each RAM block, by name."""
        return dict(self._native.blocks())

    @property
    def interval(self) -> float:
        """The length of an interval, in seconds."""
        return self._native.interval()

    @property
    def intervals(self) -> int:
        """How many intervals there are."""
        return self._native.intervals()

    @property
    def duration(self) -> float:
        """Seconds that it covers."""
        return self.interval * self.intervals

    @property
    def memory_bytes(self) -> int:
        """Size of all RAM blocks."""
        return sum(self.blocks.values()) * _native.PAGE

    @property
    def rows(self) -> NDArray[Any]:
        """The runs of pages written, as a structured array of `ROW`."""
        return np.frombuffer(self._native.rows(), dtype=ROW)

    @property
    def written_pages(self) -> NDArray[np.uint64]:
        """Distinct pages written in each interval."""
        return np.array(self._native.written_pages(), dtype=np.uint64)

    @property
    def dirty_rate(self) -> NDArray[np.float64]:
        """Bytes of distinct pages written per second, in each interval; it falls as intervals get longer."""
        return self.written_pages.astype(np.float64) * (_native.PAGE / self.interval)

    def unique_pages(self, windows: Sequence[units.Time]) -> NDArray[np.float64]:
        """The working-set curve U(t): the mean number of distinct pages written in windows of these lengths.

        Lengths are rounded to whole intervals, one or more. The mean is over all windows of the trace.

            >>> trace = Trace([(i, 0, i % 4, 1) for i in range(40)], {"ram": 256}, 1.0)
            >>> trace.unique_pages([1, 2, 8]).round(6).tolist()
            [1.0, 2.0, 4.0]
        """
        lengths = [max(1, round(units.parse_time(window, "a window") / self.interval)) for window in windows]
        return np.array(self._native.unique_pages(lengths)[0])

    def cut(self, start: units.Time = 0.0, end: units.Time | None = None) -> Trace:
        """The part from `start` to `end`, rounded to whole intervals.

        >>> Trace([(i, 0, i, 1) for i in range(10)], {"ram": 256}, 1.0).cut(3, 5).rows["first_page"].tolist()
        [3, 4]
        """
        from switchover import edits

        return edits.cut(self, start, end)

    @staticmethod
    def merge(traces: Sequence[Trace], *, one_after_another: bool = False) -> Trace:
        """One trace out of several: their guests side by side as one guest, or one run after the other.

        Intervals become those of the coarsest. Side by side, blocks of one name get their trace's number; one after
        another, they are the same block.
        """
        from switchover import edits

        return edits.merge(traces, one_after_another)

    def scale(self, speed: float = 1.0, memory: int = 1, interval: units.Time | None = None) -> Trace:
        """What a faster or a larger guest would have left.

        Args:
            speed: So many times as fast: the same writes in less time.
            memory: So many times as large: each page becomes so many pages.
            interval: Intervals of this length, a multiple of the trace's (after `speed`).
        """
        from switchover import edits

        return edits.scale(self, speed, memory, interval)

    def phases(self) -> list[Phase]:
        """Times in which the dirty rate stays about the same."""
        from switchover.phases import phases

        return phases(self)

    def to_frame(self) -> pd.DataFrame:
        """A row for each run of pages written in an interval: `interval`, `block` (its name), `first_page`, `pages`."""
        from switchover import extra

        pandas: Any = extra.load("pandas", "frame")
        rows = self.rows
        names = pandas.Categorical.from_codes(rows["block"].astype(np.int64), categories=list(self.blocks))
        return pandas.DataFrame(
            {"interval": rows["interval"], "block": names, "first_page": rows["first_page"], "pages": rows["pages"]}
        )

    def save(self, path: str | PathLike[str]) -> None:
        """Writes a Parquet file that DuckDB, Polars and pandas read as it is.

        Its rows are those of `to_frame`; the rest is JSON under the file's key `switchover.trace`, and the samples of
        content, a list a field, under `switchover.samples`.
        """
        import pyarrow.parquet

        pyarrow.parquet.write_table(self._table(), path, compression="zstd", use_dictionary=["block"])

    def _table(self) -> pa.Table:
        import pyarrow as pa

        rows, blocks = self.rows, self.blocks
        names = pa.DictionaryArray.from_arrays(pa.array(rows["block"].astype(np.int32)), pa.array(list(blocks)))
        columns = {
            "interval": pa.array(rows["interval"]),
            "block": names,
            "first_page": pa.array(rows["first_page"]),
            "pages": pa.array(rows["pages"]),
        }
        head = {
            "schema": SCHEMA,
            "version": _native.VERSION,
            "page_size": _native.PAGE,
            "interval": self.interval,
            "intervals": self.intervals,
            "blocks": [{"name": name, "pages": pages} for name, pages in blocks.items()],
            "metadata": self.metadata,
        }
        texts = {_KEY: json.dumps(head)}
        if len(self.samples):
            texts[_SAMPLES] = json.dumps(samples.to_columns(self.samples))
        return pa.table(columns).replace_schema_metadata(texts)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Trace:
        """Reads a file that `save` wrote.

        Raises:
            UsageError: It is no such file, or damaged; the text names what is wrong.
        """
        import pyarrow as pa
        import pyarrow.parquet

        try:
            table = pyarrow.parquet.read_table(path)
            texts = table.schema.metadata or {}
            trace = cls._read(table, json.loads(texts[_KEY]))
            if _SAMPLES in texts:
                trace.samples = samples.of_columns(json.loads(texts[_SAMPLES]))
        except KeyError as error:
            raise UsageError(f"{path}: not a trace of Switchover: no {error} in it") from error
        except (pa.ArrowInvalid, ValueError, TypeError, OverflowError) as error:
            raise UsageError(f"{path}: not a trace of Switchover: {error}") from error
        return trace

    @classmethod
    def _read(cls, table: pa.Table, head: dict[str, Any]) -> Trace:
        if not 1 <= head["schema"] <= SCHEMA:
            raise UsageError(f"a trace of schema {head['schema']} cannot be read; this version reads 1 to {SCHEMA}")
        if head["page_size"] != _native.PAGE:
            raise UsageError(f"a trace of pages of {head['page_size']} bytes cannot be read, only of {_native.PAGE}")
        blocks = {block["name"]: int(block["pages"]) for block in head["blocks"]}
        numbers = {name: number for number, name in enumerate(blocks)}
        rows = np.empty(len(table), dtype=ROW)
        for field in ("interval", "first_page", "pages"):
            rows[field] = table[field].to_numpy()
        rows["block"] = [numbers[name] for name in table["block"].to_pylist()]
        return cls(rows, blocks, float(head["interval"]), int(head["intervals"]), head["metadata"])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Trace):
            return NotImplemented
        same = (self.blocks, self.interval, self.intervals) == (other.blocks, other.interval, other.intervals)
        return same and np.array_equal(self.rows, other.rows)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return (
            f"<Trace of {units.format_size(self.memory_bytes)} for {units.format_time(self.duration)}, "
            f"{self.intervals} intervals, {len(self.rows)} runs>"
        )
