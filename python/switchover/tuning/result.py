"""What a tuning came to: the front, the recommendation, and how far it can be trusted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from switchover import pareto
from switchover.comparison import estimate
from switchover.comparison.estimate import LEAST_RUNS, Estimate
from switchover.tuning import sensitivity, settings
from switchover.tuning.goal import figures

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from os import PathLike

    from numpy.typing import NDArray

    from switchover.tuning.confirmation import Confirmation
    from switchover.tuning.evaluation import Evaluator
    from switchover.tuning.goal import Constraint, Objective
    from switchover.tuning.space import Plan, Space


@dataclass(frozen=True)
class Candidate:
    """What was tried.

    Attributes:
        values: By name of what is searched, in SI units.
        plan: Strategy, policy and link with them.
        scores: The objectives on the traces that were tuned on.
        met: In which share of start times each constraint is kept.
        feasible: Whether all are.
    """

    values: dict[str, Any]
    plan: Plan
    scores: tuple[float, ...]
    met: tuple[float, ...]
    feasible: bool

    @classmethod
    def of(
        cls,
        space: Space,
        values: dict[str, Any],
        scores: Sequence[float],
        met: Sequence[float],
        promises: Sequence[Constraint],
    ) -> Candidate:
        """Of `values` that are settled."""
        feasible = all(share >= promise.share for share, promise in zip(met, promises, strict=True))
        return cls(values, space.make(values), tuple(scores), tuple(met), feasible)


@dataclass(frozen=True)
class Evidence:
    """One objective of the recommended point, on traces tuned on and on those held out.

    Attributes:
        objective: Which.
        tuned: Its value on the traces tuned on.
        held_out: And on the others; `None` where none were held out.
        gain: Its ratio to the value of the plan that was started from, on the traces tuned on: below 1 is better.
        held_out_gain: And on the others.
    """

    objective: Objective
    tuned: Estimate
    held_out: Estimate | None
    gain: Estimate
    held_out_gain: Estimate | None


class Tuning:
    """The outcome of `tune`.

    Attributes:
        candidates: All that was tried.
        objectives: What was to be small.
        constraints: What was promised.
        evaluator: Judges on the traces tuned on.
        is_followed: Whether the recommendation was followed page by page, and not counted alone.
    """

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        candidates: Sequence[Candidate],
        *,
        evaluator: Evaluator,
        checker: Evaluator | None,
    ) -> None:
        self.space, self.objectives, self.constraints = space, list(objectives), list(constraints)
        self.candidates = list(candidates)
        self.evaluator, self._checker = evaluator, checker
        self.is_followed = True

    def over(self, candidates: Sequence[Candidate]) -> Tuning:
        """The same, of other candidates."""
        return Tuning(
            self.space, self.objectives, self.constraints, candidates, evaluator=self.evaluator, checker=self._checker
        )

    @cached_property
    def front(self) -> list[Candidate]:
        """Candidates that keep all promises and that none beats in every objective, best in the first one first.

        Where none keeps all promises, those that come nearest.
        """
        able = [one for one in self.candidates if one.feasible] or self._nearest()
        kept = [one for one, best in zip(able, pareto.front([one.scores for one in able]), strict=True) if best]
        # Settings that come to the same are one point: the first that was tried stands for them.
        unlike = {one.scores: one for one in reversed(kept)}
        return sorted(unlike.values(), key=lambda one: one.scores)

    def _nearest(self) -> list[Candidate]:
        def short(one: Candidate) -> float:
            return sum(max(0.0, c.share - met) for c, met in zip(self.constraints, one.met, strict=True))

        least = min(map(short, self.candidates))
        return [one for one in self.candidates if short(one) <= least]

    @cached_property
    def recommended(self) -> Candidate:
        """The point of the front that is nearest to the best of every objective, each scaled to the front's extent."""
        scores = np.array([one.scores for one in self.front])
        extent = np.ptp(scores, axis=0)
        scaled = (scores - scores.min(axis=0)) / np.where(extent > 0, extent, 1.0)
        return self.front[int(np.argmin(np.linalg.norm(scaled, axis=1)))]

    @cached_property
    def _checked(self) -> list[dict[str, list[NDArray[Any]]]]:
        """For the traces tuned on, and those held out: figures of the recommended and of the first plan, by metric."""
        plans = [self.recommended.plan, self.space.plan]
        places = [self.evaluator, *([] if self._checker is None else [self._checker])]
        found = []
        for place in (place.following() for place in places):
            worst = place.worst(self.space.plan.link)
            both = [figures(row) for row in place.run(plans)]
            found.append({name: [np.minimum(one[name], worst[name]) for one in both] for name in worst})
        return found

    @cached_property
    def evidence(self) -> list[Evidence]:
        """Each objective's value and gain, with intervals of 95 % over traces and start times."""
        found = []
        for goal in self.objectives:
            pairs = [place[goal.metric] for place in self._checked]
            values = [estimate.of(pair[0], goal.of) for pair in pairs]
            gains = [estimate.paired_ratio(pair[0], pair[1], goal.of) for pair in pairs]
            held = (values[1], gains[1]) if len(pairs) > 1 else (None, None)
            found.append(Evidence(goal, values[0], held[0], gains[0], held[1]))
        return found

    @cached_property
    def warnings(self) -> list[str]:
        """Why the recommendation may not be what it seems: broken promises, overfitting, too little data."""
        found = []
        if not self.recommended.feasible:
            found.append("no candidate keeps all constraints; this one comes nearest")
        if not self.is_followed:
            found.append("what is recommended was counted, not followed page by page: candidates near it did not stand")
        if self._checker is None:
            found.append("nothing was held out: how well this serves other guests is not known")
        found += [
            f"overfitting: {one.objective} is {_times(one.gain)} the first plan's on the traces tuned on, and "
            f"{_times(one.held_out_gain)} on those held out; add traces or search less"
            for one in self.evidence
            if one.held_out_gain is not None and _overfitted(one.gain, one.held_out_gain)
        ]
        broken = [f"{promise} (kept in {100 * met:.3g} %)" for promise, met in self.held_out_met if met < promise.share]
        return [*found, *(f"on traces held out this is not kept: {text}" for text in broken)]

    @cached_property
    def held_out_met(self) -> list[tuple[Constraint, float]]:
        """In which share of start times of traces held out the recommended point keeps each constraint."""
        if self._checker is None or not self.constraints:
            return []
        found = figures(self._checker.following().run([self.recommended.plan])[0])
        return [(promise, promise.met(found)) for promise in self.constraints]

    def regret(self) -> dict[str, float]:
        """For each trace held out: the recommended point's first objective over that of the clairvoyant's choice.

        The clairvoyant picks, for each trace, the best of all candidates that were tried.
        """
        if self._checker is None:
            return {}
        goal, plans = self.objectives[0], [self.recommended.plan, *(one.plan for one in self.candidates)]
        verdicts, worst = self._checker.run(plans), self._checker.worst(self.space.plan.link)
        found = {}
        for column, name in enumerate(self._checker.traces):
            part = verdicts[:, column * self._checker.starts : (column + 1) * self._checker.starts]
            scores = [goal.value(figures(row), worst) for row in part]
            found[name] = scores[0] / min(scores) if min(scores) > 0 else 1.0 if scores[0] == 0 else float("inf")
        return found

    def sensitivity(self, method: str = "sobol", samples: int = 64) -> list[sensitivity.Effect]:
        """How much each knob matters to the first objective, over the whole space (SALib).

        Args:
            method: `sobol` (shares of the variance) or `morris` (mean absolute effects; cheaper).
            samples: `sobol` judges samples x (knobs + 2) candidates, `morris` samples x (knobs + 1).
        """
        return sensitivity.effects(self.space, self.objectives[0], self.evaluator, method=method, samples=samples)

    def settings(self) -> dict[str, str]:
        """The recommended point as texts to paste, by where they go."""
        return settings.texts(self.recommended.plan)

    def confirm(
        self,
        repeats: int = 5,
        guest: Any = None,
        warm_up: str | float = "1s",
        *,
        world: str = "memory",
        qemu: str | None = None,
    ) -> Confirmation:
        """Runs the recommended point for real so often, and puts prediction and measurement side by side.

        Args:
            repeats: Five or more.
            guest: As `compare` takes it; by default what the first trace held out was made of, or what replays it.
            warm_up: How long each guest runs before it is migrated.
            world: `memory`, or `qemu` for guests that run in a VM of ours; what replays a trace does not.
            qemu: Which QEMU, by path.
        """
        from switchover.tuning.confirmation import confirm

        traces = (self._checker or self.evaluator).traces
        trace, modelled = next(iter(traces.values())), self.evaluator
        return confirm(
            self.recommended.plan,
            trace,
            repeats,
            guest,
            world,
            warm_up=warm_up,
            zero_share=modelled.zero_share,
            costs=modelled.costs,
            qemu=qemu,
        )

    def to_html(self, path: str | PathLike[str], title: str = "A tuning", samples: int = 64) -> None:
        """Writes one HTML file with front, recommendation, sensitivities and settings; see docs/report.md."""
        from switchover.html.outcome import of_tuning

        of_tuning(self, title, samples).write(path)

    def to_json(self) -> str:
        """As JSON."""
        one = self.recommended
        return json.dumps(
            {
                "objectives": [str(goal) for goal in self.objectives],
                "constraints": [str(promise) for promise in self.constraints],
                "recommended": {**_plain(one), "plan": _specs(one.plan)},
                "front": [_plain(other) for other in self.front],
                "evidence": [_evidence(found) for found in self.evidence],
                "warnings": self.warnings,
                "settings": self.settings(),
                "candidates": len(self.candidates),
            },
            indent=2,
        )

    @property
    def zero_share(self) -> float:
        """Share of the pages that were taken to be zero until written."""
        return self.evaluator.zero_share

    def suite(self, traces: Mapping[str, str]) -> str:
        """A suite for `switchover compare`, in TOML: what is recommended beside what was begun with, in the simulator.

        Args:
            traces: Files of traces by name, as the suite's folder sees them.
        """
        from switchover.tuning.suite import text

        return text(self, traces)

    def __str__(self) -> str:
        one = self.recommended
        lines = [f"recommended of {len(self.candidates)} candidates: {one.plan}"]
        for found in self.evidence:
            held = "" if found.held_out is None else f"; held out {_told(found.held_out, found.objective.show)}"
            tuned, gain = _told(found.tuned, found.objective.show), found.held_out_gain or found.gain
            lines.append(f"{found.objective}: {tuned}{held}; {_times(gain)} the first plan's")
        lines += [f"kept: {c} (in {100 * m:.3g} %)" for c, m in zip(self.constraints, one.met, strict=True)]
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])

    def __repr__(self) -> str:
        return f"<Tuning of {len(self.candidates)} candidates, {len(self.front)} on the front>"


