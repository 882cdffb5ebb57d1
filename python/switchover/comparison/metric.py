"""What runs are compared by. Less is better in each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from switchover import units
from switchover.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@dataclass(frozen=True)
class Metric:
    """A figure of a run.

    Attributes:
        name: Its name in tables and files.
        title: For people.
        unit: `s`, `B`, or empty for a share.
        doc: What it is.
        of: How it is found in a report's data; `None` where the report does not know.
    """

    name: str
    title: str
    unit: str
    doc: str
    of: Callable[[dict[str, Any]], float | None]

    def show(self, value: float) -> str:
        """A value for people.

        >>> METRICS["blackout"].show(0.25), METRICS["slowdown"].show(0.1), METRICS["blackout"].show(math.inf)
        ('250 ms', '10 %', 'never')
        """
        if math.isnan(value):
            return "-"
        if math.isinf(value):
            return "never"
        if self.unit == "s":
            return units.format_time(value) if value >= 0 else f"-{units.format_time(-value)}"
        return units.format_size(round(value)) if self.unit == "B" else f"{100 * value:.3g} %"


def _brownout(data: dict[str, Any]) -> float | None:
    brownout = data.get("brownout")
    return None if brownout is None else brownout["loss"]


def _encoding(data: dict[str, Any]) -> float | None:
    coding = data.get("coding")
    return 0.0 if coding is None else coding["encode_seconds"]


_ALL = (
    Metric(
        "effective_downtime",
        "effective downtime",
        "s",
        "Blackout and the work that the guest lost while it ran slower: the number that compares strategies fairly.",
        lambda data: data.get("effective_downtime"),
    ),
    Metric(
        "blackout",
        "blackout",
        "s",
        "The time in which the guest ran nowhere: last instruction at the source to first at the destination.",
        lambda data: data["blackout"],
    ),
    Metric(
        "total_time",
        "total time",
        "s",
        "From the start until the source may be freed.",
        lambda data: data["total_time"],
    ),
    Metric("sent_bytes", "sent", "B", "Bytes put on the link, headers included.", lambda data: data["sent_bytes"]),
    Metric(
        "brownout_loss",
        "brownout loss",
        "s",
        "Work lost while the guest ran slower, throttled or waiting for its pages: the integral of lost performance.",
        _brownout,
    ),
    Metric(
        "slowdown",
        "slowdown",
        "",
        "Share of its speed that the guest lost while it was copied.",
        lambda data: data["guest_cost"].get("slowdown"),
    ),
    Metric("encode_time", "encoding", "s", "Processor time that the codec took at the source.", _encoding),
)

METRICS = {metric.name: metric for metric in _ALL}
"""All metrics by name."""

GATED = ("effective_downtime", "blackout", "total_time", "sent_bytes")
"""Those that a table shows, and a regression gate looks at, unless told otherwise."""


def chosen(names: Iterable[str]) -> list[Metric]:
    """The metrics of these names.

    Raises:
        UsageError: There is no such metric.
    """
    wrong = [name for name in names if name not in METRICS]
    if wrong:
        raise UsageError(f"no metric is called {wrong[0]!r}; there are: {', '.join(METRICS)}")
    return [METRICS[name] for name in names]
