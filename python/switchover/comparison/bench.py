"""The comparison itself: all cases, again and again, in turns."""

from __future__ import annotations

import random
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from switchover import policies, strategies, units
from switchover.comparison import vms
from switchover.comparison.case import Case, cases, named, with_codecs
from switchover.comparison.estimate import LEAST_RUNS
from switchover.comparison.folder import Folder
from switchover.comparison.run import Run, run_id
from switchover.comparison.source import Given, sources
from switchover.comparison.table import Table
from switchover.costs import Costs
from switchover.errors import UsageError
from switchover.link import Link
from switchover.migration import migrate
from switchover.simulation import simulate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from os import PathLike
    from pathlib import Path

    from switchover.report import Report

WARM_UP = -1
"""The repeat that goes before: run like the others, and thrown away."""


GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Turn:
    """A run that is to be made; `row` is its case's place in the table."""

    row: int
    case: Case
    arm: str
    repeat: int

    @property
    def id(self) -> str:
        """The run's."""
        return run_id(self.case.key, self.arm, self.repeat)

    @property
    def entry(self) -> float:
        """Where in a trace it begins, as a share: multiples of the golden ratio lie evenly however many there are."""
        return (self.repeat * GOLDEN + (0.5 if self.arm == "again" else 0.0)) % 1.0

    def run(self) -> Report:
        """Makes it. Repeats differ by the machine's noise, in the simulator by where the trace is entered."""
        case, options = self.case, dict(self.case.options)
        if case.world == "sim":
            trace = case.source.trace()
            costs = Costs(**options.pop("costs", {}))
            start = self.entry * trace.duration
            return simulate(trace, case.strategy, case.policy, case.link, start=start, costs=costs, **options)
        if case.world == "qemu":
            return vms.run(case)
        limit = policies.registry.get("time-limit", limit=options.pop("longest"), then="abort")
        with case.source.make() as guest:
            return migrate(guest, case.strategy, policies.any_of(case.policy, limit), case.link, **options)


def compare(
    guests: Given | Mapping[str, Given] | Sequence[Given],
    strategies: Any = "pre-copy",
    links: Any = "1Gbit/s",
    *,
    policies: Any = "downtime-limit",
    codecs: Sequence[str] = (),
    worlds: Sequence[str] = ("memory", "sim"),
    repeats: int = 5,
    folder: str | PathLike[str] | None = None,
    seed: int = 0,
    verify: bool = False,
    warm_up: units.Time = "500ms",
    cool_down: units.Time | None = None,
    longest: units.Time = "10min",
    zero_share: float = 0.0,
    costs: Costs | str | Path | None = None,
    qemu: str | None = None,
    on_run: Callable[[int, int, Run], object] | None = None,
) -> Table:
    """Migrates every guest by every strategy, under every policy, over every link, in every world, several times.

    Runs are interleaved: each repeat runs all cases, in an order of its own, so that what drifts on the machine
    drifts for all. A first pass in memory warms up and is thrown away. The first case of each guest, link and world
    is run a second time as another arm: how far the two are apart is the noise floor, under which no difference is
    a difference.

    Args:
        guests: One, a list, or a dict by name of: a `Guest` as a pattern, its arguments as a dict, a function that
            makes one, or a `Trace` (which is simulated only).
        strategies: One, a list, or a dict by name.
        links: One, a list, or a dict by name. The simulator needs a bandwidth.
        policies: One, a list, or a dict by name.
        codecs: Each strategy with each of these; by default with its own. The simulator knows `raw` and `zero`,
            and the others of traces with samples of content.
        worlds: Some of `memory`, `sim` and `qemu`, a pair of VMs with a guest of ours. What one of them cannot do is
            left out: a trace, or a guest of several workloads, in QEMU; a strategy or policy that QEMU has no word for.
        repeats: Runs of each case, five or more.
        folder: Where results are kept, run by run; what is there is not run again.
        seed: Of the order.
        verify: Compare memories page by page, in memory; have the guest check its data, in QEMU.
        warm_up: How long each guest is measured before it is migrated, in memory and in QEMU.
        cool_down: How long it is watched at the destination.
        longest: A run that takes longer is given up: at its next round's end in memory.
        zero_share: Share of the pages that are zero until written, in the simulator.
        costs: What a simulated migration costs beside sending, or the path of a file of `switchover calibrate`.
        qemu: The QEMU of the world `qemu`, by path; by default `qemu-system-x86_64`.
        on_run: Called with how many are done, how many there are, and the run, after each.

    Returns:
        The table of all cases.

    Examples:
        >>> import switchover as sw
        >>> trace = sw.Trace.generate("64MiB", sw.workloads.HotCold(rate="30MB/s"), duration="5s")
        >>> limits = {"100 ms": "downtime-limit:100ms", "one round": "max-rounds:1"}
        >>> table = sw.compare(trace, ["pre-copy"], ["500Mbit/s"], policies=limits)
        >>> [row.names["policy"] for row in table.best("effective_downtime")]
        ['100 ms']

    Raises:
        UsageError: An argument is wrong, or the folder is in use.
    """
    repeats = units.parse_count(repeats, "repeats")
    if repeats < LEAST_RUNS:
        raise UsageError(f"repeats must be {LEAST_RUNS} or more: with fewer runs there is no interval; not {repeats}")
    found = cases(
        sources(guests),
        with_codecs(_strategies(strategies), codecs),
        _policies(policies),
        named(links, Link.of, "links"),
        worlds=[worlds] if isinstance(worlds, str) else list(worlds),
        options=_options(
            verify, warm_up, cool_down, longest=longest, modelled=(zero_share, Costs.of(costs)), qemu=qemu
        ),
    )
    return run_all(turns(found, repeats, seed), folder, on_run)


