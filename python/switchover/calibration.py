"""Fitting the simulator's costs to real runs."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from switchover.costs import NAMES, Costs
from switchover.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from switchover.report import Report

LEAST = 3
RESAMPLES = 200
GIB = 2**30


class Run(NamedTuple):
    """What a run says of the costs; times in seconds.

    Attributes:
        gib: The guest's memory.
        slowness: Seconds that the link takes for a byte.
        setup: From the start to the first page, a round trip apart.
        scan: To read the dirty log of a GiB.
        first: How much longer round 0 took than its bytes.
        live: The same of the other live rounds, in the mean; nan without one.
        reaction: From the decision to switch over to the guest's being stopped, in memory nothing happens between.
        stop: Until the vCPUs stood.
        resume: From letting go to the first instruction there, round trips apart.
        blackout: How much longer it was than the last round's bytes and the link's round trips.
    """

    gib: float
    slowness: float
    setup: float
    scan: float
    first: float
    live: float
    reaction: float
    stop: float
    resume: float
    blackout: float


def fit(reports: Iterable[Report]) -> Costs:
    """See [`Costs.fit`][switchover.costs.Costs.fit]."""
    used = list(reports)
    runs = [run for run in map(seen, used) if run is not None]
    if len(runs) < LEAST:
        raise UsageError(
            f"costs need {LEAST} or more completed runs over links of a known bandwidth; {len(runs)} of "
            f"{len(used)} are such"
        )
    table = np.array(runs)
    random = np.random.default_rng(0)
    again = np.array([solve(table[random.integers(0, len(table), len(table))]) for _ in range(RESAMPLES)])
    costs = dict(zip(NAMES, solve(table), strict=True))
    errors = dict(zip(NAMES, (float(value) for value in again.std(axis=0, ddof=1)), strict=True))
    about = {
        "world": ", ".join(sorted({str(report.data["world"]) for report in used})),
        "runs": str(len(runs)),
        "machine": f"{platform.system()} {platform.release()}, {os.cpu_count()} CPUs",
    }
    return Costs(**costs, errors=errors, about=about)  # type: ignore[arg-type]


def seen(report: Report) -> Run | None:
    """What a run says of the costs; nothing if it cannot be used."""
    data = report.data
    bandwidth, rounds = data["link"].get("bandwidth"), data["rounds"]
    moved_ahead = report.faults is not None
    if report.outcome != "completed" or not bandwidth or not rounds or report.blackout is None or moved_ahead:
        return None
    trip = data["link"].get("rtt", 0.0) + data["link"].get("jitter", 0.0)
    parts = data.get("blackout_parts") or {}
    over = [each["duration"] - each["sent_bytes"] / bandwidth for each in rounds if each["live"]]
    return Run(
        gib=report.memory_bytes / GIB,
        slowness=1 / bandwidth,
        setup=data["setup_time"] - trip,
        scan=(data["tracking"].get("scan_us_per_gib") or 0.0) / 1e6,
        first=over[0] if over else np.nan,
        live=float(np.mean(over[1:])) if over[1:] else np.nan,
        reaction=reaction(report),
        stop=parts.get("stop") or 0.0,
        resume=max(0.0, (parts.get("resume") or 0.0) - trip),
        blackout=report.blackout - rounds[-1]["sent_bytes"] / bandwidth - 1.5 * trip,
    )


def reaction(report: Report) -> float:
    """From the first decision to switch over to the guest's being stopped; nan where nothing was decided."""
    if report.data["world"] == "memory":
        return 0.0
    decided = [e["time"] for e in report.events if e["event"] == "decided" and e["decision"]["kind"] == "switch_over"]
    paused = [e["time"] for e in report.events if e["event"] == "paused"]
    return float(paused[-1] - decided[0]) if decided and paused else np.nan


def solve(table: NDArray[Any]) -> tuple[float, ...]:
    """The costs, in the order of `NAMES`, out of runs as rows."""
    run = dict(zip(Run._fields, table.T, strict=True))
    setup, setup_per_gib = line(run["gib"], run["setup"])
    scan = float(np.median(run["scan"]))
    live = run["live"][~np.isnan(run["live"])]
    scans = scan * float(np.median(run["gib"]))
    each = max(0.0, float(np.median(live)) - scans) if len(live) else 0.0
    # The source is done with round 0 before the link is, by what the buffers hold; what they still hold when the
    # guest stops is waited for in the blackout.
    early = scan * run["gib"] + each - run["first"]
    known = ~np.isnan(early)
    buffer = max(0, round(through_zero(run["slowness"][known], early[known]))) if known.any() else 0
    waits = run["reaction"][~np.isnan(run["reaction"])]
    reaction = max(0.0, float(np.median(waits))) if len(waits) else 0.0
    stop, resume = float(np.median(run["stop"])), float(np.median(run["resume"]))
    rest = run["blackout"] - stop - resume - each - scan * run["gib"] - buffer * run["slowness"]
    load = max(0.0, float(np.median(rest)))
    return setup, setup_per_gib, scan, each, reaction, stop, load, resume, buffer


def line(x: NDArray[Any], y: NDArray[Any]) -> tuple[float, float]:
    """The line through the points that has the least absolute deviations, out of those through two of them or flat.

    Neither its height at 0 nor its slope is negative.
    """
    candidates = [(max(0.0, float(np.median(y))), 0.0), *through_two(x, y)]
    if (x > 0).all():
        candidates.append((0.0, max(0.0, through_zero(x, y))))
    return min(candidates, key=lambda at: float(np.abs(y - at[0] - at[1] * x).sum()))


def through_zero(x: NDArray[Any], y: NDArray[Any]) -> float:
    """The slope of the line through 0 that has the least absolute deviations: a weighted median of slopes."""
    order = np.argsort(y / x)
    reached = np.searchsorted(np.cumsum(x[order]), x.sum() / 2)
    return float((y / x)[order][reached])


def through_two(x: NDArray[Any], y: NDArray[Any]) -> Iterator[tuple[float, float]]:
    """All lines through two points of different places that nowhere right of 0 are below it."""
    for i in range(len(x)):
        for j in range(i):
            if x[i] != x[j]:
                slope = float((y[i] - y[j]) / (x[i] - x[j]))
                height = float(y[i] - slope * x[i])
                if slope >= 0 and height >= 0:
                    yield height, slope


SIZES = ("32MiB", "128MiB")
LINKS = ("500Mbit/s", "1Gbit/s,1ms", "2Gbit/s")


def measure(repeats: int, on_run: Callable[[int, int], object] | None = None) -> list[Report]:
    """Real runs of the memory world to fit costs to: guests of two sizes over three links, each so often."""
    from switchover import Guest, PreCopy, migrate, workloads

    cases = [(size, link) for _ in range(repeats) for size in SIZES for link in LINKS]
    reports = []
    for number, (size, link) in enumerate(cases):
        with Guest(size, workloads.HotCold(rate="20MB/s"), seed=number, fill="mix") as guest:
            plan: dict[str, Any] = {"link": link, "warm_up": "50ms", "cool_down": "0s"}
            reports.append(migrate(guest, PreCopy(), "max-rounds:4", **plan))
        if on_run:
            on_run(number + 1, len(cases))
    return reports
