"""The blackout as the guest and as an outsider see it: bytes on character devices, stamped by this machine.

A heartbeat is whatever the guest sends of its own accord, often enough; an echo is its answer to each byte that it is
sent. Both devices are sockets that QEMU serves: `-chardev socket,id=beat,path=PATH,server=on,wait=off -serial
chardev:beat`.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from switchover.errors import UsageError
from switchover.qemu.qmp import Address, parse_address

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

# Moments kept a side: a quarter of an hour of beats at 1 kHz.
KEPT = 1 << 20
PROBE = 0.001
# Seconds of progress out of which a speed can be told.
ENOUGH = 0.2


class Line:
    """One side's device: when bytes came."""

    def __init__(self, address: Address) -> None:
        self.moments: deque[float] = deque(maxlen=KEPT)
        self.content = bytearray()
        self.progress: list[tuple[float, int]] = []
        """What a guest of ours says of its writes: when, and how many pages so far."""
        self._rest = b""
        place = parse_address(address)
        try:
            if isinstance(place, tuple):
                self._socket = socket.create_connection(place, timeout=10)
            else:
                self._socket = socket.socket(socket.AF_UNIX)
                self._socket.connect(place)
        except OSError as error:
            raise UsageError(f"no character device answers at {address} ({error})") from error
        self._socket.settimeout(None)
        self._thread = threading.Thread(target=self._read, name="switchover-beats", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while piece := self._socket.recv(4096):
                self.moments.append(time.monotonic())
                if len(self.content) < KEPT:
                    self.content += piece
                self._count(piece)

    def _count(self, piece: bytes) -> None:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            _, mark, digits = line.rpartition(b"p")
            with contextlib.suppress(ValueError):
                if mark:
                    self.progress.append((self.moments[-1], int(digits, 16)))
        # A guest that is not ours may send no line's end for ever.
        self._rest = self._rest[-64:]

    def tells(self) -> bool:
        """Whether what it said of its progress is enough to tell a speed."""
        return bool(self.progress) and self.progress[-1][0] - self.progress[0][0] >= ENOUGH

    def say(self, byte: bytes) -> None:
        """Sends something to the guest, if its device takes it at once."""
        with contextlib.suppress(OSError):
            self._socket.send(byte, socket.MSG_DONTWAIT)

    def close(self) -> None:
        """Lets go of the device."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()


class Beats:
    """Both sides' devices, listened to.

    Args:
        source: Where the source's device is.
        destination: Where the destination's is.
        ask: Send a byte to each side every millisecond: then it is echoes that are heard.
    """

    def __init__(self, source: Address, destination: Address, *, ask: bool = False) -> None:
        self.source = Line(source)
        try:
            self.destination = Line(destination)
        except BaseException:
            self.source.close()
            raise
        self._ended = threading.Event()
        self._asker = threading.Thread(target=self._ask, name="switchover-echo", daemon=True) if ask else None
        if self._asker:
            self._asker.start()

    def _ask(self) -> None:
        while not self._ended.wait(PROBE):
            self.source.say(b".")
            self.destination.say(b".")

    @property
    def edges(self) -> tuple[float, float] | None:
        """The last that the source's guest said and the first that the destination's did, on the monotonic clock."""
        if not (self.source.moments and self.destination.moments):
            return None
        last = self.source.moments[-1]
        first = next((moment for moment in self.destination.moments if moment >= last), None)
        return None if first is None else (last, first)

    @property
    def gap(self) -> float | None:
        """The time between these two."""
        edges = self.edges
        return None if edges is None else edges[1] - edges[0]

    def usual(self) -> float | None:
        """The median time between two at the source: the gap is known no better than that."""
        moments = list(self.source.moments)[-2000:]
        steps = sorted(after - before for before, after in itertools.pairwise(moments))
        return steps[len(steps) // 2] if steps else None

    def close(self) -> None:
        """Ends it; what was heard stays."""
        self._ended.set()
        if self._asker:
            self._asker.join()
        self.source.close()
        self.destination.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
