"""What a migration cost its guest, by the guest's own count of what it did.

The guest tells it on the line of its heartbeat: `p`, digits in base 16, and the line's end, some ten times a second or
more. What it counts is its own affair; ours counts pages that it wrote.
"""

from __future__ import annotations

import bisect
import json
from typing import TYPE_CHECKING, Any, TypeAlias

from switchover import _native
from switchover.qemu.figures import PAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

Progress: TypeAlias = "list[tuple[float, int]]"
# Seconds between two points that a report keeps.
STEP = 0.1


def fill(data: dict[str, Any], source: Progress, destination: Progress, began: float) -> None:
    """Adds to a report what the guest did: progress, its cost, brownout, effective downtime.

    Args:
        data: The report's data.
        source: What the guest said at the source: when on the monotonic clock, and how much so far.
        destination: The same at the destination.
        began: When the migration began.
    """
    live = [each for each in source if each[0] >= began]
    before, during = rate([each for each in source if each[0] < began]), rate(live)
    throttles = _throttles(data["qemu"]["timeline"])
    points = [
        {"time": at - began, "operations": count, "throttle": throttles(at - began), "place": place}
        for place, said in (("source", live), ("destination", destination))
        for at, count in thinned(said)
    ]
    found = json.loads(_native.cost(json.dumps(points), before, data["blackout"]))
    data["guest_cost"] = {
        "before": before,
        "during": during,
        "after": found["after"],
        "slowdown": 1 - during / before if before and during is not None else None,
        "write_rate": None if before is None else before * PAGE,
    }
    data.update(progress=points, brownout=found["brownout"], effective_downtime=found["effective_downtime"])


def rate(progress: Progress) -> float | None:
    """Operations a second between the first and the last of what was said."""
    if len(progress) < 2:
        return None
    (first, count), (last, more) = progress[0], progress[-1]
    return (more - count) / (last - first) if last > first else None


def thinned(progress: Progress) -> Iterator[tuple[float, int]]:
    """About ten of them a second, the first and the last among them."""
    due = -1.0
    for each in progress:
        if each[0] >= due or each is progress[-1]:
            due = each[0] + STEP
            yield each


def _throttles(timeline: list[dict[str, Any]]) -> Any:
    """What tells the throttle at a time, out of what QEMU said of it."""
    times = [row["time"] for row in timeline]
    percents = [float(row["qemu"].get("cpu-throttle-percentage", 0)) for row in timeline]

    def at(time: float) -> float:
        index = bisect.bisect_right(times, time)
        return percents[index - 1] if index else 0.0

    return at
