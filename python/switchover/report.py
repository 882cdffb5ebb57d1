"""What a run leaves behind: the same report in every world."""

from __future__ import annotations

import itertools
import json
import math
from functools import cached_property
from typing import TYPE_CHECKING, Any

from switchover import units
from switchover.errors import SwitchoverError, UsageError
from switchover.round import Round

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

SCHEMA = 1
"""The version of the report's JSON that is written; older ones are read."""


class Report:
    """A whole run. Times in seconds, sizes in bytes, rates in bytes per second.

    What is not an attribute here is in `data`, which is the report as JSON has it.
    """

    def __init__(self, data: dict[str, Any]) -> None:
        schema = data.get("schema")
        if not isinstance(schema, int) or not 1 <= schema <= SCHEMA:
            raise UsageError(f"a report of schema {schema!r} cannot be read; this version reads 1 to {SCHEMA}")
        self.data = data
        self.error: SwitchoverError | None = None
        """The error behind a failed outcome; not part of the JSON."""

    @property
    def outcome(self) -> str:
        """`completed`, `aborted` or `failed`."""
        return str(self.data["outcome"])

    @property
    def reason(self) -> str:
        """Why, and where the guest is if it failed; empty for a completed run without remark."""
        return str(self.data["reason"])

    @property
    def total_time(self) -> float:
        """From the start until the source may be freed."""
        return float(self.data["total_time"])

    @property
    def blackout(self) -> float | None:
        """The time that the guest ran nowhere: last instruction there to first here."""
        return self._optional("blackout")

    @property
    def sender_pause(self) -> float | None:
        """From stopping the guest to the word that it runs, on the source's clock."""
        return self._optional("sender_pause")

    @property
    def guest_gap(self) -> float | None:
        """The same as `blackout`, whose vantage point it is where one clock, or two compared ones, saw it."""
        return self._optional("guest_gap")

    @property
    def events_gap(self) -> float | None:
        """From the source's STOP event to the destination's RESUME event; only QEMU has it."""
        value = self.data.get("events_gap")
        return None if value is None else float(value)

    @property
    def observer_gap(self) -> float | None:
        """The longest that an outsider went without an answer, where one asked."""
        value = self.data.get("observer_gap")
        return None if value is None else float(value)

    def _optional(self, name: str) -> float | None:
        value = self.data[name]
        return None if value is None else float(value)

    @property
    def verified(self) -> bool | None:
        """Whether the destination equalled the source page for page; `None` if not asked for."""
        verified: bool | None = self.data["verified"]
        return verified

    @property
    def sent_bytes(self) -> int:
        """Bytes put on the link, headers included."""
        return int(self.data["sent_bytes"])

    @property
    def sent_pages(self) -> int:
        """Pages put on the link, zero pages included."""
        return int(self.data["sent_pages"])

    @property
    def memory_bytes(self) -> int:
        """The guest's memory."""
        return int(self.data["memory_bytes"])

    @property
    def throughput(self) -> float:
        """`sent_bytes` over the time from the first page to the last."""
        return float(self.data["throughput"])

    @cached_property
    def rounds(self) -> NDArray[np.void]:
        """The rounds as a structured array, with the fields of [`Round`][switchover.round.Round].

        The last round of a completed run was sent in the blackout.
        """
        import numpy as np

        rows = [Round.from_dict(data) for data in self.data["rounds"]]
        kinds = {"int": "i8", "float": "f8", "bool": "?"}
        names = list(Round.__dataclass_fields__)
        dtype = [(name, kinds[str(Round.__dataclass_fields__[name].type)]) for name in names]
        return np.array([tuple(getattr(row, name) for name in names) for row in rows], dtype=dtype)

    @property
    def events(self) -> list[dict[str, Any]]:
        """What happened when, in order of time: decisions, what shadow policies would have done, the blackout."""
        events: list[dict[str, Any]] = self.data["events"]
        return events

    @property
    def guest_cost(self) -> dict[str, float | None]:
        """How the guest fared.

        Operations a second of its own counting `before`, `during` the live rounds and `after`, at the destination
        (`None` where it was not watched there: `cool_down` 0, or a run that did not complete); `slowdown`, which is
        1 - during / before; `write_rate`, bytes written a second before; `held_time`, the seconds for which a
        writer was held back by a throttle, a quota or a delay, as the mean of all.
        """
        cost: dict[str, float | None] = self.data["guest_cost"]
        return cost

    @property
    def page_map(self) -> dict[str, Any] | None:
        """Which part of memory was sent when; `None` where pages are not known one by one (QEMU's, and counted ones).

        `region_pages`, the pages of each of up to 64 equal regions of memory, and `rows` in order of time: rounds, or
        neighbouring ones together where there are more than 32, and in post-copy what followed execution. A row has
        `start`, `end`, and by region the pages sent for the `first` time and those sent `again`.
        """
        found: dict[str, Any] | None = self.data.get("page_map")
        return found

    @property
    def faults(self) -> dict[str, Any] | None:
        """Remote faults where execution moved ahead of memory, as the destination saw them; `None` elsewhere.

        Counts of pages: `asked_pages`, `pushed_pages` (never asked for: faults avoided, at most),
        `overtaken_pages` (asked for, and pushed before the answer), `sent_twice`, `filled_pages`. Distributions
        of seconds: `request`, `transfer`, `placement` and their `total`, each with `count`, `mean`, `least`,
        `p50`, `p90`, `p99`, `p999`, `most` and `buckets`.
        """
        faults: dict[str, Any] | None = self.data.get("faults")
        return faults

    def fault_histogram(self, part: str = "total", width: int = 40) -> str:
        """The latency of remote faults as bars, in QEMU's buckets of 2^N to 2^(N+1) us.

        Args:
            part: `request`, `transfer`, `placement` or `total`.
            width: Characters of the longest bar.
        """
        if self.faults is None:
            return "no remote faults: execution moved with the last of memory"
        if part not in ("request", "transfer", "placement", "total"):
            raise UsageError(f"part must be request, transfer, placement or total, not {part!r}")
        buckets = self.faults[part]["buckets"]
        most = max([1, *buckets])
        return "\n".join(
            f"{1 << n:>10} us {count:>8} {'#' * math.ceil(width * count / most)}" for n, count in enumerate(buckets)
        )

    @property
    def brownout(self) -> dict[str, float | None] | None:
        """What the guest lost while it ran: less than 95 % of its speed before the migration is a brownout.

        `time` is how long it lasted and `loss` the work lost in it, both in seconds: the loss is the integral of
        1 - performance. `at_source` and `at_destination` are its parts; the latter is `None` where the guest was not
        watched there. Measured by intervals of about 100 ms, which `progress` has. `None` where the speed before is
        not known.
        """
        brownout: dict[str, float | None] | None = self.data.get("brownout")
        return brownout

    @property
    def effective_downtime(self) -> float | None:
        """Brownout loss + blackout, in seconds: the number that compares strategies fairly.

        `None` for a run without a blackout, or where the speed before is not known.
        """
        value = self.data.get("effective_downtime")
        return None if value is None else float(value)

    @cached_property
    def progress(self) -> NDArray[np.void]:
        """The guest's progress, as a structured array; a row about every 100 ms.

        `time` in seconds since the start; `operations` finished by then; the `throttle` set then, in percent; and
        whether it ran `at_destination`.
        """
        import numpy as np

        dtype = [("time", "f8"), ("operations", "i8"), ("throttle", "f8"), ("at_destination", "?")]
        points = self.data.get("progress", [])
        rows = [(p["time"], p["operations"], p["throttle"], p["place"] == "destination") for p in points]
        return np.array(rows, dtype=dtype)

    @property
    def tracking(self) -> dict[str, Any]:
        """What tracking cost: the tracker's name, ns a first write, us to scan a GiB, seconds in all."""
        tracking: dict[str, Any] = self.data["tracking"]
        return tracking

    @property
    def coding(self) -> dict[str, Any] | None:
        """What the codec did and cost; `None` where pages went as they are.

        `encode_seconds` and `decode_seconds` of processor time, `cache_bytes` and `hit_rate` of earlier versions kept,
        and a row for each of the `rounds`: pages and bytes by kind, hits and misses, and the `choices` of an adaptive
        codec as pages by candidate.
        """
        coding: dict[str, Any] | None = self.data.get("coding")
        return coding

    def raise_for_outcome(self) -> None:
        """Raises what went wrong unless the run completed: the error itself, or one with the reason."""
        if self.outcome != "completed":
            raise self.error or SwitchoverError(f"the migration {self.outcome}: {self.reason}")

    def to_json(self) -> str:
        """As JSON text; `from_json` is its inverse."""
        return json.dumps(self.data, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Out of JSON text.

        Raises:
            UsageError: It is no report, or one of a later version.
        """
        try:
            data = json.loads(text)
        except ValueError as error:
            raise UsageError(f"this is no report: {error}") from error
        if not isinstance(data, dict):
            raise UsageError(f"this is no report: an object was expected, not {type(data).__name__}")
        try:
            return cls(_with_rounds(data))
        except (KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"this is no report: {error!r}") from error

    def to_html(self, path: str | PathLike[str], title: str = "A migration") -> None:
        """Writes the run as one HTML file with its charts, which opens without a network; see docs/report.md.

        Raises:
            UsageError: Plotly is not installed.
        """
        from switchover import html

        html.Document(title, [html.of_report(self, title)]).write(path)

    def to_frame(self) -> pd.DataFrame:
        """The rounds as a pandas data frame.

        Raises:
            UsageError: pandas is not installed.
        """
        from switchover import extra

        pandas: Any = extra.load("pandas", "frame")
        return pandas.DataFrame(self.rounds)

    def chart(self, width: int = 50) -> str:
        """The rounds as bars of text: what was sent, and what remained."""
        rows = [Round.from_dict(data) for data in self.data["rounds"]]
        most = max([1, *(max(row.sent_bytes, row.remaining_bytes) for row in rows)])
        lines = ["round   time       sent #       remaining ."]
        for row in rows:
            name = f"{row.index:5}" if row.live else f"{row.index:4}*"
            sizes = f"{units.format_size(row.sent_bytes):>10}  {units.format_size(row.remaining_bytes):>10}"
            sent, left = (math.ceil(width * size / most) for size in (row.sent_bytes, row.remaining_bytes))
            lines.append(f"{name}  {units.format_time(row.duration):>9}  {sizes}  {'#' * sent}{'.' * left}")
        return "\n".join([*lines, "* sent in the blackout"])

    def pace_chart(self, width: int = 48) -> str:
        """The guest's speed over time as bars of text, as shares of its speed before, and the throttle set.

        At most 40 lines: each is the mean of some intervals of about 100 ms. Empty where nothing is known.
        """
        rows = list(speeds(self.progress, self.guest_cost.get("before")))
        if not rows:
            return ""
        most = max(1.0, *(speed for _, speed, _, _ in rows))
        lines = ["    time  speed  throttle"]
        for time, speed, throttle, there in rows:
            bar = "#" * math.ceil(width * speed / most)
            mark = "*" if there else " "
            lines.append(f"{time:7.2f}s{mark} {speed:4.0%}  {throttle:5.0f} %  {bar}")
        return "\n".join([*lines, "* at the destination"])

    def figure(self) -> Any:
        """The run over time as a Plotly figure, which a notebook draws: rounds, decisions, blackout, rates, the guest.

        Raises:
            UsageError: Plotly is not installed.
        """
        from switchover.html import figure

        return figure.of_report(self)

    def plot(self, path: str | PathLike[str] | None = None) -> Any:
        """Shows the run over time: in a notebook as a figure, elsewhere as text on the terminal.

        Args:
            path: Write it as an image instead: `.svg`, `.png` or `.pdf`.

        Returns:
            The figure in a notebook, else nothing.

        Raises:
            UsageError: What draws images is not installed: `pip install 'switchover[image]'`, and Chrome or Chromium.
        """
        from rich.console import Console

        if path is not None:
            from switchover.html import figure

            return figure.write(self, path)
        if Console().is_jupyter:
            return self.figure()

        charts = [chart for chart in (self.chart(), self.pace_chart()) if chart]
        Console().print("\n\n".join(charts), markup=False, highlight=False)
        return None

    def summary(self) -> str:
        """The figures for people, a line each."""
        verified = {True: "yes", False: "NO", None: "not asked for"}[self.verified]
        lines = {
            "outcome": self.outcome + (f": {self.reason}" if self.reason else ""),
            "total time": units.format_time(self.total_time),
            "blackout": self._seen(),
            "sent": f"{units.format_size(self.sent_bytes)} of {units.format_size(self.memory_bytes)} memory"
            f" in {len(self.data['rounds'])} rounds at {units.format_rate(self.throughput)}",
            "brownout": self._costs(),
            "verified": verified,
        }
        if self.faults is not None:
            lines["faults"] = _fault_line(self.faults)
        if self.coding is not None:
            lines["encoded"] = coded(self.coding)
        return "\n".join(f"{name:<11} {text}" for name, text in lines.items())

    def _costs(self) -> str:
        if self.brownout is None:
            return "unknown: nothing is known of the guest's speed before"
        told = f"{units.format_time(self.brownout['loss'])} of work lost"
        if self.brownout["at_destination"] is None:
            told += ", the destination not observed"
        if self.effective_downtime is not None:
            told += f"; effective downtime {units.format_time(self.effective_downtime)}"
        return told

    def _seen(self) -> str:
        """The blackout and from where it was seen, other places behind it."""
        places = {name: self.data.get(name) for name in ("guest_gap", "events_gap", "sender_pause", "observer_gap")}
        whose = self.data.get("blackout_from") or "guest_gap"
        others = [
            f"{name} {units.format_time(gap)}" for name, gap in places.items() if gap is not None and name != whose
        ]
        text = "; ".join([whose, *others]).replace("_", " ")
        return f"{units.format_time(self.blackout)} ({text})"

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        return (
            f"<Report: {self.outcome} in {units.format_time(self.total_time)}, "
            f"blackout {units.format_time(self.blackout)}, {units.format_size(self.sent_bytes)} sent>"
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Report) and self.data == other.data

    __hash__ = None  # type: ignore[assignment]


def _fault_line(faults: dict[str, Any]) -> str:
    total = faults["total"]
    return (
        f"{faults['asked_pages']} pages asked for, {faults['pushed_pages']} pushed; latency median "
        f"{units.format_time(total['p50'])}, 99 % {units.format_time(total['p99'])}"
    )


def speeds(
    points: NDArray[np.void], before: float | None, most: int = 40
) -> Iterator[tuple[float, float, float, bool]]:
    """Time, share of the speed before, throttle and place of at most `most` intervals."""
    if not before or len(points) < 2:
        return
    step = math.ceil(len(points) / most)
    for there in (False, True):
        edges = [point for point in points if point["at_destination"] == there]
        edges = [*edges[:-1:step], *edges[-1:]]
        for one, other in itertools.pairwise(edges):
            seconds = float(other["time"] - one["time"])
            if seconds > 0:
                rate = float(other["operations"] - one["operations"]) / seconds
                yield float(one["time"]), rate / before, float(one["throttle"]), there


def coded(coding: dict[str, Any]) -> str:
    """What a codec did, for people: one line."""
    total = {name: sum(row[f"{name}_pages"] for row in coding["rounds"]) for name in ("zero", "encoded", "raw")}
    size = sum(row["encoded_bytes"] for row in coding["rounds"])
    each = f" at {size / total['encoded']:.0f} bytes a page" if total["encoded"] else ""
    parts = [
        f"{total['encoded']} pages{each}, {total['raw']} raw, {total['zero']} zero",
        f"{units.format_time(coding['encode_seconds'])} of processor time to encode",
    ]
    if coding["decode_seconds"] is not None:
        parts.append(f"{units.format_time(coding['decode_seconds'])} to decode")
    if coding["hit_rate"] is not None:
        parts.append(f"{coding['hit_rate']:.0%} of earlier versions at hand")
    chosen: dict[str, int] = {}
    for row in coding["rounds"]:
        for name, pages in row["choices"].items():
            chosen[name] = chosen.get(name, 0) + pages
    by_pages = sorted(chosen.items(), key=lambda item: -item[1])
    return "; ".join([*parts, *([", ".join(f"{name} {pages}" for name, pages in by_pages)] if by_pages else [])])


_NEEDED = ("outcome", "reason", "total_time", "blackout", "guest_gap", "sender_pause", "verified", "sent_bytes")
_ALSO = ("sent_pages", "memory_bytes", "throughput", "events", "guest_cost", "tracking")


def _with_rounds(data: dict[str, Any]) -> dict[str, Any]:
    """The same, if its parts are what they should be."""
    for name in (*_NEEDED, *_ALSO):
        data[name]
    for seen in data["rounds"]:
        Round.from_dict(seen)
    return data
