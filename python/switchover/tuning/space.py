"""What is searched: ranges and choices of knobs, and the plans that they make."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from switchover import codecs, policies, strategies, units
from switchover.errors import UsageError
from switchover.link import Link

if TYPE_CHECKING:
    from collections.abc import Mapping

    from switchover.part import Knob, Part

LINK = {"bandwidth": units.parse_rate, "rtt": units.parse_time, "jitter": units.parse_time}
"""What of a link can be searched."""


@dataclass(frozen=True)
class Range:
    """From a least to a greatest value, evenly or, with `log`, evenly by order of magnitude.

    >>> Range("50ms", "2s", log=True)
    Range(low='50ms', high='2s', log=True)
    """

    low: float | str
    high: float | str
    log: bool = False


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Plan:
    """A candidate as it is run."""

    strategy: strategies.Strategy
    policy: policies.Policy
    link: Link

    def __str__(self) -> str:
        return f"{self.strategy!r} under {self.policy!r} over {self.link!r}"


@dataclass(frozen=True)
class Axis:
    """One thing that is searched: `low` to `high` in SI units, or one of `values`."""

    name: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    whole: bool = False
    values: tuple[Any, ...] = ()

    def suggest(self, trial: Any) -> Any:
        """A value that Optuna picks."""
        if self.values:
            return trial.suggest_categorical(self.name, self.values)
        if self.whole:
            return trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)

    def settled(self, value: Any) -> Any:
        """The value as it is used: three digits say all that a simulation can tell apart."""
        if self.values or self.whole or not isinstance(value, float):
            return value
        return min(max(float(f"{value:.3g}"), self.low), self.high)

    def at(self, share: float) -> Any:
        """The value so far along.

        >>> round(Axis("x", 0.1, 10.0, log=True).at(0.5), 6), Axis("y", values=("a", "b")).at(1.0)
        (1.0, 'b')
        """
        if self.values:
            return self.values[min(int(share * len(self.values)), len(self.values) - 1)]
        if self.log:
            value = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + share * (self.high - self.low)
        return round(value) if self.whole else value

    @property
    def is_continuous(self) -> bool:
        """Whether it is a range of numbers that need not be whole."""
        return not self.values and not self.whole and self.low < self.high

    def share(self, value: float) -> float:
        """How far along a value is: what `at` turns back.

        >>> round(Axis("x", 0.1, 10.0, log=True).share(1.0), 6)
        0.5
        """
        low, high, at = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        return (at - low) / (high - low)

    def holds(self, value: Any) -> bool:
        """Whether a value is on it."""
        return value in self.values if self.values else value is not None and self.low <= value <= self.high


class Space:
    """A search space around a plan.

    Args:
        given: By name: `policy.KNOB`, `strategy.KNOB`, `link.bandwidth`, `link.rtt`, `link.jitter`, or `policy` and
            `strategy` themselves, or `codec`. A `Range`, a pair of ends, a `Choice`, a list of values, or a text:
            `50ms..2s`, `50ms..2s:log`, `early,late`. Where several policies are tried, a knob is that of those that
            have it.
        plan: What is not searched.

    Examples:
        >>> plan = Plan(strategies.get("pre-copy"), policies.get("downtime-limit"), Link("1Gbit/s"))
        >>> Space({"policy.limit": "50ms..2s:log", "strategy.clear": ["early", "late"]}, plan).axes[0]
        Axis(name='policy.limit', low=0.05, high=2.0, log=True, whole=False, values=())
    """

    def __init__(self, given: Mapping[str, object], plan: Plan) -> None:
        if not given:
            raise UsageError('the space is empty: name what to search, such as "policy.limit": ("50ms", "2s")')
        self.plan = plan
        self._tried: dict[str, list[Part]] = {"policy": [plan.policy], "strategy": [plan.strategy]}
        registries: dict[str, Any] = {"policy": policies.registry, "strategy": strategies.registry}
        for kind in registries.keys() & given.keys():
            self._tried[kind] = [registries[kind].of(text) for text in _values(given[kind])]
        self.axes = [self._axis(name, what) for name, what in given.items()]

    def _axis(self, name: str, what: object) -> Axis:
        kind, _, knob = name.partition(".")
        if name in self._tried:
            return Axis(name, values=tuple(_values(what)))
        if name == "codec":
            return Axis(name, values=tuple(_codec(value) for value in _values(what)))
        if kind == "link" and knob in LINK:
            return _axis(name, what, lambda value: LINK[knob](value, name))
        known = self._knobs(kind)
        if knob not in known:
            names = [f"{part}.{one}" for part in self._tried for one in self._knobs(part)]
            choices = [*self._tried, "codec", *names, *(f"link.{one}" for one in LINK)]
            raise UsageError(f"{name!r} cannot be searched; there are: {', '.join(choices)}")
        found = known[knob]
        axis = _axis(name, what, lambda value: found.parse(value, name), whole=found.unit == "count")
        if not axis.values and found.range and not found.range[0] <= axis.low <= axis.high <= found.range[1]:
            ends = " to ".join(found.show(end) for end in found.range)
            raise UsageError(f"{name}: its range lies within {ends}, not {what!r}")
        return axis

    def _knobs(self, kind: str) -> dict[str, Knob]:
        return {knob.name: knob for part in self._tried.get(kind, []) for knob in part.knobs}

    def make(self, values: Mapping[str, Any]) -> Plan:
        """The plan with these values."""
        policy = policies.registry.of(values.get("policy", self.plan.policy))
        strategy = strategies.registry.of(values.get("strategy", self.plan.strategy))
        if "codec" in values:
            strategy = strategy.replace(codec=values["codec"])
        link = {name.partition(".")[2]: value for name, value in values.items() if name.startswith("link.")}
        return Plan(
            _changed(strategy, "strategy", values),
            _changed(policy, "policy", values),
            dataclasses.replace(self.plan.link, **link),
        )

    def settled(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """A point as it is used, out of Optuna's."""
        return {axis.name: axis.settled(values[axis.name]) for axis in self.axes}

    def start(self) -> dict[str, Any] | None:
        """The plan itself as a point of the space; `None` if it lies outside."""
        found = {axis.name: self._value(axis.name) for axis in self.axes}
        return found if all(axis.holds(found[axis.name]) for axis in self.axes) else None

    def _value(self, name: str) -> Any:
        kind, _, knob = name.partition(".")
        if knob:
            return getattr(getattr(self.plan, kind), knob, None)
        axis = next(axis for axis in self.axes if axis.name == name)
        part = self.plan.strategy.codec if kind == "codec" else getattr(self.plan, kind)
        tried = [codecs.registry.of(text) for text in axis.values] if kind == "codec" else self._tried[kind]
        return next((text for text, one in zip(axis.values, tried, strict=True) if one == part), None)


