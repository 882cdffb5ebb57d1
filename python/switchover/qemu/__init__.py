"""The world `qemu`: migrations of real VMs, driven over QMP, in the same words and with the same report.

    report = sw.qemu.migrate("src.qmp", "tcp:other-host:4444", sw.PreCopy(), policy=my_policy)

QEMU moves the memory: a strategy becomes its capabilities and parameters, and is refused with the reason where it
cannot do it. The policy, the rounds and the report are those of the other worlds. `Qmp` is the connection underneath.
"""

from __future__ import annotations

from switchover.qemu import guestperf
from switchover.qemu.abilities import Abilities
from switchover.qemu.calls import migrate, migrate_async
from switchover.qemu.features import Features
from switchover.qemu.incoming import restore
from switchover.qemu.migration import Migration
from switchover.qemu.own import Pair
from switchover.qemu.qmp import AsyncQmp, Event, Qmp
from switchover.qemu.recovery import resume as recover
from switchover.qemu.rehearsal import Rehearsal, rehearse
from switchover.qemu.relay import Relay

__all__ = [
    "Abilities",
    "AsyncQmp",
    "Event",
    "Features",
    "Migration",
    "Pair",
    "Qmp",
    "Rehearsal",
    "Relay",
    "guestperf",
    "migrate",
    "migrate_async",
    "recover",
    "rehearse",
    "restore",
]
