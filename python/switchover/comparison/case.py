"""Cases: one way to migrate one guest in one world."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from switchover import policies, strategies
from switchover.comparison import vms
from switchover.comparison.source import Source, code_of, digest
from switchover.errors import UsageError
from switchover.link import Link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

WORLDS = ("memory", "sim", "qemu")


@dataclass(frozen=True)
class Case:
    """What is run again and again.

    Attributes:
        names: Of guest, strategy, policy, link and world, as tables show them.
        source: Makes the guest.
        strategy: How memory moves, codec included.
        policy: Asked at each round's end.
        link: The link.
        world: `memory`, `sim` or `qemu`.
        options: What else shapes a run, such as its warm-up.
    """

    names: Mapping[str, str]
    source: Source
    strategy: strategies.Strategy
    policy: policies.Judge
    link: Link
    world: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def spec(self) -> dict[str, Any]:
        """All that a run depends on, as JSON has it."""
        policy = policies.spec_of(self.policy)
        if policy.get("language") == "python":
            policy = {**policy, "code": code_of(self.policy)}
        return {
            "guest": self.source.spec,
            "strategy": self.strategy.spec(),
            "codec": self.strategy.codec.spec(),
            "policy": policy,
            "link": self.link.spec(),
            "world": self.world,
            "options": dict(self.options),
        }

    @property
    def key(self) -> str:
        """The same for the same spec: by it a run is found again in a folder."""
        return digest(json.dumps(self.spec, sort_keys=True).encode())


def cases(
    guests: Sequence[Source],
    moves: Mapping[str, strategies.Strategy],
    rules: Mapping[str, policies.Judge],
    links: Mapping[str, Link],
    *,
    worlds: Sequence[str],
    options: Mapping[str, Mapping[str, Any]],
) -> list[Case]:
    """All combinations that there are: a trace runs in the simulator only, a codec there where content was sampled."""
    wrong = [world for world in worlds if world not in WORLDS]
    if wrong or not worlds:
        raise UsageError(f"worlds must be some of {', '.join(WORLDS)}, not {wrong or list(worlds)!r}")
    refused = vms.refused(moves, rules, options["qemu"]["binary"]) if "qemu" in worlds else {}
    found = [
        Case(
            {"guest": source.name, "strategy": move, "policy": rule, "link": link, "world": world},
            source,
            moves[move],
            rules[rule],
            links[link],
            world,
            options.get(world, {}),
        )
        for world, source, link, move, rule in itertools.product(worlds, guests, links, moves, rules)
        if world in source.worlds
        and (world != "sim" or source.simulates(moves[move].codec))
        and (world != "qemu" or (move, rule) not in refused)
    ]
    if not found and "qemu" not in worlds:
        raise UsageError(
            "nothing is left to compare: a trace is not memory, and one without samples of content knows raw and zero"
        )
    if "qemu" in worlds and not any(case.world == "qemu" for case in found):
        reasons = [*(source.unfit for source in guests), *refused.values()]
        raise UsageError(f"nothing is left to compare in QEMU: {'; '.join(dict.fromkeys(filter(None, reasons)))}")
    return found


def named(given: object, of: Callable[[Any], Any], what: str, label: Callable[[Any], str] = repr) -> dict[str, Any]:
    """Parts by name, out of one, a list or a dict of them; a text is its own name."""
    if isinstance(given, Mapping):
        return {str(name): of(one) for name, one in given.items()}
    single = isinstance(given, str | Link) or callable(given) or not isinstance(given, Sequence)
    listed: Iterable[Any] = [given] if single else given  # type: ignore[assignment]
    found = {one if isinstance(one, str) else label(of(one)): of(one) for one in listed}
    if not found:
        raise UsageError(f"{what}: at least one is needed")
    return found


def with_codecs(moves: Mapping[str, strategies.Strategy], codecs: Sequence[str]) -> dict[str, strategies.Strategy]:
    """Each strategy with each codec; as it is, if no codecs are given."""
    if not codecs:
        return dict(moves)
    return {f"{name} {codec}": move.replace(codec=codec) for name, move in moves.items() for codec in codecs}