def _codec(text: str) -> str:
    codecs.registry.of(text)
    return text


def _changed(part: Any, kind: str, values: Mapping[str, Any]) -> Any:
    known = {f"{kind}.{knob.name}": knob.name for knob in part.knobs}
    knobs = {known[name]: value for name, value in values.items() if name in known}
    return part.replace(**knobs) if knobs else part


def _values(what: object) -> list[Any]:
    if isinstance(what, Choice):
        return list(what.values)
    if isinstance(what, str):
        return [text.strip() for text in what.split(",")]
    if isinstance(what, list):
        return what
    raise UsageError(f"a list of choices was expected, not {what!r}")


def _axis(name: str, what: object, parse: Any, whole: bool = False) -> Axis:
    if isinstance(what, str) and ".." in what:
        ends, _, scale = what.partition(":")
        if scale not in ("", "log"):
            raise UsageError(f"{name}: a range is LOW..HIGH or LOW..HIGH:log, not {what!r}")
        low, _, high = ends.partition("..")
        what = Range(low, high, log=scale == "log")
    if isinstance(what, tuple) and len(what) == 2:
        what = Range(*what)
    if not isinstance(what, Range):
        return Axis(name, values=tuple(parse(value) for value in _values(what)))
    low, high = parse(what.low), parse(what.high)
    if not isinstance(low, int | float) or isinstance(low, bool) or low >= high or (what.log and low <= 0):
        raise UsageError(f"{name}: a range goes from a lower to a higher number, by log from above 0; not {what!r}")
    return Axis(name, low, high, what.log, whole)
