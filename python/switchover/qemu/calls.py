"""Migrations of real VMs as one call, for plain and for asyncio code."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from switchover.errors import PolicyError
from switchover.qemu.migration import Migration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from switchover import policies, units
    from switchover.decision import Decision
    from switchover.qemu.features import Features
    from switchover.qemu.heartbeat import Beats
    from switchover.qemu.qmp import Address, Qmp
    from switchover.report import Report
    from switchover.round import Round


def migrate(
    source: Qmp | Address,
    to: Qmp | Address,
    strategy: object = "pre-copy",
    policy: policies.Judge | str | None = None,
    *,
    destination: Qmp | Address | None = None,
    features: Features | dict[str, Any] | str | None = None,
    shadow: Sequence[policies.Judge | str] | Mapping[str, policies.Judge | str] = (),
    heartbeat: tuple[Address, Address] | Beats | None = None,
    observer: tuple[Address, Address] | Beats | None = None,
    warm_up: units.Time = "0s",
    cool_down: units.Time = "0s",
    recover: bool = True,
    through: Callable[[str], str] | None = None,
    stall_timeout: units.Time = "60s",
    timeout: units.Time = "30s",
    on_round: Callable[[Round, Decision], object] | None = None,
) -> Report:
    """Migrates a VM, and reports. What goes wrong is the report's outcome; its reason says where the guest is.

    Args:
        source: The source's monitor: a path, "HOST:PORT", or a `Qmp`.
        to: Where to: an address for QEMU such as "tcp:HOST:PORT", "unix:PATH" or "file:PATH", or the monitor of a
            destination on the same machine.
        strategy: How memory moves: pre-copy, stop-and-copy, post-copy, hybrid.
        policy: Asked at each pass and every 100 ms: one of `switchover.policies`, or `f(round, history) -> Decision`.
            Left out, QEMU decides by its own rule.
        destination: The destination's monitor, where `to` is an address: it is set up like the source, told to listen
            (if it was started with `-incoming defer`), and asked when the guest runs.
        features: What QEMU is to use on the way: `Features`, or a text such as `multifd=4,compression=zstd`.
        shadow: Policies that only watch.
        heartbeat: Character devices of both sides on which the guest sends bytes of its own accord. Where it also tells
            how much it has done (`p`, digits in base 16, the line's end), the report has what the migration cost it.
        observer: Character devices of both sides on which the guest answers each byte.
        warm_up: How long the guest's heartbeat is listened to before the start, for its speed before.
        cool_down: How long afterwards at the destination, for its speed there; no part of the total time.
        recover: Go on over another link when that of a post-copy is lost.
        through: Where the source is to go, of where the destination listens, if something stands between: a `Relay`,
            which shapes the link and tells the parts of the blackout apart, or a function of addresses.
        stall_timeout: How long nothing may go over the link.
        timeout: How long QEMU may take to answer.
        on_round: Called with each live round and the decision on it.

    Raises:
        UsageError: QEMU cannot do that; nothing has been started, and all is as before.
        QmpError: A monitor does not answer, or QEMU refused a setting; all is as before.
        PolicyError: A policy raised; the guest runs at the source.
    """
    migration = Migration(
        source, to, strategy, policy, destination=destination, features=features, shadow=shadow, heartbeat=heartbeat,
        observer=observer, warm_up=warm_up, cool_down=cool_down, recover=recover, through=through,
        stall_timeout=stall_timeout, timeout=timeout,
    )  # fmt: skip
    with migration:
        run(migration, on_round)
    if isinstance(migration.report.error, PolicyError):
        raise migration.report.error
    return migration.report


def run(migration: Migration, on_round: Callable[[Round, Decision], object] | None = None) -> None:
    """Runs a migration to its end under its own policy."""
    for seen in migration:
        decision = migration.judge()
        if on_round is not None and decision is not None:
            on_round(seen, decision)


async def migrate_async(*arguments: Any, **named: Any) -> Report:
    """`migrate` for asyncio code. Cancelling the task cancels the migration; the guest then runs at the source."""
    on_round = named.pop("on_round", None)
    migration = Migration(*arguments, **named)

    def work() -> Report:
        with migration:
            run(migration, on_round)
        return migration.report

    task = asyncio.create_task(asyncio.to_thread(work))
    try:
        report = await asyncio.shield(task)
    except asyncio.CancelledError:
        migration.cancel()
        await task
        raise
    if isinstance(report.error, PolicyError):
        raise report.error
    return report
