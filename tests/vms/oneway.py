"""A relay whose way back falls silent when it is asked to: the destination hears, and is heard no more."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self


class OneWay:
    """Stands between a source and a destination's `tcp:HOST:PORT`; a context."""

    def __init__(self) -> None:
        self._deaf = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def through(self, uri: str) -> str:
        """Where the source is to go, to get to `uri`."""
        host, port = uri.removeprefix("tcp:").rsplit(":", 1)
        self._run(self._accept, host, int(port))
        return "tcp:{}:{}".format(*self._listener.getsockname())

    def _run(self, work, *arguments) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, host: str, port: int) -> None:
        with contextlib.suppress(OSError):
            self._ends += [self._listener.accept()[0], socket.create_connection((host, port))]
            source, destination = self._ends
            self._run(self._pump, source, destination)
            self._pump(destination, source, self._deaf)

    def _pump(self, there: socket.socket, here: socket.socket, deaf: threading.Event | None = None) -> None:
        with contextlib.suppress(OSError):
            while piece := there.recv(1 << 16):
                if deaf is None or not deaf.is_set():
                    here.sendall(piece)

    def fall_silent(self) -> None:
        """What the destination says is lost from here on."""
        self._deaf.set()

    def cut(self) -> None:
        """The link is gone."""
        for end in (self._listener, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        for thread in self._threads:
            thread.join()
