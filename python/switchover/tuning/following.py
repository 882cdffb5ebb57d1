"""Recommendations followed page by page, where the search has counted pages.

Counting is near the truth, and the best of many candidates is where it errs in their favour: a limit on the blackout
that is just within reach by count may never be reached.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from switchover.tuning.goal import judged
from switchover.tuning.result import Candidate, Tuning

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST = 32
"""Candidates that are followed at most."""


def settled(found: Tuning) -> Tuning:
    """The same, with candidates followed until the one that is recommended is one of them."""
    judge, known = found.evaluator.following(), list[Candidate]()
    for _ in range(MOST):
        best = found.recommended
        if any(best is one for one in known):
            return found
        known.append(_followed(found, best, judge.run([best.plan])[0]))
        # Settings that come to the same are tried more than once.
        candidates = [known[-1] if one.values == best.values else one for one in found.candidates]
        found = found.over(candidates)
    found.is_followed = False
    return found


def _followed(found: Tuning, one: Candidate, verdicts: NDArray[Any]) -> Candidate:
    worst = found.evaluator.worst(found.space.plan.link)
    scores, met = judged(found.objectives, found.constraints, verdicts, worst)
    return Candidate.of(found.space, one.values, scores, met, found.constraints)
