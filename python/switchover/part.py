"""Parts: the workloads, policies, strategies, codecs and trackers that the core has, as Python classes.

A part's knobs, with units, ranges, defaults and documentation, come from the core's registry, so that a part
that is added there is a class here. The modules `workloads`, `policies` and so on hold the classes.
"""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from switchover import _native, units
from switchover.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Self

P = TypeVar("P", bound="Part")

_PARSERS: dict[str, Callable[[Any, str], object]] = {
    "bytes": units.parse_size,
    "bytes_per_second": units.parse_rate,
    "seconds": units.parse_time,
    "count": units.parse_count,
    "ratio": units.parse_number,
    "flag": units.parse_flag,
}
_FORMATS: dict[str, Callable[[float], str]] = {
    "bytes": units.format_size,
    "bytes_per_second": units.format_rate,
    "seconds": units.format_time,
}


@dataclass(frozen=True)
class Knob:
    """One parameter of a part.

    Attributes:
        name: Keyword in Python and on the command line.
        doc: What it does.
        unit: `bytes`, `bytes_per_second`, `seconds`, `count`, `ratio`, `flag`, `text` or `parts`.
        range: Least and greatest value in that unit, if there are bounds.
        default: In that unit; `None` means that it must be set, or is off.
    """

    name: str
    doc: str
    unit: str
    range: tuple[float, float] | None
    default: Any

    def parse(self, value: object, part: str) -> object:
        """The value in the knob's unit, as JSON."""
        parser = _PARSERS.get(self.unit)
        return plain(value) if parser is None else parser(value, f"{part}: {self.name}")

    def show(self, value: object) -> str:
        """A value for people: with its unit."""
        shown = _FORMATS.get(self.unit)
        if shown is not None and isinstance(value, int | float):
            return shown(value)
        if isinstance(value, float):
            return f"{value:g}"
        return "-" if value is None else str(value)


def plain(value: object) -> object:
    """A value as JSON has it: parts as their specs, sequences as lists."""
    if isinstance(value, Part):
        return value.spec()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


class Part:
    """A named part and the knobs that were set; the others have their defaults."""

    kind: ClassVar[str] = ""
    name: ClassVar[str] = ""
    knobs: ClassVar[tuple[Knob, ...]] = ()

    def __init__(self, *args: object, **given: object) -> None:
        part, names = type(self).__name__, [knob.name for knob in self.knobs]
        if len(args) > 1 or (args and not names):
            raise UsageError(f"{part} takes {min(len(names), 1)} unnamed value; name the others: {', '.join(names)}")
        if args and names[0] in given:
            raise UsageError(f"{part}: {names[0]} was given twice")
        given = dict(zip(names, args, strict=False)) | given
        known = {knob.name: knob for knob in self.knobs}
        self._given: dict[str, Any] = {
            name: known[name].parse(value, part) if name in known else plain(value)
            for name, value in given.items()
            if value is not None
        }
        _native.check(self.kind, json.dumps(self.spec(), default=_refuse))

    @classmethod
    def signature(cls, knobs: tuple[Knob, ...]) -> inspect.Signature:
        """That of a class with these knobs: the first may be given without its name."""
        kinds = [inspect.Parameter.POSITIONAL_OR_KEYWORD] + [inspect.Parameter.KEYWORD_ONLY] * len(knobs)
        return inspect.Signature(
            [inspect.Parameter(k.name, kind, default=k.default) for k, kind in zip(knobs, kinds, strict=False)]
        )

    def replace(self, **given: object) -> Self:
        """The same with some knobs changed.

        >>> from switchover import policies
        >>> policies.MaxRounds(5).replace(then="abort")
        MaxRounds(rounds=5, then='abort')
        """
        return type(self)(**{**self._given, **given})

    def spec(self) -> dict[str, Any]:
        """Name and knobs as JSON has them: `{"name": "zipf", "s": 0.8}`."""
        return {"name": self.name, **self._given}

    def __getattr__(self, name: str) -> Any:
        for knob in self.knobs:
            if knob.name == name:
                return self.__dict__.get("_given", {}).get(name, knob.default)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __repr__(self) -> str:
        known = {knob.name: knob for knob in self.knobs}
        show = [f"{name}={_literal(known[name], value)}" for name, value in self._given.items()]
        return f"{type(self).__name__}({', '.join(show)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Part) and (self.kind, self.spec()) == (other.kind, other.spec())

    def __hash__(self) -> int:
        return hash((self.kind, json.dumps(self.spec(), sort_keys=True)))


