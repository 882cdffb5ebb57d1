"""What a run leaves behind: the same report in every world."""

from __future__ import annotations

import json
import math
from functools import cached_property
from typing import TYPE_CHECKING, Any

from switchover import units
from switchover.errors import SwitchoverError, UsageError
from switchover.round import Round

if TYPE_CHECKING:
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
        """How the guest fared: operations a second `before`, `during` and `after`, `slowdown`, `write_rate`."""
        cost: dict[str, float | None] = self.data["guest_cost"]
        return cost

    @property
    def tracking(self) -> dict[str, Any]:
        """What tracking cost: the tracker's name, ns a first write, us to scan a GiB, seconds in all."""
        tracking: dict[str, Any] = self.data["tracking"]
        return tracking

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

    def to_frame(self) -> pd.DataFrame:
        """The rounds as a pandas data frame.

        Raises:
            UsageError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise UsageError("to_frame() needs pandas: pip install 'switchover[frame]'") from error
        return pd.DataFrame(self.rounds)

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

    def plot(self) -> None:
        """Shows the chart on the terminal."""
        from rich.console import Console

        Console().print(self.chart(), markup=False, highlight=False)

    def summary(self) -> str:
        """The figures for people, a line each."""
        verified = {True: "yes", False: "NO", None: "not asked for"}[self.verified]
        lines = {
            "outcome": self.outcome + (f": {self.reason}" if self.reason else ""),
            "total time": units.format_time(self.total_time),
            "blackout": self._seen(),
            "sent": f"{units.format_size(self.sent_bytes)} of {units.format_size(self.memory_bytes)} memory"
            f" in {len(self.data['rounds'])} rounds at {units.format_rate(self.throughput)}",
            "verified": verified,
        }
        return "\n".join(f"{name:<11} {text}" for name, text in lines.items())

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


_NEEDED = ("outcome", "reason", "total_time", "blackout", "guest_gap", "sender_pause", "verified", "sent_bytes")
_ALSO = ("sent_pages", "memory_bytes", "throughput", "events", "guest_cost", "tracking")


def _with_rounds(data: dict[str, Any]) -> dict[str, Any]:
    """The same, if its parts are what they should be."""
    for name in (*_NEEDED, *_ALSO):
        data[name]
    for seen in data["rounds"]:
        Round.from_dict(seen)
    return data
