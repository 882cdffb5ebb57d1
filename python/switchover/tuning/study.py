"""The search: Optuna proposes, the batch simulator judges."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from switchover import extra, policies, strategies, units
from switchover.costs import Costs
from switchover.errors import UsageError
from switchover.link import Link
from switchover.trace import Trace
from switchover.tuning import following, polishing
from switchover.tuning.evaluation import Evaluator
from switchover.tuning.goal import Constraint, Objective, judged
from switchover.tuning.result import Candidate, Tuning
from switchover.tuning.space import Plan, Space

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Executor
    from os import PathLike
    from pathlib import Path

    from switchover.tuning.space import Axis


BATCH = 32
"""Candidates that are proposed at once, and judged in one call."""

MOST_TPE = 500
"""Candidates up to which TPE, whose proposals cost more the more there are, is worth its time."""

BROKEN = 1e3
"""What a promise that is never kept weighs in polishing, beside objectives in extents of the front."""

SAMPLERS = ("auto", "tpe", "nsga2", "gp", "cma", "random")


def tune(
    trace: Trace | Sequence[Trace] | Mapping[str, Trace],
    space: Mapping[str, object],
    objectives: str | Sequence[str] = ("effective_downtime",),
    constraints: str | Sequence[str] = (),
    link: Link | str = "1Gbit/s",
    *,
    strategy: strategies.Strategy | str = "pre-copy",
    policy: policies.Policy | str = "downtime-limit",
    trials: int = 200,
    starts: int = 20,
    test: Sequence[str] | None = None,
    sampler: str = "auto",
    seed: int = 0,
    study: str | PathLike[str] | None = None,
    executor: Executor | None = None,
    costs: Costs | str | Path | None = None,
    zero_share: float = 0.0,
    longest: units.Time = "10min",
    sample: int = 1,
    fast: bool = True,
    on_batch: Callable[[int, int], object] | None = None,
) -> Tuning:
    """Searches for the settings that serve the guest best, whenever its migration begins.

    Each candidate is simulated from many moments of every trace. Some traces are held out, and tell how well what was
    found on the others serves guests that were not looked at; of a single trace the second half is held out.

    Args:
        trace: One trace, several, or a dict by name.
        space: What is searched, by name: `policy.KNOB`, `strategy.KNOB`, `link.bandwidth`, or `policy` and `strategy`
            themselves; see [`Space`][switchover.tuning.space.Space].
        objectives: What is to be small: `effective_downtime`, `blackout`, `total_time`, `sent_bytes`, `brownout_loss`,
            `slowdown`; the mean, or `blackout:p99`.
        constraints: Promises such as "blackout <= 300ms in 99 %", "completed".
        link: The link.
        strategy: How memory moves, where it is not searched.
        policy: When to switch over, where it is not searched: one of `switchover.policies`.
        trials: Candidates. One in eight, up to 24, goes near the best so far, where ranges are searched (SciPy).
        starts: Moments of each trace.
        test: Names of traces that are held out; by default every third.
        sampler: `tpe`, `nsga2`, `gp`, `cma`, `random`; `auto` is TPE for one objective and up to 500 candidates, else
            NSGA-II. `gp` needs PyTorch and `cma` the package cmaes, as Optuna says.
        seed: Of the search.
        study: A journal file: a study that was ended, or killed, goes on where it was.
        executor: Any `concurrent.futures.Executor`; by default all cores of this process.
        costs: What a migration costs beside sending, or the path of a file of `switchover calibrate`.
        zero_share: Share of the pages that are zero until written.
        longest: Simulated time after which a run is failed.
        sample: Follow one page in so many.
        fast: Count pages where that does, instead of following them (`docs/simulator.md` says how near that is). What
            is recommended is followed page by page all the same, and so are its rivals until one of them stands.
        on_batch: Called with how many candidates are done, and how many there are.

    Examples:
        >>> import switchover as sw
        >>> trace = sw.Trace.generate("64MiB", sw.workloads.HotCold(rate="60MB/s"), duration="8s")
        >>> found = sw.tune(trace, {"policy.limit": "20ms..2s:log"}, link="500Mbit/s", trials=20, starts=4)
        >>> bool(found.recommended.plan.policy.limit < 0.3)
        True

    Raises:
        UsageError: An argument is wrong, or Optuna is not installed.
    """
    plan = Plan(strategies.registry.of(strategy), _policy(policy), Link.of(link))
    goals = [Objective.parse(text) for text in ([objectives] if isinstance(objectives, str) else objectives)]
    promises = [Constraint.parse(text) for text in ([constraints] if isinstance(constraints, str) else constraints)]
    if not goals:
        raise UsageError("at least one objective is needed")
    options = {"costs": Costs.of(costs), "zero_share": zero_share, "longest": units.parse_time(longest, "longest")}
    train, held = split(traces_of(trace), test)
    starts = max(1, units.parse_count(starts, "starts"))
    searched = Space(space, plan)
    search = _Search(searched, goals, promises, Evaluator(train, starts, executor, options, sample=sample, fast=fast))
    search.run(max(1, units.parse_count(trials, "trials")), sampler, seed, study, on_batch)
    checker = Evaluator(held, starts, executor, options, sample=sample, fast=fast) if held else None
    found = Tuning(searched, goals, promises, search.candidates(), evaluator=search.evaluator, checker=checker)
    return following.settled(found) if fast else found


def _policy(given: policies.Policy | str) -> policies.Policy:
    if callable(given) and not isinstance(given, policies.Policy | type):
        raise UsageError("a policy in Python cannot be tuned: the batch simulator runs those of switchover.policies")
    return policies.registry.of(given)


def traces_of(given: Trace | Sequence[Trace] | Mapping[str, Trace]) -> dict[str, Trace]:
    """Traces by name."""
    if isinstance(given, Trace):
        return {"trace": given}
    found = dict(given) if hasattr(given, "keys") else {f"trace {n}": one for n, one in enumerate(given, 1)}
    if not found:
        raise UsageError("at least one trace is needed")
    return found


def split(traces: Mapping[str, Trace], test: Sequence[str] | None) -> tuple[dict[str, Trace], dict[str, Trace]]:
    """Traces to tune on, and traces to test on; of a single one its halves."""
    if test is not None:
        wrong = [name for name in test if name not in traces]
        if wrong or len(test) >= len(traces):
            raise UsageError(f"test names some of the traces, and not all: {', '.join(traces)}; not {list(test)!r}")
        held = set(test)
    elif len(traces) == 1:
        ((name, trace),) = traces.items()
        if trace.intervals < 2:
            return dict(traces), {}
        half = trace.intervals // 2 * trace.interval
        return {f"{name}, first half": trace.cut(0, half)}, {f"{name}, second half": trace.cut(half)}
    else:
        held = set(list(traces)[1::3])
    return {n: t for n, t in traces.items() if n not in held}, {n: t for n, t in traces.items() if n in held}


class _Search:
    """A study under way."""

    def __init__(
        self, space: Space, goals: Sequence[Objective], promises: Sequence[Constraint], evaluator: Evaluator
    ) -> None:
        self.space, self.goals, self.promises, self.evaluator = space, goals, promises, evaluator
        self._optuna = extra.load("optuna", "tune")
        self._study: Any = None
        self._worst = evaluator.worst(space.plan.link)

    def run(
        self,
        trials: int,
        sampler: str,
        seed: int,
        path: str | PathLike[str] | None,
        on_batch: Callable[[int, int], object] | None,
    ) -> None:
        """Proposes and judges until there are so many candidates."""
        self._optuna.logging.set_verbosity(self._optuna.logging.WARNING)
        self._study = self._open(path, seed)
        if sampler == "auto":
            sampler = "tpe" if len(self.goals) == 1 and trials <= MOST_TPE else "nsga2"
        self._study.sampler = self._sampler(sampler, seed + self._done())
        start = self.space.start()
        if not self._study.trials and start is not None:
            self._study.enqueue_trial(start)
        axes = [axis for axis in self.space.axes if axis.is_continuous]
        last = polishing.budget(trials, len(axes))
        self._search(trials - last, trials, on_batch)
        if self._done() < trials:
            self._polish(axes, trials - self._done())
            if on_batch is not None:
                on_batch(self._done(), trials)
        # Polishing may have come to its end before its budget did.
        self._search(trials, trials, on_batch)

    def _search(self, until: int, trials: int, on_batch: Callable[[int, int], object] | None) -> None:
        while (done := self._done()) < until:
            self._batch(min(BATCH, until - done))
            if on_batch is not None:
                on_batch(self._done(), trials)

    def _polish(self, axes: Sequence[Axis], evaluations: int) -> None:
        """Moves the best candidate along the continuous axes, toward the best in all objectives alike."""
        found = Tuning(self.space, self.goals, self.promises, self.candidates(), evaluator=self.evaluator, checker=None)
        best, front = found.recommended, np.array([one.scores for one in found.front])
        extent = np.maximum(np.ptp(front, axis=0), np.maximum(np.abs(front[0]) * 1e-3, 1e-9))

        def judge(point: Sequence[float]) -> float:
            moved = {axis.name: axis.at(share) for axis, share in zip(axes, point, strict=True)}
            self._study.enqueue_trial({**best.values, **moved})
            ((scores, met),) = self._batch(1)
            short = sum(max(0.0, promise.share - share) for promise, share in zip(self.promises, met, strict=True))
            return float(np.sum((np.array(scores) - front.min(axis=0)) / extent)) + BROKEN * short

        polishing.polish(judge, [axis.share(best.values[axis.name]) for axis in axes], evaluations)

    def _open(self, path: str | PathLike[str] | None, seed: int) -> Any:
        optuna, storage = self._optuna, None
        if path is not None:
            storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
        study = optuna.create_study(
            directions=["minimize"] * len(self.goals),
            storage=storage,
            study_name=f"switchover {self.key(seed)}",
            load_if_exists=True,
        )
        # What was being judged when the last session was killed has no value, and never will.
        for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        return study

    def key(self, seed: int) -> str:
        """Tells studies apart: the same for the same question."""
        question = {
            "axes": [axis.__dict__ for axis in self.space.axes],
            "plan": str(self.space.plan),
            "goals": [str(goal) for goal in self.goals],
            "promises": [str(promise) for promise in self.promises],
            "evaluator": self.evaluator.spec(),
            "seed": seed,
        }
        return hashlib.sha256(json.dumps(question, sort_keys=True, default=repr).encode()).hexdigest()[:12]

    def _done(self) -> int:
        complete = (self._optuna.trial.TrialState.COMPLETE,)
        return len(self._study.get_trials(deepcopy=False, states=complete))

    def _sampler(self, name: str, seed: int) -> Any:
        samplers = self._optuna.samplers
        if name not in SAMPLERS:
            raise UsageError(f"sampler must be one of {', '.join(SAMPLERS)}, not {name!r}")
        made = {
            "tpe": lambda: samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=2 * BATCH),
            "nsga2": lambda: samplers.NSGAIISampler(seed=seed, population_size=BATCH),
            "gp": lambda: samplers.GPSampler(seed=seed),
            "cma": lambda: samplers.CmaEsSampler(seed=seed),
            "random": lambda: samplers.RandomSampler(seed=seed),
        }
        return made[name]()

    def _batch(self, size: int) -> list[tuple[list[float], list[float]]]:
        """Judges so many candidates; their objectives, and the share in which each keeps each promise."""
        asked = [self._study.ask() for _ in range(size)]
        drawn = [{axis.name: axis.suggest(trial) for axis in self.space.axes} for trial in asked]
        values = [self.space.settled(point) for point in drawn]
        verdicts, worst = self.evaluator.run([self.space.make(one) for one in values]), self._worst
        found = [judged(self.goals, self.promises, row, worst) for row in verdicts]
        for trial, (scores, met) in zip(asked, found, strict=True):
            for promise, share in zip(self.promises, met, strict=True):
                trial.set_constraint(str(promise), promise.share - share)
            trial.set_user_attr("met", met)
            self._study.tell(trial, scores)
        return found

    def candidates(self) -> list[Candidate]:
        """What was tried, in the order of proposing."""
        complete = self._study.get_trials(deepcopy=False, states=(self._optuna.trial.TrialState.COMPLETE,))
        return [
            Candidate.of(
                self.space, self.space.settled(trial.params), trial.values, trial.user_attrs["met"], self.promises
            )
            for trial in complete
        ]
