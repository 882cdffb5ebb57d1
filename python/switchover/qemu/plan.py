"""From a strategy and features to capabilities and parameters of both QEMUs, or to the reason why not.

All that can be found out without touching the VM is found out here: nothing has been set when a plan is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from switchover import policies, strategies
from switchover.errors import UsageError
from switchover.part import Part

if TYPE_CHECKING:
    from switchover.qemu.abilities import Abilities
    from switchover.qemu.features import Features

SCHEMES = ("tcp", "unix", "vsock", "fd", "exec", "rdma", "file")
# What QEMU switches over at by itself while a policy of ours is in charge. 0 would have it switch over after the first
# pass whatever was written meanwhile: it then completes without looking at the dirty bitmap again.
HELD_MS = 1
# The most that QEMU takes: whatever remains is sent with the guest stopped.
AT_ONCE_MS = 2_000_000
# Throttling can be turned up only where it was switched on before the start; until asked for it is kept at this.
LEAST_THROTTLE = 1
PRE_COPY, STOP_AND_COPY, POST_COPY, HYBRID = "pre-copy", "stop-and-copy", "post-copy", "hybrid"
_KNOWN = (PRE_COPY, STOP_AND_COPY, POST_COPY, HYBRID)
_MAY_THROTTLE = ("qemu-auto-converge", "cloud-hypervisor-throttle", "ovirt-")
_ROUNDS = 3


@dataclass
class Settings:
    """Capabilities and parameters to be set on one QEMU."""

    capabilities: dict[str, bool] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass
class Plan:
    """What is set on which side, and what happens when.

    Attributes:
        strategy: Its name and knobs.
        rounds: Post-copy begins after so many rounds whatever the policy says; `None` if not by itself.
        post_copy: Whether it can go post-copy.
        throttles: Whether vCPUs can be throttled on the way.
        held: Whether QEMU is kept from switching over by itself.
    """

    strategy: dict[str, Any]
    source: Settings
    destination: Settings
    rounds: int | None = None
    post_copy: bool = False
    throttles: bool = False
    held: bool = False


def scheme_of(uri: str) -> str:
    """The kind of an address for the stream; empty if it is none."""
    head, mark, _ = uri.partition(":")
    return head if mark and head in SCHEMES else ""


def parse_strategy(given: object) -> tuple[str, dict[str, Any]]:
    """The name and the knobs that were set, of a strategy, its class, its text or its spec."""
    part = strategies.registry.of(given)
    spec = part.spec()
    if part._named:
        spec["codec"] = part.codec.name
    return str(spec.pop("name")), spec


def may_throttle(policy: object) -> bool:
    """Whether a policy may ask for throttling; a callable may, unless its attribute `may_throttle` says no."""
    if policy is None:
        return False
    if isinstance(policy, policies.First):
        return any(may_throttle(part) for part in policy.policies)
    if not isinstance(policy, Part):
        return bool(getattr(policy, "may_throttle", True))
    names = [policy.name] + [part["name"] for part in policy.spec().get("policies", [])]
    return any(name.startswith(_MAY_THROTTLE) for name in names)


def make(
    strategy: object,
    features: Features,
    policy: object,
    uri: str,
    *,
    source: Abilities,
    destination: Abilities | None = None,
) -> Plan:
    """The plan.

    Raises:
        UsageError: QEMU cannot do it, with the reason.
    """
    name, knobs = parse_strategy(strategy)
    if name not in _KNOWN:
        raise UsageError(f"QEMU has no strategy {name}; it has {', '.join(_KNOWN)}")
    plan = Plan({"name": name, **knobs}, Settings(), Settings(), held=policy is not None)
    _Maker(plan, features, scheme_of(uri), source, destination).make(policy)
    return plan


class _Maker:
    """Fills in a plan."""

    def __init__(
        self, plan: Plan, features: Features, scheme: str, source: Abilities, destination: Abilities | None
    ) -> None:
        self.plan, self.features, self.scheme = plan, features, scheme
        self.sides = [("source", source, plan.source), ("destination", destination, plan.destination)]
        self.to_peer = scheme in ("tcp", "unix", "vsock", "rdma")
        self.given = source

    def make(self, policy: object) -> None:
        self._transport()
        self._strategy()
        self._encoding()
        self._channels()
        self._tls()
        self._limits()
        self._others()
        self._policy(policy)
        # Without it QEMU says nothing on the way.
        self._both("events")
        if self.features.return_path and self.to_peer:
            self._here("return-path")

    def _has(self, name: str, abilities: Abilities | None, what: str, kind: str = "capability") -> bool:
        """Whether that side has it; refused if it has not."""
        if abilities is None:
            return False
        listed = abilities.capabilities if kind == "capability" else abilities.parameters
        if name not in listed:
            raise UsageError(f"the {what} (QEMU {abilities.version}) has no {kind} {name}")
        return True

    def _on(self, name: str, value: bool, sides: list[Any]) -> None:
        for what, abilities, settings in sides:
            if self._has(name, abilities, what):
                settings.capabilities[name] = value

    def _both(self, name: str, value: bool = True) -> None:
        self._on(name, value, self.sides)

    def _here(self, name: str, value: bool = True) -> None:
        self._on(name, value, self.sides[:1])

    def _set(self, name: str, value: Any, *, both: bool = False) -> None:
        for what, abilities, settings in self.sides if both else self.sides[:1]:
            if abilities is not None and self._has(name, abilities, what, "parameter"):
                self._check_choice(name, value, what, abilities)
                settings.parameters[name] = value

    def _check_choice(self, name: str, value: Any, what: str, abilities: Abilities) -> None:
        if not isinstance(value, str):
            return
        choices = abilities.choices("migrate-set-parameters", name)
        if choices and value not in choices:
            raise UsageError(
                f"the {what} (QEMU {abilities.version}) has no {name} {value}; it has {', '.join(choices)}"
            )

    def _transport(self) -> None:
        if not self.scheme:
            raise UsageError(f"where to? An address begins with one of {', '.join(f'{each}:' for each in SCHEMES)}")
        for what, abilities, _ in self.sides:
            if self.scheme == "file" and abilities is not None and "file" not in abilities.transports():
                raise UsageError(
                    f"the {what} (QEMU {abilities.version}) writes no files by itself; "
                    "use exec:'cat >FILE', or QEMU 8.2 or later"
                )

    def _strategy(self) -> None:
        name, knobs = self.plan.strategy["name"], dict(self.plan.strategy)
        knobs.pop("name")
        knobs.pop("codec", None)
        if name == HYBRID:
            self.plan.rounds = int(knobs.pop("rounds", _ROUNDS))
        if knobs:
            raise UsageError(f"{name}: QEMU has its own {', '.join(sorted(knobs))}, which cannot be chosen")
        if name in (POST_COPY, HYBRID):
            self._post_copy(name)
        elif self.features.preempt:
            raise UsageError("preempt is for post-copy; use the strategy post-copy or hybrid")
        if name == STOP_AND_COPY:
            self.plan.source.parameters["downtime-limit"] = AT_ONCE_MS
            self.plan.held = False

    def _post_copy(self, name: str) -> None:
        if not self.to_peer:
            raise UsageError(f"{name} needs a destination that answers, which {self.scheme}: has not")
        if self.features.mapped_ram:
            raise UsageError(f"{name} and mapped_ram exclude each other")
        self.plan.post_copy = True
        self.plan.rounds = 0 if name == POST_COPY else self.plan.rounds
        self._both("postcopy-ram")
        if self.features.preempt:
            self._both("postcopy-preempt")

    def _encoding(self) -> None:
        codec = self.plan.strategy.get("codec")
        xbzrle, zeros = self.features.xbzrle or codec == "xbzrle", self.features.zero_pages
        if codec not in (None, "raw", "zero", "xbzrle"):
            hint = ": set multifd and compression" if codec in ("zlib", "zstd") else ""
            raise UsageError(f"QEMU's pages cannot be encoded by {codec}{hint}")
        if codec == "raw" and zeros is None:
            zeros = "none"
        if xbzrle:
            self._xbzrle()
        if zeros is not None:
            self._set("zero-page-detection", zeros)

    def _xbzrle(self) -> None:
        if self.features.multifd or self.features.mapped_ram:
            raise UsageError("xbzrle goes with neither multifd nor mapped_ram")
        self._both("xbzrle")
        size = self.features.xbzrle
        if isinstance(size, bool) or not size:
            return
        if int(size) & (int(size) - 1):
            raise UsageError(f"xbzrle: the cache must be a power of two of bytes, not {int(size)}")
        self._set("xbzrle-cache-size", int(size))

    def _channels(self) -> None:
        given = self.features
        if given.mapped_ram:
            if self.scheme not in ("file", "fd"):
                raise UsageError(f"mapped_ram is for files; {self.scheme}: is none")
            self._both("mapped-ram")
        if not given.multifd:
            for name in ("compression", "compression_level", "zero_copy", "direct_io"):
                if getattr(given, name):
                    raise UsageError(f"{name} needs multifd: set multifd=2 or more")
            return
        self._both("multifd")
        self._set("multifd-channels", given.multifd, both=True)
        if given.compression is not None:
            self._set("multifd-compression", given.compression, both=True)
        if given.compression_level is not None:
            if given.compression is None:
                raise UsageError("compression_level needs compression")
            self._set(f"multifd-{given.compression}-level", given.compression_level)
        if given.zero_copy:
            self._here("zero-copy-send")
        if given.direct_io:
            self._set("direct-io", True, both=True)

    def _tls(self) -> None:
        given = self.features
        if given.tls is None:
            return
        self._set("tls-creds", given.tls)
        if given.tls_hostname is not None:
            self._set("tls-hostname", given.tls_hostname)
        what, abilities, settings = self.sides[1]
        if self._has("tls-creds", abilities, what, "parameter"):
            settings.parameters["tls-creds"] = given.tls_there or given.tls

    def _limits(self) -> None:
        given = self.features
        if given.bandwidth is not None:
            self._set("max-bandwidth", int(given.bandwidth))
        if given.postcopy_bandwidth is not None:
            self._set("max-postcopy-bandwidth", int(given.postcopy_bandwidth))
        if given.switchover_bandwidth is not None:
            self._set("avail-switchover-bandwidth", int(given.switchover_bandwidth))
        if given.downtime_limit is not None:
            if self.plan.held:
                raise UsageError("downtime_limit is for QEMU's own rule; with a policy, the policy decides")
            self._set("downtime-limit", max(1, round(1000 * float(given.downtime_limit))))
        if given.auto_converge:
            self._here("auto-converge")
        if given.dirty_limit is not None:
            self._here("dirty-limit")
            self._set("vcpu-dirty-limit", max(1, round(float(given.dirty_limit) / (1 << 20))))

    def _others(self) -> None:
        for name, state in self.features.capabilities.items():
            self._both(name, state)
        for name, value in self.features.parameters.items():
            self._set(name, value, both=name.startswith(("multifd-", "tls-")))

    def _policy(self, policy: object) -> None:
        if policy is None or not self.plan.held:
            return
        self._refuse(policy)
        self._set("downtime-limit", HELD_MS)
        if not may_throttle(policy):
            return
        if self.features.auto_converge or self.features.dirty_limit is not None:
            raise UsageError("QEMU's own throttling and a policy that may throttle exclude each other")
        self.plan.throttles = True
        self._here("auto-converge")
        for name, value in throttle_settings(LEAST_THROTTLE).items():
            self._set(name, value)

    def _refuse(self, policy: object) -> None:
        """Core policies whose acts QEMU does not have."""
        if not isinstance(policy, Part):
            return
        names = [policy.name] + [part["name"] for part in policy.spec().get("policies", [])]
        if "vmotion-sdps" in names:
            raise UsageError("vmotion-sdps delays each first write to a page, which QEMU cannot do")
        if "qemu-dirty-limit" in names and not self.given.has_command("set-vcpu-dirty-limit"):
            raise UsageError(
                f"QEMU {self.given.version} has no command set-vcpu-dirty-limit, which {policy.name} needs"
            )


def throttle_settings(percent: float, now: float = 0) -> dict[str, int]:
    """What has QEMU's auto-converge go from `now` to `percent` at its next act, and stay there.

    It acts when more was dirtied than `throttle-trigger-threshold` percent of what was sent; once throttling, it takes
    the lesser of throttle + increment and the greatest allowed, so that it can be turned down too.
    """
    aim = max(LEAST_THROTTLE, min(99, round(percent)))
    return {
        "throttle-trigger-threshold": 1 if aim > LEAST_THROTTLE else 100,
        "cpu-throttle-initial": aim,
        "cpu-throttle-increment": max(1, min(99, aim - round(now))),
        "max-cpu-throttle": aim,
    }
