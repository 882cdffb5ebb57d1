"""Where guests come from: a guest runs and moves once, so each run of a comparison makes its own."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from switchover import coding, units
from switchover.comparison import vms
from switchover.errors import UsageError
from switchover.guest import Guest
from switchover.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from switchover.codecs import Codec

Given: TypeAlias = Guest | Trace | Mapping[str, Any] | Callable[[], Guest]
"""A guest to be made like that one, a trace, the arguments of `Guest`, or a function that makes a guest."""

WATCHED = 10.0
"""Seconds of a guest that its simulations follow."""

INTERVAL = 0.01
"""Length of the intervals of such a trace: short against the blackouts that are asked about."""


class Source:
    """How a guest is made, again and again, in each world.

    Args:
        name: In tables.
        given: A `Guest` as a pattern (it is not touched), its arguments as a mapping, a function without arguments
            that makes one, or a `Trace`, which can be simulated only.

    Examples:
        >>> source = Source("small", {"memory": "1MiB", "workload": "sweep:rate=1MB/s"})
        >>> source.worlds, source.trace().duration
        (('memory', 'sim'), 10.0)
    """

    def __init__(self, name: str, given: Given) -> None:
        self.name = name
        self._given = given
        self._trace = given if isinstance(given, Trace) else None
        self.spec = self._described()
        self.unfit = vms.unfit(self.spec)
        """Why it does not run in a VM of ours, if it does not."""
        self.worlds: tuple[str, ...] = ("sim",)
        if not isinstance(given, Trace):
            self.worlds = ("memory", "sim") if self.unfit else ("memory", "sim", "qemu")

    def _described(self) -> dict[str, Any]:
        if isinstance(self._given, Trace):
            return {"trace": dict(self._given.metadata), "digest": digest(self._given.rows.tobytes())}
        if isinstance(self._given, Guest):
            if self._given.has_programs:
                raise UsageError(f"guest {self.name!r} has Python workloads: give a function that makes such a guest")
            return self._given.spec
        with self.make() as guest:
            spec = guest.spec
        return {**spec, "code": code_of(self._given)} if callable(self._given) else spec

    def make(self) -> Guest:
        """A guest."""
        given = self._given
        if isinstance(given, Guest):
            return _like(given.spec)
        if isinstance(given, Mapping):
            return Guest(**given)
        if isinstance(given, Trace):
            raise UsageError(f"guest {self.name!r} is a trace: it runs in the world sim only")
        guest = given()
        if not isinstance(guest, Guest):
            raise UsageError(f"guest {self.name!r}: its function returned {guest!r}, which is no Guest")
        return guest

    def trace(self) -> Trace:
        """What the guest writes: generated where its workloads are the core's, else watched for ten seconds."""
        if self._trace is None:
            self._trace = self._watched()
        return self._trace

    def simulates(self, codec: Codec) -> bool:
        """Whether its simulations know the codec: the trace of a guest to be made has no samples of content."""
        return coding.known(self._given if isinstance(self._given, Trace) else None, codec)

    def _watched(self) -> Trace:
        with self.make() as guest:
            if guest.has_programs:
                guest.start()
                return Trace.record(guest=guest, duration=WATCHED, interval=INTERVAL, samples=0)
            spec = guest.spec
        content = {"fill": spec["fill"]} if "fill" in spec else {}
        size = sum(block["bytes"] for block in spec["layout"]["blocks"])
        return Trace.generate(
            size, spec["workloads"], duration=WATCHED, interval=INTERVAL, seed=spec["seed"], **content
        )


def _like(spec: dict[str, Any]) -> Guest:
    blocks = spec["layout"]["blocks"]
    return Guest(
        sum(block["bytes"] for block in blocks),
        spec["workloads"],
        seed=spec["seed"],
        backing=blocks[0]["backing"],
        huge_pages=blocks[0]["huge"],
        blocks={block["name"]: block["bytes"] for block in blocks},
        fill=spec.get("fill"),
    )


def sources(given: Given | Mapping[str, Given] | Iterable[Given]) -> list[Source]:
    """Guests by name, out of one, a list or a dict of them."""
    if isinstance(given, Mapping) and "memory" not in given:
        return [Source(name, one) for name, one in given.items()]
    single = isinstance(given, Guest | Trace | Mapping) or callable(given)
    listed: list[Any] = [given] if single else list(cast("Iterable[Given]", given))
    names = [_label(one) for one in listed]
    return [
        Source(name if names.count(name) == 1 else f"{name} ({number})", one)
        for number, (name, one) in enumerate(zip(names, listed, strict=True), 1)
    ]


def _label(given: Given) -> str:
    if isinstance(given, Guest):
        names = "+".join(item["name"] for item in given.spec["workloads"])
        return f"{names} {units.format_size(given.memory_bytes)}"
    if isinstance(given, Trace):
        return f"trace of {units.format_size(given.memory_bytes)}"
    if isinstance(given, Mapping):
        return f"{given.get('workload', 'sweep')} {given['memory']}"
    return str(getattr(given, "__qualname__", type(given).__qualname__))


def digest(data: bytes) -> str:
    """Twelve hexadecimal digits that tell contents apart."""
    return hashlib.sha256(data).hexdigest()[:12]


def code_of(program: object) -> str:
    """What tells two Python functions of one name apart: a digest of their source where it can be had."""
    try:
        text = inspect.getsource(program)  # type: ignore[arg-type]
    except (OSError, TypeError):
        text = json.dumps(str(program))
    return digest(text.encode())