def _strategies(given: Any) -> dict[str, strategies.Strategy]:
    return named(given, strategies.registry.of, "strategies")


def _policies(given: Any) -> dict[str, policies.Judge]:
    return named(given, policies.of, "policies", policies.label)


def _options(
    verify: bool,
    warm_up: units.Time,
    cool_down: units.Time | None,
    *,
    longest: units.Time,
    modelled: tuple[float, Costs],
    qemu: str | None,
) -> dict[str, dict[str, Any]]:
    most = {"longest": units.parse_time(longest, "longest")}
    after = None if cool_down is None else units.parse_time(cool_down, "cool_down")
    watched = {"verify": bool(verify), "warm_up": units.parse_time(warm_up, "warm_up"), "cool_down": after}
    return {
        "sim": {**most, "zero_share": modelled[0], "costs": modelled[1].spec()},
        "memory": {**most, **watched},
        "qemu": {**most, **watched, "binary": qemu},
    }


def turns(found: Sequence[Case], repeats: int, seed: int) -> list[Turn]:
    """All runs in the order in which they are made."""
    first: dict[tuple[str, ...], str] = {}
    for case in found:
        first.setdefault(_group(case), case.key)
    rows = list(enumerate(found))
    arms = [(*row, "case") for row in rows] + [(*row, "again") for row in rows if row[1].key in first.values()]
    order: list[Turn] = []
    for repeat in range(WARM_UP, repeats):
        taken = [Turn(row, case, arm, repeat) for row, case, arm in arms if _is_run(case, arm, repeat)]
        random.Random(f"{seed} {repeat}").shuffle(taken)  # noqa: S311  an order, not a secret
        order += taken
    return order


def _group(case: Case) -> tuple[str, ...]:
    return tuple(case.names[name] for name in ("guest", "link", "world"))


def _is_run(case: Case, arm: str, repeat: int) -> bool:
    """A simulation has no caches to warm."""
    return repeat != WARM_UP or (case.world == "memory" and arm == "case")


def run_all(
    order: Iterable[Turn], folder: str | PathLike[str] | None, on_run: Callable[[int, int, Run], object] | None = None
) -> Table:
    """Makes the runs that are not in the folder, and tables them all."""
    planned = list(order)
    counted = [turn for turn in planned if turn.repeat != WARM_UP]
    place = None if folder is None else Folder(folder)
    with place or nullcontext():
        kept = {turn.id: place.get(turn.id) for turn in counted if place and place.has(turn.id)}
        warm = {turn.case.key for turn in counted if turn.id not in kept}
        for turn in planned:
            if turn.repeat == WARM_UP:
                if turn.case.key in warm:
                    turn.run()
            elif turn.id not in kept:
                kept[turn.id] = _made(turn, place)
                if on_run is not None:
                    on_run(len(kept), len(counted), kept[turn.id])
    return Table([kept[turn.id] for turn in sorted(counted, key=lambda turn: turn.row)])


def _made(turn: Turn, place: Folder | None) -> Run:
    began = datetime.now(UTC).isoformat(timespec="milliseconds")
    run = Run.of(turn.case, turn.arm, turn.repeat, began, turn.run())
    if place is not None:
        place.add(run)
    return run
