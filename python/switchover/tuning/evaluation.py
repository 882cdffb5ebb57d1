"""Candidates judged: each by simulations from many moments of every trace, here or on an executor's workers."""

from __future__ import annotations

import hashlib
import io
import json
from concurrent.futures import as_completed
from typing import TYPE_CHECKING, Any

import numpy as np

from switchover import codecs, strategies
from switchover.costs import Costs
from switchover.link import Link
from switchover.simulation import VERDICT, simulate_many
from switchover.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from concurrent.futures import Executor, Future

    from numpy.typing import NDArray

    from switchover.strategies import Strategy
    from switchover.tuning.space import Plan

GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it, modulo 1, lie evenly in a trace however many there are."""

CHUNK = 16
"""Candidates in a task."""


class Evaluator:
    """Simulates plans on traces.

    Args:
        traces: What guests write, by name.
        starts: Moments of each trace at which a migration begins.
        executor: Any `concurrent.futures.Executor`; by default all cores of this process. A trace is sent to a worker
            that says it lacks it, and stays there.
        options: Of `simulate_many`: `costs`, `zero_share`, `longest`.
        sample: Follow one page in so many.
        fast: Count pages where that does, instead of following them.
    """

    def __init__(
        self,
        traces: Mapping[str, Trace],
        starts: int,
        executor: Executor | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        sample: int = 1,
        fast: bool = False,
    ) -> None:
        self.traces, self.starts = dict(traces), starts
        self._executor, self._options, self._sample, self._fast = executor, dict(options or {}), sample, fast
        self._packed: dict[str, bytes] = {}

    @property
    def zero_share(self) -> float:
        """Share of the pages that are zero until written."""
        return float(self._options.get("zero_share", 0.0))

    @property
    def costs(self) -> Costs:
        """What a migration costs beside sending."""
        return Costs.of(self._options.get("costs"))

    def run(self, plans: Sequence[Plan]) -> NDArray[Any]:
        """Verdicts: a row for each plan, a column for each trace and start."""
        found = np.zeros((len(plans), len(self.traces) * self.starts), dtype=VERDICT)
        for first, column, verdicts in self._chunks(plans):
            rows = verdicts.reshape(-1, self.starts)
            found[first : first + len(rows), column * self.starts : (column + 1) * self.starts] = rows
        return found

    def worst(self, link: Link) -> dict[str, float]:
        """What a run counts as that does not complete: as long as a run may take, and all that the link carries."""
        longest = float(self._options.get("longest", 600.0))
        carried = longest * float(link.bandwidth or 0.0)
        times = dict.fromkeys(("effective_downtime", "blackout", "total_time", "brownout_loss"), longest)
        return {**times, "sent_bytes": carried, "slowdown": 1.0}

    def spec(self) -> dict[str, Any]:
        """What its verdicts depend on, beside the plans."""
        traces = {name: self._key(name) for name in self.traces}
        return {
            "traces": traces,
            "starts": self.starts,
            "options": repr(self._options),
            "sample": self._sample,
            "fast": self._fast,
        }

    def _chunks(self, plans: Sequence[Plan]) -> Iterable[tuple[int, int, NDArray[Any]]]:
        places = [(name, column) for column, name in enumerate(self.traces)]
        if self._executor is None:
            for name, column in places:
                trace = self.traces[name]
                yield 0, column, _simulated(trace, self._runs(plans, trace))
            return
        tasks = {}
        for name, column in places:
            for first in range(0, len(plans), CHUNK):
                runs = self._runs(plans[first : first + CHUNK], self.traces[name])
                tasks[self._send(name, None, runs)] = (name, first, column, runs)
        yield from self._gathered(tasks)

    def _gathered(self, tasks: dict[Future[Any], tuple[str, int, int, str]]) -> Iterable[tuple[int, int, NDArray[Any]]]:
        again = {}
        for task in as_completed(tasks):
            name, first, column, runs = tasks[task]
            verdicts = task.result()
            if verdicts is None:
                again[self._send(name, self._pack(name), runs)] = (name, first, column, runs)
            else:
                yield first, column, np.array(verdicts, dtype=VERDICT)
        if again:
            yield from self._gathered(again)

    def _send(self, name: str, trace: bytes | None, runs: str) -> Future[Any]:
        assert self._executor is not None  # noqa: S101  for the type checker
        return self._executor.submit(judge, self._key(name), trace, runs)

    def _pack(self, name: str) -> bytes:
        if name not in self._packed:
            sink = io.BytesIO()
            self.traces[name].save(sink)  # type: ignore[arg-type]
            self._packed[name] = sink.getvalue()
        return self._packed[name]

    def _key(self, name: str) -> str:
        return hashlib.sha256(self._pack(name)).hexdigest()

    def _runs(self, plans: Sequence[Plan], trace: Trace) -> str:
        """As JSON: the same on every machine."""
        options = {**self._options, "costs": self.costs.spec()}
        moments = [number * GOLDEN % 1.0 * trace.duration for number in range(self.starts)]
        return json.dumps(
            {
                "options": options,
                "how": {"sample": self._sample, "fast": self._fast},
                "starts": moments,
                "plans": [[*_moves(p.strategy), p.policy.spec(), p.link.spec()] for p in plans],
            }
        )


_held: dict[str, Trace] = {}
"""Traces that this worker was sent, by digest."""


def judge(key: str, packed: bytes | None, runs: str) -> list[tuple[Any, ...]] | None:
    """A worker's part: the verdicts, or `None` if the trace of this digest must be sent along."""
    if key not in _held:
        if packed is None:
            return None
        _held[key] = Trace.load(io.BytesIO(packed))  # type: ignore[arg-type]
    rows: list[tuple[Any, ...]] = _simulated(_held[key], runs).tolist()
    return rows


def _simulated(trace: Trace, runs: str) -> NDArray[Any]:
    given = json.loads(runs)
    options = {**given["options"], "costs": Costs(**given["options"]["costs"])}
    trials = [
        {"strategy": _strategy(strategy, codec), "policy": policy, "link": _link(link), "start": start, **options}
        for strategy, codec, policy, link in given["plans"]
        for start in given["starts"]
    ]
    return simulate_many(trace, trials, **given["how"])


def _moves(strategy: Strategy) -> tuple[dict[str, Any], dict[str, Any]]:
    return strategy.spec(), strategy.codec.spec()


def _strategy(spec: dict[str, Any], codec: dict[str, Any]) -> Strategy:
    return strategies.registry.of(spec).replace(codec=codecs.registry.of(codec))


def _link(spec: dict[str, Any]) -> Link:
    outages = [(outage["at"], outage["duration"]) for outage in spec["outages"]]
    return Link(**{**spec, "outages": outages})
