"""What is wanted of a candidate, over all the moments at which a migration might begin."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from switchover import units
from switchover.comparison.metric import METRICS
from switchover.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

SIMULATED = ("effective_downtime", "blackout", "total_time", "sent_bytes", "brownout_loss", "slowdown")
"""What many simulations at once tell of a run."""

LEAST = 1e-6
"""What a geometric mean takes zero for: a microsecond, a byte."""

_PARSERS: dict[str, Callable[[Any, str], float]] = {
    "s": units.parse_time,
    "B": units.parse_size,
    "": units.parse_number,
}
_CONSTRAINT = re.compile(r"\s*(\w+)\s*<=\s*(\S+(?:\s\S+)??)\s*(?:in\s+([\d.]+)\s*%.*)?")
_COMPLETED = re.compile(r"\s*completed\s*(?:in\s+([\d.]+)\s*%.*)?")


def figures(verdicts: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """The metrics of simulated runs by name; infinite where a run did not complete.

    The loss in a brownout is the slowdown's share of the time in which the guest ran.
    """
    done = verdicts["outcome"] == "completed"
    blackout, total = verdicts["blackout"], verdicts["total_time"]
    loss = verdicts["slowdown"] * np.maximum(total - blackout, 0.0)
    found = {
        "effective_downtime": blackout + loss,
        "blackout": blackout,
        "total_time": total,
        "sent_bytes": verdicts["sent_bytes"].astype(float),
        "brownout_loss": loss,
        "slowdown": verdicts["slowdown"],
    }
    return {name: np.where(done, values, np.inf) for name, values in found.items()}


@dataclass(frozen=True)
class Objective:
    """A figure to be made small, over runs: the mean; `NAME:pN` is a percentile, `NAME:geomean` the geometric mean.

    A run that does not complete counts as the worst there is, so that means stay finite: the longest simulated time,
    all the bytes that a link carries in it, a guest that stands still. In a geometric mean a share more or less counts
    the same for all: of guests of very different sizes the largest do not decide alone.
    """

    metric: str
    over: str = "mean"

    @classmethod
    def parse(cls, text: str) -> Objective:
        """Out of a text.

        >>> Objective.parse("blackout:p99")
        Objective(metric='blackout', over='p99')
        """
        name, _, over = text.partition(":")
        if name not in SIMULATED:
            why = ": the simulator does not count the encoders' time" if name == "encode_time" else ""
            raise UsageError(f"{name!r} cannot be an objective{why}; there are: {', '.join(SIMULATED)}")
        match = re.fullmatch(r"p(\d+(?:\.\d+)?)|mean|geomean|", over)
        if match is None or float(match[1] or 0) > 100:
            raise UsageError(f"an objective is NAME, NAME:mean, NAME:geomean or NAME:p0 to NAME:p100, not {text!r}")
        return cls(name, over or "mean")

    def value(self, found: dict[str, NDArray[Any]], worst: dict[str, float]) -> float:
        """Over these runs."""
        return float(self.of(np.minimum(found[self.metric], worst[self.metric])))

    def of(self, values: NDArray[Any], axis: int = -1) -> NDArray[Any]:
        """The mean or percentile of values."""
        if self.over == "mean":
            return np.asarray(np.mean(values, axis=axis))
        if self.over == "geomean":
            return np.asarray(np.exp(np.mean(np.log(np.maximum(values, LEAST)), axis=axis)))
        return np.asarray(np.percentile(values, float(self.over[1:]), axis=axis))

    def show(self, value: float) -> str:
        """A value for people."""
        return METRICS[self.metric].show(value)

    def __str__(self) -> str:
        words = {"mean": "", "geomean": ", geometric mean"}
        return METRICS[self.metric].title + words.get(self.over, f", {self.over[1:]}th percentile")


@dataclass(frozen=True)
class Constraint:
    """A promise: a figure is at most so much, or the run completes, in so large a share of start times."""

    metric: str
    limit: float
    share: float

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """Out of a text.

        >>> Constraint.parse("blackout <= 300ms in 99 % of start times")
        Constraint(metric='blackout', limit=0.3, share=0.99)
        >>> Constraint.parse("completed")
        Constraint(metric='completed', limit=1.0, share=1.0)
        """
        if match := _COMPLETED.fullmatch(text):
            return cls("completed", 1.0, _share(match[1], text))
        match = _CONSTRAINT.fullmatch(text)
        if match is None or match[1] not in SIMULATED:
            raise UsageError(
                f'a constraint is "METRIC <= LIMIT [in N %]" or "completed [in N %]", not {text!r}; '
                f"metrics are {', '.join(SIMULATED)}"
            )
        limit = _PARSERS[METRICS[match[1]].unit](match[2], f"the limit of {match[1]}")
        return cls(match[1], limit, _share(match[3], text))

    def met(self, found: dict[str, NDArray[Any]]) -> float:
        """In which share of runs it is kept."""
        if self.metric == "completed":
            return float(np.isfinite(found["total_time"]).mean())
        return float((found[self.metric] <= self.limit).mean())

    def __str__(self) -> str:
        share = f"in {100 * self.share:g} % of start times"
        if self.metric == "completed":
            return f"completed {share}"
        metric = METRICS[self.metric]
        return f"{metric.title} <= {metric.show(self.limit)} {share}"


def _share(text: str | None, whole: str) -> float:
    try:
        share = 1.0 if text is None else float(text) / 100
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise UsageError(f"a share is above 0 % and at most 100 %, in {whole!r}")
    return share


def judged(
    goals: Sequence[Objective], promises: Sequence[Constraint], verdicts: NDArray[Any], worst: dict[str, float]
) -> tuple[list[float], list[float]]:
    """Of the runs of one candidate: its objectives, and the share in which it keeps each promise."""
    found = figures(verdicts)
    return [goal.value(found, worst) for goal in goals], [promise.met(found) for promise in promises]
