"""Stands between a source and its destination, passes all on, and keeps what each connection carried, and when."""

from __future__ import annotations

import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import BinaryIO, Self

PIECE = 1 << 18
STREAM = b"QEVM"
MULTIFD = struct.pack(">I", 0x11223344)
COMMAND = b"\x08"


@dataclass
class Tape:
    """One direction of one connection: its bytes in a file, and the moment at which each piece came."""

    path: Path
    file: BinaryIO
    moments: list[tuple[float, int]] = field(default_factory=list)
    length: int = 0
    head: bytes = b""

    def keep(self, piece: bytes) -> None:
        self.moments.append((time.monotonic(), self.length))
        self.length += len(piece)
        self.head = self.head or piece[:4]
        self.file.write(piece)


@dataclass
class Connection:
    """A connection, in the order in which the source made them."""

    source: socket.socket
    destination: socket.socket
    there: Tape
    back: Tape

    @property
    def role(self) -> str:
        """What its first bytes say it is: main, multifd, recovery or preempt."""
        if self.there.head == STREAM:
            return "main"
        if self.there.head == MULTIFD:
            return "multifd"
        return "recovery" if self.there.head[:1] == COMMAND else "preempt"


class Recorder:
    """Listens at `listen`, a UNIX path, and connects each caller to `destination` at once."""

    def __init__(self, folder: Path, listen: Path, destination: Path) -> None:
        self.folder = folder
        self.destination = destination
        self.connections: list[Connection] = []
        self.threads: list[threading.Thread] = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(listen))
        self.listener.listen(64)
        self._start(self._accept)

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self.threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                source, _ = self.listener.accept()
            except OSError:
                return
            destination = socket.socket(socket.AF_UNIX)
            destination.connect(str(self.destination))
            number = len(self.connections)
            there, back = (self._tape(f"{number}-{way}") for way in ("there", "back"))
            self.connections.append(Connection(source, destination, there, back))
            self._start(pump, source, destination, there)
            self._start(pump, destination, source, back)

    def _tape(self, name: str) -> Tape:
        path = self.folder / name
        return Tape(path, path.open("wb"))

    def cut(self) -> None:
        """Breaks all connections off."""
        for connection in self.connections:
            for end in (connection.source, connection.destination):
                # One that has ended by itself cannot be ended.
                with_quiet(end.shutdown, socket.SHUT_RDWR)

    def close(self) -> None:
        with_quiet(self.listener.shutdown, socket.SHUT_RDWR)
        self.listener.close()
        self.cut()
        for thread in self.threads:
            thread.join()
        for connection in self.connections:
            for part in (connection.source, connection.destination, connection.there.file, connection.back.file):
                part.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def pump(source: socket.socket, sink: socket.socket, tape: Tape) -> None:
    """Carries one direction until it ends."""
    try:
        while piece := source.recv(PIECE):
            tape.keep(piece)
            sink.sendall(piece)
    except OSError:
        # A reset is passed on as what it is to most peers: nobody is there any more.
        with_quiet(source.shutdown, socket.SHUT_RDWR)
    with_quiet(sink.shutdown, socket.SHUT_WR)


def with_quiet(call: object, *arguments: object) -> None:
    try:
        call(*arguments)  # type: ignore[operator]
    except OSError:
        return
