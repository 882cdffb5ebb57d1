"""Guests: memory, and what writes it."""

from __future__ import annotations

import atexit
import inspect
import json
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, TypeGuard

from switchover import _native, contents, units, workloads
from switchover.errors import UsageError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    import numpy as np
    from numpy.typing import NDArray

Program: TypeAlias = Callable[..., "int | None"]
"""A workload in Python: `f(memory)` or `f(memory, seconds)`."""


class Progress(NamedTuple):
    """What a guest has done since it began, on whatever host.

    Attributes:
        written: Bytes, by the workloads' own count.
        operations: Page writes, requests, cells: the workloads' own measure.
        seconds: For which it was allowed to run, blackouts not counted.
    """

    written: int
    operations: int
    seconds: float


class Place(Protocol):
    """Where a guest runs when it is not in this process."""

    def call(self, order: str) -> Any:
        """Has the guest there do something."""

    def close(self) -> None:
        """Ends it."""


class Guest:
    """A guest: RAM blocks in this process, and workloads that write them in real time.

    It is made paused. When it was migrated within this process or to a process of ours, the same object is the
    guest at the destination.

    Args:
        memory: From 1 MiB up to what the machine has, such as "1GiB".
        workload: One of `switchover.workloads`, its name, or a Python callable. Several in a list run on a vCPU
            each and share memory out in equal parts.
        seed: Of all that is random in it.
        backing: "anonymous" or "memfd".
        huge_pages: "never", "transparent", or "explicit" (reserved pages of 2 MiB).
        blocks: RAM blocks by name, with sizes that add up to `memory`; by default one called "ram".
        fill: What memory holds before the workload starts: one of `switchover.contents`.

    A callable is given its memory as a writable NumPy array of bytes, and the guest's time in seconds if it takes
    a second argument. It is called again and again, and should return within milliseconds. A call counts as an
    operation; it may return the bytes that it wrote, or 0 if there was nothing to do, in which case it counts as none
    and the next call is a millisecond later. What it keeps outside of the array does not move.

        >>> def counter(memory):
        ...     memory[:8].view("uint64")[0] += 1
        >>> with Guest("1MiB", counter) as guest:
        ...     guest.start()
        ...     while guest.progress.operations < 3:
        ...         pass
        ...     guest.pause()
        ...     bool(guest.memory[0] > 2)
        True
    """

    def __init__(
        self,
        memory: units.Size,
        workload: workloads.Workload | str | Program | Sequence[workloads.Workload | str | Program] = "sweep",
        *,
        seed: int = 0,
        backing: str = "anonymous",
        huge_pages: str = "never",
        blocks: Mapping[str, units.Size] | None = None,
        fill: contents.Content | str | None = None,
    ) -> None:
        given = list(workload) if isinstance(workload, list | tuple) else [workload]
        self._programs = [Called(item) for item in given if _is_program(item)]
        numbers = iter(range(len(given)))
        specs = [
            {"name": "python", "program": next(numbers)} if _is_program(item) else workloads.registry.of(item).spec()
            for item in given
        ]
        layout = {"blocks": _blocks(memory, blocks, _choice("backing", backing), _choice("huge_pages", huge_pages))}
        self._spec: dict[str, Any] = {"layout": layout, "workloads": specs, "seed": _seed(seed)}
        if fill is not None:
            self._spec["fill"] = contents.registry.of(fill).spec()
        self._place: Place | None = None
        self._native = _native.Guest(json.dumps(self._spec), list(self._programs))
        self._label = [program.label for program in self._programs]
        if self._programs:
            _stop_at_exit(self._native)

    @classmethod
    def arrived(cls, native: _native.Guest) -> Guest:
        """A guest that came from another process."""
        guest = cls.__new__(cls)
        guest._programs, guest._label, guest._place, guest._native = [], [], None, native
        blocks = [{"name": name, "bytes": len(_array(memory))} for name, memory in native.blocks()]
        guest._spec = {"layout": {"blocks": blocks}, "workloads": [], "seed": None}
        return guest

    def start(self) -> None:
        """Lets it run; `resume` is the same."""
        self.resume()

    def resume(self) -> None:
        """Lets it run, or run on."""
        self._do("resume", self._native.resume)

    def pause(self) -> None:
        """Stops all vCPUs: when it returns, nothing writes to memory."""
        self._do("pause", self._native.pause)

    def check(self) -> None:
        """Each workload's check of its own data, wherever it runs.

        Raises:
            VerificationError: Data are damaged, or a workload crashed; what a Python workload raised is the cause.
        """
        self._do("check", self._native.check)

    def _do(self, order: str, here: Callable[[], Any]) -> Any:
        return here() if self._place is None else self._place.call(order)

    @property
    def progress(self) -> Progress:
        """What it has done so far."""
        return Progress(*self._do("progress", self._native.progress))

    @property
    def blocks(self) -> dict[str, NDArray[np.uint8]]:
        """Each RAM block's bytes by name: the memory itself, not a copy.

        An array keeps its memory mapped for as long as it lives. After a migration it is that of the source still:
        ask the guest again for the destination's.
        """
        return {name: _array(memory) for name, memory in self._native.blocks()}

    @property
    def memory(self) -> NDArray[np.uint8]:
        """The bytes of a guest of one RAM block; see `blocks`."""
        blocks = list(self.blocks.values())
        if len(blocks) != 1:
            raise UsageError("the guest has several RAM blocks: use guest.blocks[name]")
        return blocks[0]

    @property
    def memory_bytes(self) -> int:
        """Size of all RAM blocks in bytes."""
        return sum(block["bytes"] for block in self._spec["layout"]["blocks"])

    @property
    def spec(self) -> dict[str, Any]:
        """What it is made of, as reports have it."""
        labels = iter(self._label)
        named = [
            {"name": next(labels), "language": "python"} if item["name"] == "python" else item
            for item in self._spec["workloads"]
        ]
        return {**self._spec, "workloads": named}

    @property
    def has_programs(self) -> bool:
        """Whether Python callables run in it: such a guest stays in this process."""
        return bool(self._programs)

    def native(self) -> _native.Guest:
        """The engine's object, for the package's own modules."""
        if self._place is not None:
            raise UsageError("the guest runs in another process")
        return self._native

    def moved_to(self, place: Place | None, name: str) -> None:
        """Notes that it runs elsewhere; for the package's own modules."""
        self._place = place
        self._native.moved_to(name)

    def close(self) -> None:
        """Ends it, wherever it runs, and frees its memory once no array holds it."""
        if self._place is not None:
            self._place.close()
        self._native.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        names = ", ".join(item["name"] for item in self.spec["workloads"])
        return f"<Guest of {units.format_size(self.memory_bytes)}: {names or 'arrived'}>"


