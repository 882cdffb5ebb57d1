"""The world `qemu` of a comparison: each run has a pair of VMs of our own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from switchover import policies
from switchover.errors import UsageError
from switchover.qemu import guest, plan
from switchover.qemu.abilities import Abilities
from switchover.qemu.features import Features
from switchover.qemu.own import Pair
from switchover.qemu.qmp import Qmp
from switchover.qemu.vm import Vm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from switchover.comparison.case import Case
    from switchover.report import Report
    from switchover.strategies import Strategy


def unfit(spec: Mapping[str, Any]) -> str | None:
    """Why a guest of this spec does not run in a VM of ours; nothing if it does."""
    if "trace" in spec:
        return "a trace is only simulated"
    if len(spec["workloads"]) != 1:
        return "the guest of a VM has one workload"
    try:
        guest.command_line(spec["workloads"][0], _memory(spec))
    except UsageError as error:
        return str(error)
    return None


def _memory(spec: Mapping[str, Any]) -> int:
    return sum(block["bytes"] for block in spec["layout"]["blocks"])


def refused(
    moves: Mapping[str, Strategy], rules: Mapping[str, policies.Judge], binary: str | None
) -> dict[tuple[str, str], str]:
    """What this QEMU cannot do, by names of strategy and policy, with the reason; a VM of its own is asked."""
    found = {}
    with Vm("idle", binary=binary) as vm, Qmp(vm.monitor) as qmp:
        source = Abilities(qmp)
        for move, strategy in moves.items():
            for rule, policy in rules.items():
                try:
                    plan.make(strategy, Features(), policy, "unix:", source=source)
                except UsageError as error:
                    found[move, rule] = str(error)
    return found


def run(case: Case) -> Report:
    """One run: the guest checks its own data where `verify` is asked for."""
    options, spec = dict(case.options), case.source.spec
    limit = policies.registry.get("time-limit", limit=options["longest"], then="abort")
    cool_down = {} if options["cool_down"] is None else {"cool_down": options["cool_down"]}
    with Pair(spec["workloads"][0], _memory(spec), link=case.link, binary=options["binary"], seed=spec["seed"]) as pair:
        return pair.migrate(
            case.strategy,
            policies.any_of(case.policy, limit),
            warm_up=options["warm_up"],
            check=options["verify"],
            **cool_down,
        )
