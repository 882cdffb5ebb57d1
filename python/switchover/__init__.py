"""Switchover: a workbench for live-migration algorithms.

    >>> import switchover as sw
    >>> guest = sw.Guest("16MiB", sw.workloads.Sweep(rate="20MB/s"), seed=7)
    >>> report = sw.migrate(guest, sw.PreCopy(), policy=sw.policies.DowntimeLimit("300ms"), warm_up="10ms")
    >>> report.outcome
    'completed'
    >>> guest.check()  # the guest is the one at the destination
    >>> guest.close()

Quantities are SI numbers (seconds, bytes, bytes per second) or texts such as "1GiB", "300ms", "1Gbit/s".
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from switchover import (
        codecs,
        comparison,
        contents,
        errors,
        policies,
        prepaging,
        qemu,
        strategies,
        stream,
        trackers,
        tuning,
        units,
        workloads,
    )
    from switchover.comparison import compare
    from switchover.costs import Costs
    from switchover.decision import Decision, Reason
    from switchover.errors import (
        LinkError,
        PolicyError,
        QmpError,
        StreamError,
        SwitchoverError,
        TrackerUnavailable,
        UsageError,
        VerificationError,
    )
    from switchover.guest import Guest, Progress
    from switchover.link import Link
    from switchover.migration import Migration, migrate
    from switchover.receiver import Receiver
    from switchover.report import Report
    from switchover.round import Round
    from switchover.sample import Sample
    from switchover.simulation import simulate, simulate_many
    from switchover.strategies import Hybrid, PostCopy, PreCopy, StopAndCopy
    from switchover.trace import Trace
    from switchover.tuning import tune

__all__ = [
    "Costs",
    "Decision",
    "Guest",
    "Hybrid",
    "Link",
    "LinkError",
    "Migration",
    "PolicyError",
    "PostCopy",
    "PreCopy",
    "Progress",
    "QmpError",
    "Reason",
    "Receiver",
    "Report",
    "Round",
    "Sample",
    "StopAndCopy",
    "StreamError",
    "SwitchoverError",
    "Trace",
    "TrackerUnavailable",
    "UsageError",
    "VerificationError",
    "__version__",
    "codecs",
    "compare",
    "comparison",
    "contents",
    "errors",
    "migrate",
    "policies",
    "prepaging",
    "qemu",
    "simulate",
    "simulate_many",
    "strategies",
    "stream",
    "trackers",
    "tune",
    "tuning",
    "units",
    "workloads",
]

# Where each name is: nothing is imported before it is asked for, so that a command starts at once.
_HOMES = {
    "switchover.comparison": ("compare",),
    "switchover.costs": ("Costs",),
    "switchover.decision": ("Decision", "Reason"),
    "switchover.errors": (*(name for name in __all__ if name.endswith("Error")), "TrackerUnavailable"),
    "switchover.guest": ("Guest", "Progress"),
    "switchover.link": ("Link",),
    "switchover.migration": ("Migration", "migrate"),
    "switchover.receiver": ("Receiver",),
    "switchover.report": ("Report",),
    "switchover.round": ("Round",),
    "switchover.sample": ("Sample",),
    "switchover.simulation": ("simulate", "simulate_many"),
    "switchover.strategies": ("Hybrid", "PostCopy", "PreCopy", "StopAndCopy"),
    "switchover.trace": ("Trace",),
    "switchover.tuning": ("tune",),
}
_NAMES = {name: home for home, names in _HOMES.items() for name in names}
_MODULES = (
    "codecs",
    "comparison",
    "contents",
    "errors",
    "policies",
    "prepaging",
    "qemu",
    "strategies",
    "stream",
    "trackers",
    "tuning",
    "units",
    "workloads",
)


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(import_module(_NAMES[name]), name)
    elif name in _MODULES:
        value = import_module(f"switchover.{name}")
    elif name == "__version__":
        value = import_module("switchover._native").VERSION
    else:
        raise AttributeError(f"module 'switchover' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