def _overfitted(gain: Estimate, held_out: Estimate) -> bool:
    """Better than the first plan where it was tuned, and surely less so, or not at all, elsewhere."""
    return gain.high < 1 and (gain.below(held_out) or held_out.median >= 1)


def _times(ratio: Estimate) -> str:
    return f"{_told(ratio, '{:.2f}'.format)} times"


def _told(found: Estimate, show: Callable[[float], str]) -> str:
    if found.runs < LEAST_RUNS:
        return f"{show(found.median)} (too few starts for an interval)"
    return f"{show(found.median)} ({show(found.low)} .. {show(found.high)})"


def _plain(one: Candidate) -> dict[str, Any]:
    return {"values": one.values, "scores": list(one.scores), "met": list(one.met), "feasible": one.feasible}


def _specs(plan: Plan) -> dict[str, Any]:
    return {"strategy": plan.strategy.spec(), "policy": plan.policy.spec(), "link": plan.link.spec()}


def _evidence(found: Evidence) -> dict[str, Any]:
    names = ("tuned", "held_out", "gain", "held_out_gain")
    parts = {name: getattr(found, name) for name in names}
    told = {
        name: None if one is None else {"value": one.median, "low": one.low, "high": one.high}
        for name, one in parts.items()
    }
    return {"objective": str(found.objective), **told}
