"""Which knobs matter: SALib's designs over the whole space, judged by the simulator."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from switchover import extra
from switchover.errors import UsageError
from switchover.tuning.goal import figures

if TYPE_CHECKING:
    from switchover.tuning.evaluation import Evaluator
    from switchover.tuning.goal import Objective
    from switchover.tuning.space import Space

METHODS = ("sobol", "morris")


@dataclass(frozen=True)
class Effect:
    """What a knob does to an objective.

    Attributes:
        name: The knob's.
        method: `sobol` or `morris`.
        alone: Sobol: share of the variance by it alone. Morris: the mean effect, with its sign.
        total: Sobol: with all its interplay. Morris: the mean absolute effect, in the objective's unit.
        error: Half the interval of 95 % of `total`.
    """

    name: str
    method: str
    alone: float
    total: float
    error: float


def effects(
    space: Space, goal: Objective, evaluator: Evaluator, *, method: str, samples: int, seed: int = 1
) -> list[Effect]:
    """The effects of all knobs, the greatest first. Choices are taken in the order in which they were given."""
    if method not in METHODS:
        raise UsageError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    names = [axis.name for axis in space.axes]
    problem = {"num_vars": len(names), "names": names, "bounds": [[0.0, 1.0]] * len(names)}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # SALib warns of its own dependencies' ways, and of designs that are no power of two.
        warnings.simplefilter("ignore")
        points = _design(problem, method, samples, seed)
        found = _analysed(problem, method, points, _scores(space, goal, evaluator, points), seed)
    return sorted(found, key=lambda effect: -effect.total)


def _design(problem: dict[str, Any], method: str, samples: int, seed: int) -> Any:
    if method == "morris":
        return extra.load("SALib.sample.morris", "tune").sample(problem, samples, seed=seed)
    sobol = extra.load("SALib.sample.sobol", "tune")
    return sobol.sample(problem, samples, calc_second_order=False, seed=seed)


def _scores(space: Space, goal: Objective, evaluator: Evaluator, points: Any) -> Any:
    plans = [space.make({axis.name: axis.at(x) for axis, x in zip(space.axes, row, strict=True)}) for row in points]
    worst = evaluator.worst(space.plan.link)
    return np.array([goal.value(figures(row), worst) for row in evaluator.run(plans)])


def _analysed(problem: dict[str, Any], method: str, points: Any, scores: Any, seed: int) -> list[Effect]:
    names = problem["names"]
    if np.ptp(scores) == 0:
        return [Effect(name, method, 0.0, 0.0, 0.0) for name in names]
    if method == "morris":
        told = extra.load("SALib.analyze.morris", "tune").analyze(problem, points, scores, seed=seed)
        columns = (told["mu"], told["mu_star"], told["mu_star_conf"])
    else:
        told = extra.load("SALib.analyze.sobol", "tune").analyze(problem, scores, calc_second_order=False, seed=seed)
        columns = (told["S1"], told["ST"], told["ST_conf"])
    rows = zip(names, *(np.nan_to_num(np.asarray(column, dtype=float)) for column in columns), strict=True)
    return [Effect(name, method, float(alone), float(total), float(error)) for name, alone, total, error in rows]
