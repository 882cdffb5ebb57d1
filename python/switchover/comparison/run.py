"""One run of a case, as it is kept."""

from __future__ import annotations

import math
import os
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from switchover import _native
from switchover.comparison.metric import METRICS
from switchover.errors import UsageError
from switchover.report import Report

if TYPE_CHECKING:
    from switchover.comparison.case import Case
    from switchover.comparison.metric import Metric

SCHEMA = 1
"""The version of the records that are written; older ones are read."""

ARMS = ("case", "again")
"""A case is run as itself; some once more, as `again`: two arms of one case differ by noise alone."""


@dataclass(frozen=True)
class Run:
    """A run: of which case and arm, the how manieth, and its report.

    Attributes:
        data: As JSON has it.
    """

    data: dict[str, Any]

    def __post_init__(self) -> None:
        schema = self.data.get("schema")
        if not isinstance(schema, int) or not 1 <= schema <= SCHEMA:
            raise UsageError(f"a run of schema {schema!r} cannot be read; this version reads 1 to {SCHEMA}")

    @classmethod
    def of(cls, case: Case, arm: str, repeat: int, began: str, report: Report) -> Run:
        """The record of a run that is over."""
        return cls(
            {
                "schema": SCHEMA,
                "version": _native.VERSION,
                "machine": machine(),
                "case": case.key,
                "names": dict(case.names),
                "spec": case.spec,
                "arm": arm,
                "repeat": repeat,
                "began": began,
                "metrics": {name: metric.of(report.data) for name, metric in METRICS.items()},
                "report": report.data,
            }
        )

    @property
    def case(self) -> str:
        """The key of its case."""
        return str(self.data["case"])

    @property
    def arm(self) -> str:
        """`case` or `again`."""
        return str(self.data["arm"])

    @property
    def repeat(self) -> int:
        """Which repeat of the case, from 0."""
        return int(self.data["repeat"])

    @property
    def id(self) -> str:
        """Names the run in a folder."""
        return run_id(self.case, self.arm, self.repeat)

    @property
    def names(self) -> dict[str, str]:
        """Of guest, strategy, policy, link and world."""
        names: dict[str, str] = self.data["names"]
        return names

    @property
    def report(self) -> Report:
        """What it left behind."""
        return Report(self.data["report"])

    @property
    def completed(self) -> bool:
        """Whether the guest moved."""
        return bool(self.data["report"]["outcome"] == "completed")

    def value(self, metric: Metric) -> float:
        """Its figure: infinite where it did not complete, not a number where it is not known."""
        if not self.completed:
            return math.inf
        value = self.data["metrics"].get(metric.name)
        return math.nan if value is None else float(value)


def run_id(case: str, arm: str, repeat: int) -> str:
    """The name of a run, and of its file.

    >>> run_id("0123456789ab", "case", 3)
    '0123456789ab-case-003'
    """
    return f"{case}-{arm}-{repeat:03}"


def machine() -> dict[str, Any]:
    """Where runs were made."""
    return {"node": platform.node(), "kernel": platform.release(), "arch": platform.machine(), "cpus": os.cpu_count()}
