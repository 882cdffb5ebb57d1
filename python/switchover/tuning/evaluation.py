"""Candidates judged: each by simulations from many moments of every trace, here or on an executor's workers."""

from __future__ import annotations

import copy
import functools
import hashlib
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from switchover import codecs, strategies
from switchover.costs import Costs
from switchover.link import Link
from switchover.simulation import VERDICT, simulate_many
from switchover.trace import Trace
from switchover.tuning.crew import Crew, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from concurrent.futures import Executor

    from numpy.typing import NDArray

    from switchover.strategies import Strategy
    from switchover.tuning.space import Plan

GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it, modulo 1, lie evenly in a trace however many there are."""

FOLLOWED = 1 << 17
"""Pages of a guest that are followed at most, where pages are counted otherwise."""

CHUNK = 16
"""Candidates in a task."""


class Evaluator:
    """Simulates plans on traces.

    Args:
        traces: What guests write, by name.
        starts: Moments of each trace at which a migration begins.
        executor: Any `concurrent.futures.Executor`; by default all cores of this process. A trace is sent to a worker
            that says it lacks it, and stays there: about once for each worker (`carried` counts).
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
        self._options, self._sample, self._fast = dict(options or {}), sample, fast
        parcels = {name: functools.partial(packed, trace) for name, trace in self.traces.items()}
        self._crew = Crew(executor, parcels) if executor else None

    @property
    def carried(self) -> int:
        """How often a trace was sent to a worker."""
        return self._crew.carried if self._crew else 0

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

    def following(self) -> Evaluator:
        """The same, by the same workers, which follows pages instead of counting them: of large guests one in some."""
        other, pages = copy.copy(self), max(sum(trace.blocks.values()) for trace in self.traces.values())
        other._fast, other._sample = False, max(self._sample, -(-pages // FOLLOWED))
        return other

    def worst(self, link: Link) -> dict[str, float]:
        """What a run counts as that does not complete: as long as a run may take, and all that the link carries."""
        longest = float(self._options.get("longest", 600.0))
        carried = longest * float(link.bandwidth or 0.0)
        times = dict.fromkeys(("effective_downtime", "blackout", "total_time", "brownout_loss"), longest)
        return {**times, "sent_bytes": carried, "slowdown": 1.0}

    def spec(self) -> dict[str, Any]:
        """What its verdicts depend on, beside the plans."""
        traces = {name: hashlib.sha256(packed(trace)).hexdigest() for name, trace in self.traces.items()}
        return {
            "traces": traces,
            "starts": self.starts,
            "options": repr(self._options),
            "sample": self._sample,
            "fast": self._fast,
        }

    def _chunks(self, plans: Sequence[Plan]) -> Iterable[tuple[int, int, NDArray[Any]]]:
        places = [(name, column) for column, name in enumerate(self.traces)]
        if self._crew is None:
            for name, column in places:
                trace = self.traces[name]
                yield 0, column, simulated(trace, self._runs(plans, trace))
            return
        tasks = [
            Task(name, (first, column), self._runs(plans[first : first + CHUNK], self.traces[name]))
            for name, column in places
            for first in range(0, len(plans), CHUNK)
        ]
        for (first, column), rows in self._crew.work(judge, tasks):
            yield first, column, np.array(rows, dtype=VERDICT)

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


def judge(packed: bytes) -> Callable[[str], list[tuple[Any, ...]]]:
    """A worker's part: unpacks a trace once, and then judges plans on it. The worker has one core for it."""
    trace = Trace.load(io.BytesIO(packed))  # type: ignore[arg-type]

    def rows(runs: str) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = simulated(trace, runs, cores=1).tolist()
        return found

    return rows


def packed(trace: Trace) -> bytes:
    """As it travels: a Parquet file."""
    sink = io.BytesIO()
    trace.save(sink)  # type: ignore[arg-type]
    return sink.getvalue()


def simulated(trace: Trace, runs: str, cores: int | None = None) -> NDArray[Any]:
    """Verdicts of `runs`: a row for each plan and start."""
    given = json.loads(runs)
    options = {**given["options"], "costs": Costs(**given["options"]["costs"])}
    trials = [
        {"strategy": _strategy(strategy, codec), "policy": policy, "link": _link(link), "start": start, **options}
        for strategy, codec, policy, link in given["plans"]
        for start in given["starts"]
    ]
    return simulate_many(trace, trials, cores=cores, **given["how"])


def _moves(strategy: Strategy) -> tuple[dict[str, Any], dict[str, Any]]:
    return strategy.spec(), strategy.codec.spec()


def _strategy(spec: dict[str, Any], codec: dict[str, Any]) -> Strategy:
    return strategies.registry.of(spec).replace(codec=codecs.registry.of(codec))


def _link(spec: dict[str, Any]) -> Link:
    outages = [(outage["at"], outage["duration"]) for outage in spec["outages"]]
    return Link(**{**spec, "outages": outages})
