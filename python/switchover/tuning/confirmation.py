"""The recommended point run for real, beside what was predicted of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from switchover.comparison.bench import compare
from switchover.comparison.metric import GATED, METRICS
from switchover.guest import Guest

if TYPE_CHECKING:
    from switchover.comparison.table import Row, Table
    from switchover.trace import Trace
    from switchover.tuning.space import Plan

PAGE = 4096

PARTS = 32
"""Of an interval: a guest that does its work in fewer pieces seems to falter from one look at it to the next."""


@dataclass(frozen=True)
class Confirmation:
    """Prediction and measurement.

    Attributes:
        table: Both, as a comparison: the world `sim` and a real one.
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
        """For real."""
        return next(row for row in self.table.rows if row.names["world"] != "sim")

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

    A page is written once in each interval in which the trace has it, and an interval's pages are spread over it in
    `PARTS`, as the simulator spreads them. Intervals count as the same work whatever they write, so that a phase of few
    writes does not look like a guest that is held back.
    """

    def __init__(self, trace: Trace) -> None:
        firsts = dict(zip(trace.blocks, np.cumsum([0, *trace.blocks.values()]), strict=False))
        rows, bases = trace.rows, np.array(list(firsts.values()))
        starts = bases[rows["block"]] + rows["first_page"].astype(np.int64)
        self._edges = np.searchsorted(rows["interval"], np.arange(trace.intervals + 1))
        self._runs = np.stack([starts, rows["pages"].astype(np.int64)], axis=1)
        self._part, self._parts, self._next = trace.interval / PARTS, trace.intervals * PARTS, 0
        self._work = max(1, int(rows["pages"].sum()) * PAGE // self._parts)
        self._pages = np.zeros(0, dtype=np.int64)

    def __call__(self, memory: Any, seconds: float) -> int:
        """Writes a part that has begun; at most one a call, so that a pause need not wait long."""
        if self._next * self._part > seconds:
            return 0
        number, part = divmod(self._next % self._parts, PARTS)
        if part == 0:
            runs = self._runs[self._edges[number] : self._edges[number + 1]]
            self._pages = np.concatenate(
                [np.arange(first, first + count) for first, count in runs] or [self._pages[:0]]
            )
        memory.reshape(-1, PAGE)[self._pages[part::PARTS], 0] += 1
        self._next += 1
        return self._work


def replayed(trace: Trace) -> Guest:
    """A guest of the trace's size that writes as it says."""
    return Guest(trace.memory_bytes, Replay(trace))


def confirm(plan: Plan, trace: Trace, repeats: int, guest: Any, world: str, **options: Any) -> Confirmation:
    """Migrates and simulates the plan, in turns; `options` are those of `compare`."""
    name, given = _guest(trace) if guest is None else ("your guest", guest)
    table = compare(
        {name: given},
        {"recommended": plan.strategy},
        {"link": plan.link},
        policies={"recommended": plan.policy},
        worlds=("sim", world),
        repeats=repeats,
        **options,
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