def _refuse(value: object) -> None:
    hint = " (policies in Python are combined by `|` or any_of())" if callable(value) else ""
    raise UsageError(f"{value!r} cannot be the value of a knob{hint}")


def _literal(knob: Knob, value: object) -> str:
    shown = knob.show(value).replace(" ", "")
    exact = knob.unit in _FORMATS and knob.parse(shown, "") == value
    return repr(shown if exact else value)


class Registry(Generic[P]):
    """The parts of one kind, as classes made on demand."""

    def __init__(self, kind: str, base: type[P], module: str) -> None:
        self.kind, self._base, self._module = kind, base, module

    def names(self) -> list[str]:
        """Names in the order in which the core has them."""
        return [description["name"] for description in self.describe()]

    def describe(self) -> list[dict[str, Any]]:
        """The parts as JSON: name, doc, knobs with unit, range and default; trackers with availability."""
        described: list[dict[str, Any]] = json.loads(_native.describe(self.kind))
        return described

    def classes(self) -> dict[str, type[P]]:
        """The parts' classes by class name."""
        return _classes(self)

    def attribute(self, name: str) -> type[P]:
        """For a module's `__getattr__`."""
        try:
            return self.classes()[name]
        except KeyError:
            raise AttributeError(f"module {self._module!r} has no attribute {name!r}") from None

    def get(self, name: str, /, **knobs: object) -> P:
        """The part called `name`; an unknown name is a usage error that names the nearest."""
        # Hyphens are for the eye: `precopy` is `pre-copy`.
        found = next((part for part in self if part.name.replace("-", "") == name.replace("-", "").lower()), None)
        if found is None:
            _native.check(self.kind, json.dumps({"name": name}))
            raise UsageError(f"no {self.kind} is called {name!r}")
        return found(**knobs)

    def parse(self, text: str) -> P:
        """A part out of a text as command lines have it: `zipf`, `zipf:rate=200MB/s,s=0.8`.

        A value without a name is that of the first knob: `downtime-limit:300ms`.
        """
        name, _, rest = text.partition(":")
        knobs = self.get(name).knobs
        first = knobs[0].name if knobs else "value"
        pairs = [piece.partition("=") for piece in rest.split(",") if piece]
        return self.get(name, **{key if mark else first: value if mark else key for key, mark, value in pairs})

    def of(self, given: object) -> P:
        """A part out of what users may give: the part, its class, its text or its spec."""
        if isinstance(given, self._base):
            return given
        if isinstance(given, type) and issubclass(given, self._base):
            return given()
        if isinstance(given, str):
            return self.parse(given)
        if isinstance(given, dict) and "name" in given:
            return self.get(given["name"], **{knob: value for knob, value in given.items() if knob != "name"})
        raise UsageError(f"a {self.kind} was expected, not {given!r}; there are: {', '.join(self.names())}")

    def __iter__(self) -> Iterator[type[P]]:
        return iter(self.classes().values())

    def build(self, description: Mapping[str, Any]) -> type[P]:
        """The class for a part that the core describes."""
        knobs = tuple(
            Knob(k["name"], k["doc"], k["unit"], tuple(k["range"]) if k["range"] else None, k["default"])
            for k in description["knobs"]
        )
        members = {"name": description["name"], "knobs": knobs, "__module__": self._module}
        members["__doc__"] = documentation(description["doc"], knobs)
        members["__signature__"] = self._base.signature(knobs)
        return type(class_name(description["name"]), (self._base,), members)


@cache
def _classes(registry: Registry[P]) -> dict[str, type[P]]:
    built = [registry.build(description) for description in registry.describe()]
    return {part.__name__: part for part in built}


def class_name(name: str) -> str:
    """A part's name as a class.

    >>> class_name("downtime-limit")
    'DowntimeLimit'
    """
    return "".join(word[:1].upper() + word[1:] for word in name.split("-"))


def documentation(doc: str, knobs: tuple[Knob, ...]) -> str:
    """A docstring: what the core says of the part and its knobs."""
    lines = [doc]
    if knobs:
        lines += ["", "Args:"]
        lines += [f"    {knob.name}: {_sentence(knob)}" for knob in knobs]
    return "\n".join(lines)


def _sentence(knob: Knob) -> str:
    told = [knob.doc.replace("\n", " ")]
    if knob.unit in _FORMATS:
        told.append(f"In {knob.unit.replace('_', ' ')}.")
    if knob.range is not None:
        told.append(f"From {knob.show(knob.range[0])} to {knob.show(knob.range[1])}.")
    if knob.default is not None:
        told.append(f"Default {knob.show(knob.default)}.")
    return " ".join(told)
