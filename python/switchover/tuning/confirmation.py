"""The recommended point run for real, beside what was predicted of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from switchover import units
from switchover.comparison.bench import compare
from switchover.comparison.metric import GATED, METRICS
from switchover.guest import Guest

if TYPE_CHECKING:
    from switchover.comparison.table import Row, Table
    from switchover.costs import Costs
    from switchover.trace import Trace
    from switchover.tuning.space import Plan

PAGE = 4096


@dataclass(frozen=True)
class Confirmation:
    """Prediction and measurement.

    Attributes:
        table: Both, as a comparison: the world `sim` and the world `memory`.
        guest: What was migrated: the guest that the trace was made of, or one that replays it.
    """

    table: Table
    guest: str

    @property
    def predicted(self) -> Row:
        """By the simulator."""
        return next(row for row in self.table.rows if row.names["world"] == "sim")

    @property
    def measured(self) -> Row:
        """In memory."""
        return next(row for row in self.table.rows if row.names["world"] == "memory")

    def rows(self) -> list[tuple[str, str, str]]:
        """Metric, prediction and measurement, as texts."""
        found = []
        for metric in (METRICS[name] for name in GATED):
            both = [row.estimates[metric.name] for row in (self.predicted, self.measured)]
            texts = [f"{metric.show(e.median)} ({metric.show(e.low)} .. {metric.show(e.high)})" for e in both]
            found.append((metric.title, *texts))
        return found  # type: ignore[return-value]

    def __str__(self) -> str:
        done = f"{self.measured.completed} of {len(self.measured.runs)} completed"
        lines = [f"{name}: predicted {told}, measured {seen}" for name, told, seen in self.rows()]
        return "\n".join([f"confirmed on {self.guest}: {done}", *lines])


class Replay:
    """A workload that writes what a trace says, when it says it; at its end it begins again.

    A page is written once in each interval in which the trace has it, at the interval's beginning.
    """

    def __init__(self, trace: Trace) -> None:
        firsts = dict(zip(trace.blocks, np.cumsum([0, *trace.blocks.values()]), strict=False))
        rows, bases = trace.rows, np.array(list(firsts.values()))
        starts = bases[rows["block"]] + rows["first_page"].astype(np.int64)
        self._edges = np.searchsorted(rows["interval"], np.arange(trace.intervals + 1))
        self._runs = list(zip(starts.tolist(), rows["pages"].tolist(), strict=True))
        self._interval, self._intervals, self._next = trace.interval, trace.intervals, 0

    def __call__(self, memory: Any, seconds: float) -> int:
        """Writes the intervals that have begun; at most one a call, so that a pause need not wait long."""
        if self._next * self._interval > seconds:
            return 0
        number = self._next % self._intervals
        pages = memory.reshape(-1, PAGE)
        written = 0
        for first, count in self._runs[self._edges[number] : self._edges[number + 1]]:
            pages[first : first + count, 0] += 1
            written += count
        self._next += 1
        return written * PAGE


def replayed(trace: Trace) -> Guest:
    """A guest of the trace's size that writes as it says."""
    return Guest(trace.memory_bytes, Replay(trace))


def confirm(
    plan: Plan, trace: Trace, repeats: int, guest: Any, *, warm_up: units.Time, zero_share: float, costs: Costs
) -> Confirmation:
    """Migrates and simulates the plan, in turns."""
    name, given = _guest(trace) if guest is None else ("your guest", guest)
    table = compare(
        {name: given},
        {"recommended": plan.strategy},
        {"link": plan.link},
        policies={"recommended": plan.policy},
        repeats=repeats,
        warm_up=warm_up,
        zero_share=zero_share,
        costs=costs,
    )
    return Confirmation(table, name)


def _guest(trace: Trace) -> tuple[str, Any]:
    """What the trace was generated from, if it was; else what replays it."""
    spec = json.loads(trace.metadata.get("guest", "{}"))
    if not spec or trace.metadata.get("edits", "").count("scale"):
        return "a replay of the trace", lambda: replayed(trace)
    size = sum(block["bytes"] for block in spec["layout"]["blocks"])
    made = {"memory": size, "workload": spec["workloads"], "seed": spec["seed"]}
    return "the guest that the trace is of", {**made, **({"fill": spec["fill"]} if "fill" in spec else {})}
