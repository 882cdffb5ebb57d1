"""Settings ready to paste: a plan in the words of QEMU, libvirt, KubeVirt, oVirt, Nova, and ours.

Names are those of QEMU's QMP schema, virsh's manual, KubeVirt's API types (MigrationPolicy v1alpha1; the stall detector
is experimental and behind a feature gate there), oVirt's MigrationPolicies and Nova's `[libvirt]` options. What a
manager has no word for is said in a comment, never left out in silence.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from switchover import units

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from switchover.link import Link
    from switchover.tuning.space import Plan

LIMITS = ("limit", "most", "downtime", "max_downtime")
"""Knobs of policies that are the greatest blackout which is allowed."""

MIB = 1 << 20


def texts(plan: Plan) -> dict[str, str]:
    """Each manager's text, by where it goes."""
    makers: dict[str, Callable[[Plan], str]] = {
        "switchover": ours,
        "QMP": qmp,
        "virsh": virsh,
        "KubeVirt MigrationPolicy": lambda plan: kubevirt(plan, "MigrationPolicy"),
        "KubeVirt CR": lambda plan: kubevirt(plan, "KubeVirt"),
        "oVirt MigrationPolicies": ovirt,
        "nova.conf": nova,
    }
    return {name: make(plan) for name, make in makers.items()}


def ours(plan: Plan) -> str:
    """The command line."""
    parts = {"--strategy": plan.strategy, "--policy": plan.policy}
    words = [f"{option} {word(part.spec())}" for option, part in parts.items()]
    link = "" if plan.link.bandwidth is None else f" --link {link_word(plan.link)}"
    return f"switchover run {' '.join(words)}{link}\n"


