"""The simulator: migrations of traces, on a virtual clock."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from switchover import _native, coding, policies, strategies, units
from switchover.costs import Costs
from switchover.errors import PolicyError, SwitchoverError, UsageError
from switchover.link import Link
from switchover.migration import named
from switchover.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from switchover.codecs import Codec
    from switchover.trace import Trace


__all__ = ["VERDICT", "Costs", "simulate", "simulate_many"]


def simulate(
    trace: Trace,
    strategy: strategies.Strategy | str = "pre-copy",
    policy: policies.Judge | str = "downtime-limit",
    link: Link | str = "1Gbit/s",
    *,
    start: units.Time = 0.0,
    costs: Costs | str | Path | None = None,
    zero_share: float = 0.0,
    encode_rate: units.Rate | None = None,
    reads: float | tuple[float, float] = 0.0,
    shadow: Sequence[policies.Judge | str] | Mapping[str, policies.Judge | str] = (),
    longest: units.Time = "24h",
    sample: int = 1,
    fast: bool = False,
) -> Report:
    """What would have become of a migration of the guest that `trace` watched.

    The strategy, the policy and the loop are those that move real memory; the guest is the trace, the link a
    model, the clock virtual. The same arguments give the same report, to the byte. Within its interval a page is
    taken to be written once, at a moment of its own; what was written again within the interval is not in a trace.

    Args:
        trace: What the guest writes. At its end it is entered again from its start.
        strategy: How memory moves.
        policy: Asked at each round's end, as in `migrate`.
        link: It must have a bandwidth. Its jitter counts with its mean.
        start: Where in the trace the migration starts.
        costs: What a migration costs beside sending, or the path of a file of `switchover calibrate`.
        zero_share: Share of the pages that are zero until the trace writes them.
        encode_rate: Memory that the source's encoders get through, where the strategy has a codec that encodes;
            unlimited by default.
        reads: Pages that the guest reads for each page that it writes, once execution is ahead of memory, spread evenly
            over all of it, or over a share of it if a pair is given: an assumption, since a trace has no reads.
        shadow: Policies that watch.
        longest: Simulated time after which a run that does not end is failed.
        sample: Follow one page in so many, which stands for its neighbours: faster, with a sampling error.
        fast: Count pages instead of following them: a round takes microseconds however large the guest. Not for
            post-copy, nor for policies that hold the guest at its writes.

    Examples:
        >>> import switchover as sw
        >>> trace = sw.Trace.generate("256MiB", sw.workloads.HotCold(rate="40MB/s"), duration="10s")
        >>> report = sw.simulate(trace, sw.PreCopy(), sw.policies.DowntimeLimit("100ms"), "1Gbit/s,0.5ms")
        >>> report.outcome, report.blackout < 0.15
        ('completed', True)

    With a codec that encodes, pages take what the trace's samples of content say: see `switchover.coding`.

    Raises:
        PolicyError: A policy in Python raised; that is the cause.
        UsageError: The trace has no samples of content, and the codec needs them.
    """
    plan_of, judge = strategies.registry.of(strategy), policies.of(policy)
    model = coding.of(trace, plan_of.codec, encode_rate)
    scenario = _scenario(link, start, costs, zero_share, longest) | {"coding": model, "reads": _reads(reads)}
    plan = {
        "strategy": plan_of.spec(),
        "scenario": scenario,
        "sample": units.parse_count(sample, "sample"),
        "fast": fast,
        "policy": policies.spec_of(judge),
        "guest": {"trace": trace.metadata},
        "codec": plan_of.codec.spec(),
    }
    watchers = [(name, policies.to_native(watcher)) for name, watcher in named(shadow).items()]
    text, error = _native.simulate(trace.native(), json.dumps(plan), policies.to_native(judge), watchers)
    report = Report.from_json(text)
    report.error = error if isinstance(error, SwitchoverError) else None
    if isinstance(error, PolicyError) and error.__cause__ is not None:
        raise error
    return report


VERDICT = np.dtype(
    [
        ("outcome", "U9"),
        ("total_time", "f8"),
        ("blackout", "f8"),
        ("sent_bytes", "u8"),
        ("rounds", "u4"),
        ("slowdown", "f8"),
    ]
)
"""What a simulated run came to; a blackout that is no number belongs to a run that did not complete."""


def simulate_many(
    trace: Trace,
    runs: Iterable[Mapping[str, Any]],
    *,
    sample: int = 1,
    fast: bool = False,
    cores: int | None = None,
) -> NDArray[Any]:
    """Many simulations of one trace, on several cores with the interpreter released.

    Args:
        trace: What the guest writes.
        runs: For each run its arguments, as `simulate` takes them: `strategy`, `policy`, `link`, `start`, `costs`,
            `zero_share`, `encode_rate`, `reads`, `longest`. Policies are those of `switchover.policies`.
        sample: Follow one page in so many.
        fast: Count pages where that does, instead of following them.
        cores: How many to use; all by default.

    Returns:
        A structured array of `VERDICT`, a row for each run in the same order.

    Examples:
        >>> import switchover as sw
        >>> trace = sw.Trace.generate("64MiB", sw.workloads.Zipf(rate="20MB/s"), duration="5s")
        >>> limits = ("50ms", "100ms", "300ms")
        >>> rows = sw.simulate_many(trace, [{"policy": sw.policies.DowntimeLimit(limit)} for limit in limits])
        >>> bool((rows["blackout"] < 0.3).all()), len(rows)
        (True, 3)
    """
    model = functools.cache(functools.partial(coding.of, trace))
    trials = json.dumps([_trial(model, **run) for run in runs])
    rows = _native.simulate_many(trace.native(), trials, units.parse_count(sample, "sample"), fast, cores)
    return np.array(rows, dtype=VERDICT)


def _trial(
    model: Callable[[Codec, units.Rate | None], dict[str, Any] | None],
    *,
    strategy: strategies.Strategy | str = "pre-copy",
    policy: policies.Policy | str = "downtime-limit",
    link: Link | str = "1Gbit/s",
    start: units.Time = 0.0,
    costs: Costs | str | Path | None = None,
    zero_share: float = 0.0,
    encode_rate: units.Rate | None = None,
    reads: float | tuple[float, float] = 0.0,
    longest: units.Time = "24h",
) -> dict[str, Any]:
    plan = strategies.registry.of(strategy)
    more = {"coding": model(plan.codec, encode_rate), "reads": _reads(reads)}
    return {
        "strategy": plan.spec(),
        "policy": policies.registry.of(policy).spec(),
        "scenario": _scenario(link, start, costs, zero_share, longest) | more,
    }


def _reads(given: float | tuple[float, float]) -> dict[str, float]:
    per_write, share = given if isinstance(given, tuple) else (given, 1.0)
    return {"per_write": float(per_write), "share": float(share)}


def _scenario(
    link: Link | str, start: units.Time, costs: Costs | str | Path | None, zero_share: float, longest: units.Time
) -> dict[str, Any]:
    if not 0 <= zero_share <= 1:
        raise UsageError(f"zero_share must be from 0 to 1, not {zero_share}")
    return {
        "link": Link.of(link).spec(),
        "costs": Costs.of(costs).spec(),
        "start": units.parse_time(start, "start"),
        "zero_share": zero_share,
        "longest": units.parse_time(longest, "longest"),
    }
