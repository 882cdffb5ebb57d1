"""Policies: when to switch over, throttle, give up. A class for each that the core has.

A policy is any callable `f(round, history) -> Decision`, and so are these. `history` holds the rounds before,
the oldest first. `|` makes the policy of which the first that does more than proceed wins.

    >>> import switchover as sw
    >>> policy = sw.policies.DowntimeLimit("300ms") | sw.policies.MaxRounds(30)
    >>> policy
    AnyOf(policies=[DowntimeLimit(limit='300ms'), MaxRounds(rounds=30)])
    >>> print(policy(sw.Round(index=29, expected_blackout=2.0), []))
    switch over: rounds 30.000000 against 30.000000

A policy in Python; mixing it with the core's makes another:

    >>> def patient(round, history):
    ...     if round.index >= 3 and round.remaining_bytes > history[-1].remaining_bytes:
    ...         return sw.Decision.abort("no longer shrinking")
    ...     return sw.Decision.proceed()
    >>> both = sw.policies.any_of(sw.policies.DowntimeLimit("300ms"), patient)
    >>> both(sw.Round(), []).kind
    'switch_over'
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from switchover import _native
from switchover.decision import Decision
from switchover.errors import PolicyError, UsageError
from switchover.part import Part, Registry
from switchover.round import Round

Judge: TypeAlias = Callable[[Round, list[Round]], Decision]
"""A policy: a part of the core, or any callable of yours."""


class Policy(Part):
    """A policy of the core. As a callable it remembers the rounds of one run; a new run is begun by round 0."""

    kind = "policy"

    def __init__(self, *args: object, **given: object) -> None:
        super().__init__(*args, **given)
        self._asked: _native.Policy | None = None
        self._shown = 0

    def __call__(self, round: Round, history: Sequence[Round]) -> Decision:
        """What to do after `round`."""
        if self._asked is None or round.index == 0 or self._shown > len(history):
            self._asked, self._shown = _native.Policy(json.dumps(self.spec())), 0
        earlier = [seen.to_json() for seen in history[self._shown :]]
        self._shown = len(history)
        return Decision.from_dict(json.loads(self._asked.decide(round.to_json(), earlier)))

    def __or__(self, other: Judge) -> Judge:
        return any_of(self, other)

    def __ror__(self, other: Judge) -> Judge:
        return any_of(other, self)

    def __getstate__(self) -> dict[str, Any]:
        return {"_given": self._given, "_asked": None, "_shown": 0}

    def __repr__(self) -> str:
        if self.name != "any-of":
            return super().__repr__()
        return f"AnyOf(policies={[registry.of(spec) for spec in self._given.get('policies', [])]!r})"


class First:
    """The first of some policies that does more than proceed. Of two that fire at once, the earlier."""

    def __init__(self, policies: Sequence[Judge]) -> None:
        self.policies = tuple(policies)

    def __call__(self, round: Round, history: list[Round]) -> Decision:
        """What to do after `round`. All are asked, since each may keep count."""
        decisions = [policy(round, history) for policy in self.policies]
        return next((decision for decision in decisions if decision.fires), Decision.proceed())

    def __or__(self, other: Judge) -> Judge:
        return any_of(*self.policies, other)

    def __ror__(self, other: Judge) -> Judge:
        return any_of(other, *self.policies)

    def __repr__(self) -> str:
        return " | ".join(label(policy) for policy in self.policies)


def any_of(*policies: Judge) -> Judge:
    """The policy that does what the first of `policies` does that fires."""
    if not all(isinstance(policy, Policy) for policy in policies):
        return First(policies)
    specs = [spec_of(policy) for policy in policies]
    flat = [inner for spec in specs for inner in (spec["policies"] if spec["name"] == "any-of" else [spec])]
    return registry.get("any-of", policies=flat)


class Adapter:
    """A Python policy as the core calls it: JSON in, JSON out, with the history kept here."""

    def __init__(self, policy: Judge) -> None:
        self._policy = policy
        self._history: list[Round] = []

    def __call__(self, text: str) -> str:
        """Asks the policy."""
        seen = Round.from_json(text)
        decision = self._policy(seen, list(self._history))
        self._history.append(seen)
        if not isinstance(decision, Decision):
            raise PolicyError(f"the policy {label(self._policy)} returned {decision!r}, which is no Decision")
        return decision.to_json()


def to_native(policy: Judge) -> str | Adapter:
    """A policy as the core takes it."""
    return json.dumps(policy.spec()) if isinstance(policy, Policy) else Adapter(policy)


def label(policy: object) -> str:
    """A policy's name for reports and charts."""
    if isinstance(policy, Part | First):
        return repr(policy)
    return str(getattr(policy, "__qualname__", None) or type(policy).__qualname__)


def spec_of(policy: Judge) -> dict[str, Any]:
    """What a report says of a policy."""
    return policy.spec() if isinstance(policy, Policy) else {"name": label(policy), "language": "python"}


def of(given: object) -> Judge:
    """A policy out of what users may give: a callable, a class, a text such as `downtime-limit:300ms`."""
    if callable(given) and not isinstance(given, type):
        found: Judge = given
        return found
    if given is None:
        raise UsageError(f"a policy was expected, not None; there are: {', '.join(registry.names())}")
    return registry.of(given)


registry = Registry("policy", Policy, __name__)
get = registry.get
parse = registry.parse
names = registry.names
describe = registry.describe
__all__ = ["First", "Policy", "any_of", "describe", "get", "names", "of", "parse", *registry.classes()]

if TYPE_CHECKING:
    from switchover._classes.policies import *
else:
    __getattr__ = registry.attribute
