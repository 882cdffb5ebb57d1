"""The regression gate: is a later comparison worse than an earlier one?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from switchover import extra, units
from switchover.comparison import estimate
from switchover.comparison.metric import GATED, Metric, chosen
from switchover.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from switchover.comparison.estimate import Estimate
    from switchover.comparison.table import Row, Table

SURE = 0.05
"""How improbable fewer completed runs must be, were nothing the matter, to count."""


@dataclass(frozen=True)
class Finding:
    """One case and metric, before and after.

    Attributes:
        case: The case's names in a line.
        metric: Its name; `completed` for how many runs did.
        change: Head over base; `None` for `completed` and for a case that is missing.
        failed: Whether it fails the gate.
        text: For people.
    """

    case: str
    metric: str
    change: Estimate | None
    failed: bool
    text: str


@dataclass(frozen=True)
class Gate:
    """What the gate found.

    Attributes:
        findings: All cases and metrics.
        fail_over: The share by which a median may grow.
    """

    findings: tuple[Finding, ...]
    fail_over: float

    @property
    def failures(self) -> list[Finding]:
        """What fails it."""
        return [finding for finding in self.findings if finding.failed]

    @property
    def passed(self) -> bool:
        """Whether nothing does."""
        return not self.failures

    def __str__(self) -> str:
        verdict = f"{len(self.findings)} figures, {len(self.failures)} worse by more than {100 * self.fail_over:g} %"
        return "\n".join([*(finding.text for finding in self.failures), verdict])


def gate(base: Table, head: Table, fail_over: float | str = "5%", metrics: Sequence[str] = GATED) -> Gate:
    """Holds `head` against `base`, case by case. Cases are matched by their names, whatever the parts behind them do.

    A metric fails where the head's median is larger by more than `fail_over` and by more than the noise floor of
    either, and the interval of the ratio excludes that nothing changed. A case fails, too, that is missing, or of which
    so many fewer runs completed that chance does not explain it (Fisher's exact test, 5 %).

    Args:
        base: What was.
        head: What is.
        fail_over: A share, such as "5%".
        metrics: Which figures.

    Raises:
        UsageError: No case is in both.
    """
    limit = units.parse_number(fail_over, "fail_over")
    heads = {row.label: row for row in head.rows}
    if not any(row.label in heads for row in base.rows):
        raise UsageError("base and head have no case in common: were they made from the same suite?")
    found: list[Finding] = []
    for row in base.rows:
        if row.label not in heads:
            found.append(Finding(row.label, "completed", None, True, f"{row.label}: not in head"))
            continue
        found.append(_completion(row, heads[row.label]))
        floors = {name: max(table.noise(row.group, name) or 0.0 for table in (base, head)) for name in metrics}
        found += _changes(row, heads[row.label], limit, {metric: floors[metric.name] for metric in chosen(metrics)})
    return Gate(tuple(found), limit)


def _completion(before: Row, after: Row) -> Finding:
    stats = extra.load("scipy.stats", "compare")
    counts = [[row.completed, len(row.runs) - row.completed] for row in (before, after)]
    chance = float(stats.fisher_exact(counts, alternative="greater").pvalue)
    text = f"{before.label}: completed {counts[0][0]} of {len(before.runs)}, then {counts[1][0]} of {len(after.runs)}"
    return Finding(before.label, "completed", None, chance < SURE, text)


def _changes(before: Row, after: Row, limit: float, floors: Mapping[Metric, float]) -> Iterator[Finding]:
    for metric, floor in floors.items():
        change = estimate.ratio([r.value(metric) for r in after.runs], [r.value(metric) for r in before.runs])
        # An unbounded floor says that the same case completes or not by chance: completion is judged by itself.
        least = max(limit, floor if math.isfinite(floor) else 0.0)
        failed = change.median > 1 + least and change.low > 1
        was, then = before.estimates[metric.name].median, after.estimates[metric.name].median
        text = (
            f"{before.label}: {metric.title} {metric.show(was)} -> {metric.show(then)}, "
            f"{_percent(change.median)} ({_percent(change.low)} .. {_percent(change.high)})"
        )
        yield Finding(before.label, metric.name, change, failed, text)


def _percent(ratio: float) -> str:
    return "unbounded" if math.isinf(ratio) else f"{100 * (ratio - 1):+.1f} %"
