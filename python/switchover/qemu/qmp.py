"""QMP: a connection to one QEMU's monitor, for plain code (`Qmp`) and for asyncio code (`AsyncQmp`).

Every wait has a time-out, events are queued with the moment of their arrival, and what QEMU refuses is a `QmpError`
with the command and QEMU's own words.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from qemu.qmp import ExecuteError, QMPClient, QMPError
from qemu.qmp.error import QMPError as BaseQmpError

from switchover import units
from switchover.errors import QmpError, UsageError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

T = TypeVar("T")
Address: TypeAlias = "str | Path | tuple[str, int]"

TIMEOUT = 30.0
# Events that nobody fetches: the oldest go.
KEPT = 4096


class Event(NamedTuple):
    """What QEMU said of its own accord.

    Attributes:
        name: Such as `MIGRATION_PASS`.
        data: What came with it.
        arrived: When it came here, on the clock of `time.monotonic`.
        stamped: When it happened, on the wall clock of QEMU's host.
    """

    name: str
    data: dict[str, Any]
    arrived: float
    stamped: float


def parse_address(given: Address) -> str | tuple[str, int]:
    """A monitor's address: a path, "unix:PATH", "HOST:PORT" or "tcp:HOST:PORT", or a pair of host and port.

    >>> parse_address("tcp:localhost:4444"), parse_address("/run/vm.qmp")
    (('localhost', 4444), '/run/vm.qmp')
    """
    if isinstance(given, tuple):
        return given
    text = os.fspath(given)
    if text.startswith("unix:"):
        return text.removeprefix("unix:")
    host, mark, port = text.removeprefix("tcp:").rpartition(":")
    if mark and port.isdecimal() and "/" not in text:
        return host.strip("[]") or "localhost", int(port)
    if text.startswith("tcp:") or not text:
        raise UsageError(f"a monitor's address is a path or HOST:PORT, not {text!r}")
    return text


class AsyncQmp:
    """A connection for asyncio code: `async with AsyncQmp("vm.qmp") as qmp: await qmp.execute("query-status")`.

    Args:
        address: Where QEMU's monitor listens (`-qmp unix:PATH,server=on,wait=off`).
        timeout: How long QEMU may take to answer.
    """

    def __init__(self, address: Address, timeout: units.Time = TIMEOUT) -> None:
        self.address = parse_address(address)
        self.timeout = units.parse_time(timeout, "timeout")
        self.pid: int | None = None
        """QEMU's process, where it listens on a UNIX socket of this machine."""
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self._listeners: list[Callable[[Event], object]] = [self._keep]
        self._client = QMPClient("switchover")
        # The client logs a lost connection as an error; here it is raised as one.
        self._client.logger = logging.getLogger(f"{__name__}.client")
        self._client.logger.addHandler(logging.NullHandler())
        self._client.logger.propagate = False
        self._watcher: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """The address as people write it."""
        return self.address if isinstance(self.address, str) else ":".join(map(str, self.address))

    async def connect(self) -> Self:
        """Connects and agrees on capabilities."""
        try:
            await asyncio.wait_for(self._connect(), self.timeout)
        except TimeoutError:
            await self.close()
            raise QmpError(
                f"{self.name}: connected, but QEMU does not greet within {self.timeout:g} s: a monitor serves one "
                "client at a time, and libvirt or another one may hold it"
            ) from None
        except (OSError, BaseQmpError) as error:
            cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
            raise QmpError(
                f"{self.name}: no QEMU monitor answers there ({cause}); start QEMU with "
                "-qmp unix:PATH,server=on,wait=off"
            ) from error
        self._watcher = asyncio.ensure_future(self._watch())
        return self

    async def _connect(self) -> None:
        await self._client.connect(await asyncio.to_thread(self._open))

    def _open(self) -> socket.socket:
        if isinstance(self.address, tuple):
            return _non_blocking(socket.create_connection(self.address, timeout=self.timeout))
        plain = socket.socket(socket.AF_UNIX)
        try:
            plain.settimeout(self.timeout)
            plain.connect(self.address)
            self.pid = _peer(plain)
        except BaseException:
            plain.close()
            raise
        return _non_blocking(plain)

    async def _watch(self) -> None:
        async for message in self._client.events:
            stamp = message.get("timestamp")
            stamped = stamp["seconds"] + stamp["microseconds"] / 1e6 if isinstance(stamp, dict) else 0.0
            data = message.get("data")
            kept = dict(data) if isinstance(data, dict) else {}
            event = Event(str(message["event"]), kept, time.monotonic(), stamped)
            for listener in self._listeners:
                listener(event)

    def _keep(self, event: Event) -> None:
        while self.events.qsize() >= KEPT:
            self.events.get_nowait()
        self.events.put_nowait(event)

    def listen(self, listener: Callable[[Event], object]) -> Callable[[], None]:
        """Has `listener` called with each event as it comes; what is returned ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def execute(
        self, command: str, arguments: dict[str, Any] | None = None, *, oob: bool = False, timeout: float | None = None
    ) -> Any:
        """Runs a command and returns its answer. `oob` has it run at once, even where QEMU's main loop is stuck."""
        limit = self.timeout if timeout is None else timeout
        try:
            return await asyncio.wait_for(self._client.execute(command, arguments, oob=oob), limit)
        except ExecuteError as error:
            words = str(error.error.error.desc)
            raise QmpError(f"{self.name}: {command}: {words}", command, words) from error
        except TimeoutError:
            raise QmpError(f"{self.name}: {command}: QEMU does not answer within {limit:g} s", command) from None
        except (QMPError, OSError, EOFError) as error:
            raise QmpError(f"{self.name}: {command}: the connection to QEMU is lost ({error})", command) from error

    async def close(self) -> None:
        """Ends the connection; the VM does not notice."""
        if self._watcher is not None:
            self._watcher.cancel()
        # However it was lost before: it is gone.
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._client.disconnect(), 5)

    async def __aenter__(self) -> Self:
        return await self.connect()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _non_blocking(connected: socket.socket) -> socket.socket:
    connected.setblocking(False)
    return connected


