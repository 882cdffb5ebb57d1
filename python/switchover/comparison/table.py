"""What a comparison came to: a row for each case, with medians, intervals, and ranks where there are any."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from switchover.comparison import estimate
from switchover.comparison.estimate import Estimate
from switchover.comparison.folder import Folder
from switchover.comparison.metric import GATED, METRICS, Metric, chosen

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from os import PathLike

    import pandas as pd

    from switchover.comparison.gate import Gate
    from switchover.comparison.run import Run
    from switchover.report import Report

GROUP = ("guest", "link", "world")
"""What cases must share to be ranked against each other."""


@dataclass(frozen=True)
class Row:
    """A case and what its runs came to.

    Attributes:
        case: Its key.
        names: Of guest, strategy, policy, link and world.
        runs: Its runs, in the order of their repeats.
        estimates: Medians with intervals, by metric.
    """

    case: str
    names: dict[str, str]
    runs: tuple[Run, ...]
    estimates: dict[str, Estimate]

    @property
    def group(self) -> tuple[str, ...]:
        """Guest, link and world."""
        return tuple(self.names[name] for name in GROUP)

    @property
    def completed(self) -> int:
        """How many of its runs did."""
        return sum(run.completed for run in self.runs)

    @property
    def label(self) -> str:
        """All names in a line."""
        return ", ".join(self.names.values())

    @property
    def report(self) -> Report:
        """That of the run whose effective downtime, or total time, is nearest to the median: the typical one."""
        metric = METRICS["effective_downtime"]
        if math.isnan(self.estimates[metric.name].median):
            metric = METRICS["total_time"]
        middle = self.estimates[metric.name].median
        return min(self.runs, key=lambda run: _distance(run.value(metric), middle)).report


def _distance(one: float, other: float) -> float:
    away = 0.0 if one == other else abs(one - other)
    return math.inf if math.isnan(away) else away


class Table:
    """A comparison's results. Cases are ranked within a guest, link and world, never across.

    Args:
        runs: As `compare` made them, or a folder has them.
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        self.runs = list(runs)

    @classmethod
    def load(cls, folder: str | PathLike[str]) -> Table:
        """The table of all that a folder has.

        Raises:
            UsageError: It has no results, or a file there is damaged.
        """
        return cls(sorted(Folder(folder).runs(), key=lambda run: list(run.names.values())))

    @cached_property
    def rows(self) -> list[Row]:
        """A row for each case, in the order of the runs."""
        return [self._row(key, "case") for key in dict.fromkeys(run.case for run in self.runs if run.arm == "case")]

    def _row(self, key: str, arm: str) -> Row:
        runs = sorted((run for run in self.runs if (run.case, run.arm) == (key, arm)), key=lambda run: run.repeat)
        estimates = {m.name: estimate.median([run.value(m) for run in runs]) for m in METRICS.values()}
        names = runs[0].names if runs else {}
        return Row(key, names, tuple(runs), estimates)

    @cached_property
    def groups(self) -> dict[tuple[str, ...], list[Row]]:
        """Rows by guest, link and world."""
        found: dict[tuple[str, ...], list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.group, []).append(row)
        return found

    def noise(self, group: tuple[str, ...], metric: str) -> float | None:
        """The noise floor: as what share of itself one and the same case may differ when it is run twice.

        The farther end of the interval of the ratio of two arms of one case, less 1; `None` where it was not run
        twice, or where nothing is known of this metric.
        """
        (what,) = chosen([metric])
        keys = {row.case for row in self.groups.get(group, [])}
        arms: dict[str, list[float]] = {}
        for run in self.runs:
            if run.arm == "again" and run.case in keys:
                arms.setdefault(run.case, []).append(run.value(what))
        found = [estimate.ratio(self._values(key, what), values) for key, values in arms.items()]
        ends = [max(abs(r.low - 1), abs(r.high - 1)) for r in found if not math.isnan(r.median)]
        return max(ends, default=None)

    def _values(self, key: str, metric: Metric) -> list[float]:
        return [run.value(metric) for run in self.runs if (run.case, run.arm) == (key, "case")]

    def surely_less(self, one: Row, other: Row, metric: str) -> bool:
        """Whether intervals do not overlap and the medians are farther apart than the noise floor."""
        a, b = one.estimates[metric], other.estimates[metric]
        floor = self._floors.get((one.group, metric))
        if floor is None:
            floor = self._floors[one.group, metric] = self.noise(one.group, metric) or 0.0
        return one.group == other.group and a.below(b) and (math.isinf(b.median) or b.median > a.median * (1 + floor))

    @cached_property
    def _floors(self) -> dict[tuple[tuple[str, ...], str], float]:
        return {}

    def rank(self, row: Row, metric: str) -> tuple[int, bool]:
        """One more than the cases of its group that are surely better, and whether it shares that with others.

        Two cases of which neither is surely better share a rank, so that ranks say no more than is known.
        """
        others = [other for other in self.groups[row.group] if other is not row]
        better = sum(self.surely_less(other, row, metric) for other in others)
        tied = any(not self.surely_less(o, row, metric) and not self.surely_less(row, o, metric) for o in others)
        return 1 + better, tied

    def best(self, metric: str = "effective_downtime") -> list[Row]:
        """Of each group the cases than which none is surely better."""
        chosen([metric])
        return [row for row in self.rows if self.rank(row, metric)[0] == 1]

    def against(self, base: Table, fail_over: float | str = "5%", metrics: Sequence[str] = GATED) -> Gate:
        """Whether this is worse than `base`; see `switchover.comparison.gate`."""
        from switchover.comparison.gate import gate

        return gate(base, self, fail_over, metrics)

    def to_html(self, path: str | PathLike[str], title: str = "A comparison", metrics: Sequence[str] = GATED) -> None:
        """Writes one HTML file with tables, Pareto plots and the charts of each case's typical run; see docs/report.md.

        Raises:
            UsageError: Plotly is not installed.
        """
        from switchover import html

        html.of_table(self, title, metrics).write(path)

    def to_frame(self) -> pd.DataFrame:
        """A row for each case: names, runs, completed, and of each metric median, `_low` and `_high`.

        Raises:
            UsageError: pandas is not installed.
        """
        from switchover import extra

        pandas: Any = extra.load("pandas", "frame")
        return pandas.DataFrame([_flat(row) for row in self.rows])

    def to_json(self) -> str:
        """As JSON: rows with medians, intervals and ranks. An infinity, or what is not known, is null."""
        rows = [
            {
                "case": row.case,
                **row.names,
                "runs": len(row.runs),
                "completed": row.completed,
                "metrics": {name: self._figure(row, name) for name in METRICS},
            }
            for row in self.rows
        ]
        noise = [
            {**dict(zip(GROUP, group, strict=True)), **{name: _finite(self.noise(group, name)) for name in METRICS}}
            for group in self.groups
        ]
        return json.dumps({"rows": rows, "noise": noise}, indent=2)

    def _figure(self, row: Row, metric: str) -> dict[str, Any]:
        found, (rank, tied) = row.estimates[metric], self.rank(row, metric)
        ends = {name: _finite(getattr(found, name)) for name in ("median", "low", "high")}
        return {**ends, "rank": rank, "tied": tied}

    def cells(
        self, metrics: Sequence[str] = GATED, rows: Sequence[Row] | None = None
    ) -> tuple[list[str], list[list[str]]]:
        """Heads and rows of a table for people, of all rows or some. Names that are the same in all are left out."""
        known, shown = chosen(metrics), self.rows if rows is None else rows
        keys = [key for key in (shown[0].names if shown else {}) if len({row.names[key] for row in shown}) > 1]
        keys = keys or ["strategy", "policy"]
        head = [*keys, "completed", *(metric.title for metric in known)]
        return head, [
            [
                *(row.names[key] for key in keys),
                f"{row.completed}/{len(row.runs)}",
                *(self._cell(row, metric) for metric in known),
            ]
            for row in shown
        ]

    def _cell(self, row: Row, metric: Metric) -> str:
        found, (rank, tied) = row.estimates[metric.name], self.rank(row, metric.name)
        if math.isnan(found.median):
            return "-"
        unsure = found.runs < estimate.LEAST_RUNS
        ends = f"{found.runs} runs" if unsure else f"{metric.show(found.low)} .. {metric.show(found.high)}"
        alone = len(self.groups[row.group]) < 2
        place = "" if alone else f"  {'=' if tied else ''}{rank}"
        return f"{metric.show(found.median)} ({ends}){place}"

    def remarks(self, metrics: Sequence[str] = GATED) -> list[str]:
        """What the table has no room for: names that all rows share, noise floors, how to read ranks."""
        names = self.rows[0].names if self.rows else {}
        same = [f"{key} {names[key]}" for key in names if len({row.names[key] for row in self.rows}) == 1]
        lines = [f"all: {', '.join(same)}"] if same else []
        for group in self.groups:
            floors = {metric.title: self.noise(group, metric.name) for metric in chosen(metrics)}
            told = [f"{title} {_share(floor)}" for title, floor in floors.items() if floor is not None]
            lines.append(f"noise floor, {', '.join(group)}: {', '.join(told) or 'not measured'}")
        return [*lines, "median (95 % interval) rank; = shared: neither is surely better"]

    def __str__(self) -> str:
        head, rows = self.cells()
        widths = [max(len(line[column]) for line in [head, *rows]) for column in range(len(head))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in (head, *rows)
        ]
        return "\n".join([*(line.rstrip() for line in lines), *self.remarks()])

    def __repr__(self) -> str:
        return f"<Table of {len(self.rows)} cases, {len(self.runs)} runs>"


def _flat(row: Row) -> dict[str, Any]:
    flat: dict[str, Any] = {"case": row.case, **row.names, "runs": len(row.runs), "completed": row.completed}
    for name, found in row.estimates.items():
        flat |= {name: found.median, f"{name}_low": found.low, f"{name}_high": found.high}
    return flat


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _share(value: float) -> str:
    return "unbounded" if math.isinf(value) else f"{100 * value:.2g} %"
