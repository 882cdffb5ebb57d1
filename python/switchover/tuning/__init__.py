"""Tuning: which settings of strategy, policy and link serve the guests whose traces there are."""

from switchover.tuning.evaluation import Evaluator
from switchover.tuning.goal import Constraint, Objective
from switchover.tuning.result import Candidate, Evidence, Tuning
from switchover.tuning.space import Choice, Plan, Range, Space
from switchover.tuning.study import tune

__all__ = [
    "Candidate",
    "Choice",
    "Constraint",
    "Evaluator",
    "Evidence",
    "Objective",
    "Plan",
    "Range",
    "Space",
    "Tuning",
    "tune",
]