def word(spec: Mapping[str, Any]) -> str:
    """A part of this spec as a text: `max-rounds:rounds=8`."""
    knobs = {name: value for name, value in spec.items() if name != "name"}
    told = [f"{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in knobs.items()]
    return f"{spec['name']}:{','.join(told)}" if told else str(spec["name"])


def link_word(link: Link) -> str:
    """A shaped link as a text: bytes a second, round trip, jitter."""
    times = (float(link.rtt), float(link.jitter))
    return f"{float(link.bandwidth or 0.0):.0f}B/s," + ",".join(f"{time * 1e6:g}us" for time in times)


def limit_ms(plan: Plan) -> int | None:
    """The greatest blackout that the policy allows, in whole milliseconds; `None` if it goes by something else."""
    found = [getattr(plan.policy, name) for name in LIMITS if name in {knob.name for knob in plan.policy.knobs}]
    seconds = [value for value in found if isinstance(value, int | float)]
    return max(1, math.ceil(1000 * seconds[0])) if seconds else None


def _post_copy(plan: Plan) -> bool:
    allowed = getattr(plan.policy, "allow_post_copy", False) if _has(plan, "allow_post_copy") else False
    return plan.strategy.name in ("post-copy", "hybrid") or bool(allowed)


def _has(plan: Plan, knob: str) -> bool:
    return knob in {known.name for known in plan.policy.knobs}


def _auto_converge(plan: Plan) -> bool:
    return plan.policy.name == "qemu-auto-converge" or (_has(plan, "auto_converge") and bool(plan.policy.auto_converge))


def _percent(share: float) -> int:
    return round(100 * share)


def qmp(plan: Plan) -> str:
    """Two commands of QEMU's monitor; each on a line."""
    policy, capabilities, parameters = plan.policy, {}, {}
    if (limit := limit_ms(plan)) is not None:
        parameters["downtime-limit"] = min(limit, 2_000_000)
    if plan.link.bandwidth is not None:
        parameters["max-bandwidth"] = int(plan.link.bandwidth)
    if _post_copy(plan):
        capabilities["postcopy-ram"] = True
    if policy.name == "qemu-auto-converge":
        capabilities["auto-converge"] = True
        parameters |= {
            "throttle-trigger-threshold": _percent(policy.trigger),
            "cpu-throttle-initial": _percent(policy.initial),
            "cpu-throttle-increment": _percent(policy.increment),
            "max-cpu-throttle": _percent(policy.most),
            "cpu-throttle-tailslow": bool(policy.tail_slow),
        }
    if policy.name == "qemu-dirty-limit":
        capabilities["dirty-limit"] = True
        parameters |= {"vcpu-dirty-limit": max(1, round(policy.quota / MIB))}
    if policy.name == "qemu-avail-bandwidth" and policy.bandwidth:
        parameters["avail-switchover-bandwidth"] = int(policy.bandwidth)
    states = [{"capability": name, "state": state} for name, state in capabilities.items()]
    orders = [{"execute": "migrate-set-capabilities", "arguments": {"capabilities": states}}] if states else []
    orders += [{"execute": "migrate-set-parameters", "arguments": parameters}] if parameters else []
    told = [json.dumps(order) for order in orders]
    # A comment would not be JSON: what is missing stands in the other texts.
    return "\n".join([*told, *([json.dumps({"execute": "migrate-start-postcopy"})] if _post_copy(plan) else [])]) + "\n"


def virsh(plan: Plan) -> str:
    """Commands of libvirt's shell; DOMAIN and URI are yours."""
    policy, words = plan.policy, ["virsh migrate --live"]
    if policy.name == "qemu-auto-converge":
        words.append(
            f"--auto-converge --auto-converge-initial {_percent(policy.initial)} "
            f"--auto-converge-increment {_percent(policy.increment)}"
        )
    elif _auto_converge(plan):
        words.append("--auto-converge")
    if _post_copy(plan):
        words.append("--postcopy --postcopy-after-precopy" if plan.strategy.name == "post-copy" else "--postcopy")
    if policy.name == "libvirt-timeout" and policy.timeout is not None:
        words.append(
            f"--timeout {math.ceil(policy.timeout)} --timeout-{'postcopy' if policy.then == 'postcopy' else 'suspend'}"
        )
    if plan.link.bandwidth is not None:
        words.append(f"--bandwidth {_mib(plan)}")
    limit = limit_ms(plan)
    lines = [f"{' '.join(words)} DOMAIN URI", *([f"virsh migrate-setmaxdowntime DOMAIN {limit}"] if limit else [])]
    return (
        "\n".join(
            [
                *_unsaid(
                    plan,
                    "limit",
                    {"qemu-auto-converge": ("initial", "increment"), "libvirt-timeout": ("timeout", "then")},
                ),
                *lines,
            ]
        )
        + "\n"
    )


def _mib(plan: Plan) -> int:
    return max(1, round(float(plan.link.bandwidth or 0.0) / MIB))


def _unsaid(plan: Plan, limit: str, said: Mapping[str, Iterable[str]]) -> list[str]:
    """A comment with the knobs that were set and that this manager has no word for."""
    known = {*said.get(plan.policy.name, ()), limit, *LIMITS, "auto_converge", "allow_post_copy"}
    knobs = {knob.name: knob for knob in plan.policy.knobs}
    left = [f"{n}={knobs[n].show(v)}" for n, v in plan.policy.spec().items() if n != "name" and n not in known]
    rule = [] if plan.policy.name in said or not left else [f"of policy {plan.policy.name}"]
    return (
        [f"# not expressed here {' '.join(rule)}: {', '.join(left)}".replace("  ", " ").replace(" :", ":")]
        if left
        else []
    )


STALL: dict[str, tuple[str, Callable[[Any], str]]] = {
    "margin": ("stallMargin", lambda value: str(_percent(value))),
    "alpha": ("ewmaAlpha", lambda value: f'"{value:g}"'),
    "precopy_possible_factor": ("precopyPossibleFactor", lambda value: f'"{value:g}"'),
    "decay": ("patienceWindowDecayFactor", lambda value: f'"{value:g}"'),
    "completion_factor": ("completionTimeoutFactor", lambda value: f'"{value:g}"'),
    "search_local_minima": ("searchLocalMinima", lambda value: str(bool(value)).lower()),
}
"""Knobs of `kubevirt-stall` in `experimental.stallDetector`."""


def kubevirt(plan: Plan, kind: str) -> str:
    """YAML: a policy for chosen workloads, or the cluster's defaults."""
    fields = _kubevirt_fields(plan, cluster=kind == "KubeVirt")
    said: dict[str, tuple[str, ...]] = {
        "kubevirt-stall": (*STALL, "progress_timeout", "completion_timeout", "allow_disruption")
    }
    for name in ("kubevirt-legacy", "kubevirt-downtime"):
        said[name] = ("progress_timeout", "completion_timeout")
    notes = _unsaid(plan, "", said)
    if plan.policy.name not in said and limit_ms(plan) is not None:
        notes.append("# KubeVirt leaves the limit on the blackout to QEMU: 300 ms")
    if kind == "MigrationPolicy":
        head = [
            "apiVersion: migrations.kubevirt.io/v1alpha1",
            "kind: MigrationPolicy",
            "metadata:",
            "  name: tuned",
            "spec:",
        ]
        body = [f"  {line}" for line in ["selectors:", "  namespaceSelector:", '    migration: "tuned"', *fields]]
    else:
        head = [
            "apiVersion: kubevirt.io/v1",
            "kind: KubeVirt",
            "metadata:",
            "  name: kubevirt",
            "  namespace: kubevirt",
        ]
        head += ["spec:", "  configuration:", "    migrations:"]
        body = [f"      {line}" for line in fields]
    return "\n".join([*notes, *head, *body]) + "\n"


def _kubevirt_fields(plan: Plan, cluster: bool) -> list[str]:
    policy, lines = plan.policy, []
    if plan.link.bandwidth is not None:
        lines.append(f"bandwidthPerMigration: {_mib(plan)}Mi")
    lines.append(f"allowAutoConverge: {str(_auto_converge(plan)).lower()}")
    lines.append(f"allowPostCopy: {str(_post_copy(plan)).lower()}")
    if policy.name.startswith("kubevirt"):
        lines.append(f"completionTimeoutPerGiB: {math.ceil(policy.completion_timeout)}")
        if cluster:
            lines.append(f"progressTimeout: {math.ceil(policy.progress_timeout)}")
    if policy.name == "kubevirt-stall":
        lines.append(f"allowWorkloadDisruption: {str(bool(policy.allow_disruption)).lower()}")
        if cluster:
            lines.append(f"maxDowntimeMs: {limit_ms(plan)}")
        lines += ["experimental: # feature gate MigrationStallDetection", "  stallDetector:"]
        lines += [f"    {field}: {show(getattr(policy, knob))}" for knob, (field, show) in STALL.items()]
    return lines


def ovirt(plan: Plan) -> str:
    """A policy for `engine-config -s MigrationPolicies=...`: add it to the list that is there."""
    limit = limit_ms(plan) or 300
    last: dict[str, Any] = {"action": "postcopy" if _post_copy(plan) else "abort", "params": []}
    steps = [limit // 4, limit // 2, limit]
    items = [
        {"stallingLimit": number, "convergenceItem": {"action": "setDowntime", "params": [str(max(1, step))]}}
        for number, step in enumerate(steps[1:], 1)
    ]
    policy = {
        "id": {"uuid": "00000000-0000-0000-0000-000000000001"},
        "maxMigrations": 1,
        "autoConvergence": _auto_converge(plan),
        "migrationCompression": False,
        "enableGuestEvents": True,
        "name": "Tuned",
        "description": f"{plan.policy!r}: a rising limit up to {units.format_time(limit / 1000)}"[:200],
        "config": {
            "initialItems": [{"action": "setDowntime", "params": [str(max(1, steps[0]))]}],
            "convergenceItems": items,
            "lastItems": [last],
        },
    }
    return json.dumps(policy, indent=2) + "\n"


def nova(plan: Plan) -> str:
    """The section of nova.conf on a compute host."""
    policy, limit = plan.policy, limit_ms(plan)
    # Nova rounds a downtime below 100 ms, fewer than 3 steps and a delay below 3 s up.
    options: dict[str, object] = {} if limit is None else {"live_migration_downtime": max(100, limit)}
    if policy.name == "nova":
        options |= {
            "live_migration_downtime_steps": max(3, int(policy.steps)),
            "live_migration_downtime_delay": max(3, math.ceil(policy.delay)),
            "live_migration_completion_timeout": math.ceil(policy.completion),
            "live_migration_timeout_action": "abort" if policy.then == "abort" else "force_complete",
        }
    if plan.link.bandwidth is not None:
        options["live_migration_bandwidth"] = _mib(plan)
    options["live_migration_permit_auto_converge"] = _auto_converge(plan)
    options["live_migration_permit_post_copy"] = _post_copy(plan)
    notes = _unsaid(plan, "most", {"nova": ("steps", "delay", "completion", "then")})
    return "\n".join([*notes, "[libvirt]", *(f"{name} = {value}" for name, value in options.items())]) + "\n"