def _peer(connected: socket.socket) -> int | None:
    """Who listens: QEMU itself, unless a manager opened the socket for it."""
    pid, _, _ = struct.unpack("3i", connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    try:
        name = Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return None
    return int(pid) if "qemu" in name or "kvm" in name else None


@cache
def _loop_of(process: int) -> asyncio.AbstractEventLoop:
    """The event loop of all plain connections; a forked child gets its own."""
    del process
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="switchover-qmp", daemon=True).start()
    return loop


def _run(work: Coroutine[Any, Any, T]) -> T:
    future = asyncio.run_coroutine_threadsafe(work, _loop_of(os.getpid()))
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


class Qmp:
    """A connection for plain code. Close it, or use it in a `with` block.

    Args:
        address: Where QEMU's monitor listens: a path, "unix:PATH", "HOST:PORT".
        timeout: How long QEMU may take to answer.

    ::

        with sw.qemu.Qmp("vm.qmp") as qmp:
            print(qmp.execute("query-status")["status"])
    """

    def __init__(self, address: Address, timeout: units.Time = TIMEOUT) -> None:
        self._inner = AsyncQmp(address, timeout)
        self._events: queue.Queue[Event] = queue.Queue(KEPT)
        self._inner.listen(self._keep)
        _run(self._inner.connect())

    @property
    def address(self) -> str | tuple[str, int]:
        """Where it is connected to."""
        return self._inner.address

    @property
    def name(self) -> str:
        """The address as people write it."""
        return self._inner.name

    @property
    def pid(self) -> int | None:
        """QEMU's process, where it listens on a UNIX socket of this machine."""
        return self._inner.pid

    def execute(
        self, command: str, arguments: dict[str, Any] | None = None, *, oob: bool = False, timeout: float | None = None
    ) -> Any:
        """Runs a command and returns its answer.

        Raises:
            QmpError: QEMU refused, did not answer in time, or is gone.
        """
        return _run(self._inner.execute(command, arguments, oob=oob, timeout=timeout))

    def _keep(self, event: Event) -> None:
        while True:
            try:
                return self._events.put_nowait(event)
            except queue.Full:
                with contextlib.suppress(queue.Empty):
                    self._events.get_nowait()

    def event(self, *names: str, timeout: units.Time = TIMEOUT) -> Event:
        """Waits for the next event of that name, or for any; those before it are dropped.

        Raises:
            QmpError: None came in time.
        """
        deadline = time.monotonic() + units.parse_time(timeout, "timeout")
        while True:
            try:
                event = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise QmpError(
                    f"{self.name}: no event {' or '.join(names)} within {timeout}".replace("  ", " ")
                ) from None
            if not names or event.name in names:
                return event

    def listen(self, listener: Callable[[Event], object]) -> Callable[[], None]:
        """Has `listener` called with each event as it comes, in another thread; what is returned ends that."""
        return self._inner.listen(listener)

    def close(self) -> None:
        """Ends the connection; the VM does not notice."""
        _run(self._inner.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Qmp: {self.name}>"
