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

A class with a method `sample(sample) -> Decision | None` is asked inside rounds too: when round 0 begins and every
100 ms from then on (see [`Sample`][switchover.sample.Sample]). Decisions are acted upon at once.

    >>> class Deadline:
    ...     def __call__(self, round, history):
    ...         return sw.Decision.proceed()
    ...     def sample(self, sample):
    ...         return sw.Decision.switchover("a minute is over") if sample.elapsed > 60 else None
    >>> (Deadline() | sw.policies.DowntimeLimit("300ms")).sample(sw.Sample(elapsed=61)).kind
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
from switchover.sample import Sample

Judge: TypeAlias = Callable[[Round, list[Round]], Decision]
"""A policy: a part of the core, or any callable of yours."""


class Policy(Part):
    """A policy of the core. As a callable it remembers the rounds of one run; a new run is begun by round 0."""

    kind = "policy"

    def __init__(self, *args: object, **given: object) -> None:
        super().__init__(*args, **given)
        self._asked: _native.Policy | None = None
        self._shown = 0
        self._decided = False

    def __call__(self, round: Round, history: Sequence[Round]) -> Decision:
        """What to do after `round`."""
        asked = self._asked
        if asked is None or self._shown > len(history) or (round.index == 0 and self._decided):
            asked = self._begin()
        earlier = [seen.to_json() for seen in history[self._shown :]]
        self._shown, self._decided = len(history), True
        return Decision.from_dict(json.loads(asked.decide(round.to_json(), earlier)))

    def sample(self, sample: Sample) -> Decision | None:
        """What to do in the middle of a round, if anything. A new run is begun by a sample at its very start."""
        asked = self._asked
        if asked is None or (sample.round == 0 and sample.sent_bytes == 0):
            asked = self._begin()
        return _decision(asked.sample(sample.to_json()))

    def _begin(self) -> _native.Policy:
        self._asked, self._shown, self._decided = _native.Policy(json.dumps(self.spec())), 0, False
        return self._asked

    def __or__(self, other: Judge) -> Judge:
        return any_of(self, other)

    def __ror__(self, other: Judge) -> Judge:
        return any_of(other, self)

    def __getstate__(self) -> dict[str, Any]:
        return {"_given": self._given, "_asked": None, "_shown": 0, "_decided": False}

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

    def sample(self, sample: Sample) -> Decision | None:
        """What to do in the middle of a round: all that take samples are asked."""
        samplers = [sampler for policy in self.policies if (sampler := sampler_of(policy)) is not None]
        decisions = [sampler(sample) for sampler in samplers]
        return next((decision for decision in decisions if decision is not None and decision.fires), None)

    def __or__(self, other: Judge) -> Judge:
        return any_of(*self.policies, other)

    def __ror__(self, other: Judge) -> Judge:
        return any_of(other, *self.policies)

    def __repr__(self) -> str:
        return " | ".join(label(policy) for policy in self.policies)


def any_of(*policies: Judge) -> Judge:
    """The policy that does what the first of `policies` does that fires; of a single one, that one."""
    if len(policies) == 1:
        return policies[0]
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
        self._sampler = sampler_of(policy)
        self.samples = self._sampler is not None

    def __call__(self, text: str) -> str:
        """Asks the policy."""
        seen = Round.from_json(text)
        decision = self._policy(seen, list(self._history))
        self._history.append(seen)
        return self._checked(decision).to_json()

    def sample(self, text: str) -> str | None:
        """Shows the policy how the copy stands, if it wants to know."""
        decision = None if self._sampler is None else self._sampler(Sample.from_json(text))
        return None if decision is None else self._checked(decision).to_json()

    def _checked(self, decision: object) -> Decision:
        if not isinstance(decision, Decision):
            raise PolicyError(f"the policy {label(self._policy)} returned {decision!r}, which is no Decision")
        return decision


def _decision(text: str | None) -> Decision | None:
    return None if text is None else Decision.from_dict(json.loads(text))


def sampler_of(policy: Judge) -> Callable[[Sample], Decision | None] | None:
    """A policy's method `sample`, if it has one."""
    sampler: Callable[[Sample], Decision | None] | None = getattr(policy, "sample", None)
    return sampler if callable(sampler) else None


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