class Called:
    """A callable as the engine calls it: with the memory's handle and the time."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self.label = str(getattr(program, "__qualname__", None) or type(program).__qualname__)
        self._takes_time = _takes_two(program)
        self._handle: object = None
        self._memory: Any = None

    def __call__(self, handle: _native.Memory, seconds: float) -> int | None:
        """Runs it once."""
        if handle is not self._handle:
            self._handle, self._memory = handle, _array(handle)
        return self._program(self._memory, seconds) if self._takes_time else self._program(self._memory)


def _takes_two(program: Program) -> bool:
    try:
        parameters = inspect.signature(program).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty for p in parameters) >= 2


def _is_program(item: object) -> TypeGuard[Program]:
    return callable(item) and not (isinstance(item, type) and issubclass(item, workloads.Workload))


def _array(memory: _native.Memory) -> NDArray[np.uint8]:
    import numpy as np

    return np.asarray(memory)


def _choice(what: str, given: str) -> str:
    choices = {"backing": ("anonymous", "memfd"), "huge_pages": ("never", "transparent", "explicit")}[what]
    if given not in choices:
        raise UsageError(f"Guest: {what} must be one of {', '.join(choices)}, not {given!r}")
    return given


def _seed(seed: int) -> int:
    seed = units.parse_count(seed, "Guest: seed")
    if seed >= 2**64:
        raise UsageError(f"Guest: seed must be less than 2^64, not {seed}")
    return seed


def _blocks(
    memory: units.Size, blocks: Mapping[str, units.Size] | None, backing: str, huge: str
) -> list[dict[str, Any]]:
    size = units.parse_size(memory, "Guest: memory")
    sizes = (
        {"ram": size}
        if blocks is None
        else {name: units.parse_size(part, f"Guest: block {name!r}") for name, part in blocks.items()}
    )
    if sum(sizes.values()) != size:
        raise UsageError(f"Guest: the blocks have {sum(sizes.values())} bytes, the memory {size}")
    if size >= 2**64:
        raise UsageError(f"Guest: memory of {size} bytes is more than an address can name")
    return [{"name": name, "bytes": part, "backing": backing, "huge": huge} for name, part in sizes.items()]


_running: weakref.WeakSet[_native.Guest] = weakref.WeakSet()


def _stop_at_exit(native: _native.Guest) -> None:
    """A thread that ran Python code while the interpreter ends would bring the process down."""
    if not _running:
        atexit.register(_stop_all)
    _running.add(native)


def _stop_all() -> None:
    for native in list(_running):
        native.close()
