"""A synchronous face of `qemu.qmp`: one event loop in a thread for all monitors of the process."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import cache
from typing import TYPE_CHECKING, Any

from qemu.qmp import QMPClient
from qemu.qmp.protocol import ConnectError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

TIMEOUT = 40


@cache
def loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="qmp", daemon=True).start()
    return loop


def wait_for(work: Coroutine[Any, Any, Any], timeout: float = TIMEOUT) -> Any:
    return asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, timeout), loop()).result()


class Monitor:
    """A QMP connection. `ask` raises `qemu.qmp.ExecuteError` where QEMU refuses."""

    def __init__(self, path: Path, alive: Callable[[], bool]) -> None:
        self.client = QMPClient("tests")
        # The client logs a lost connection, which is how most tests end, as an error.
        self.client.logger.disabled = True
        self.events: list[tuple[float, dict[str, Any]]] = []
        wait_for(self._connect(str(path), alive))

    async def _connect(self, path: str, alive: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT / 2
        while True:
            try:
                await self.client.connect(path)
                break
            except ConnectError:
                if not alive() or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.01)
        self.watcher = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        async for event in self.client.events:
            self.events.append((time.monotonic(), dict(event)))

    def ask(self, command: str, **arguments: Any) -> Any:
        arguments = {name.replace("_", "-"): value for name, value in arguments.items()}
        return wait_for(self.client.execute(command, arguments))

    def human(self, line: str) -> str:
        return wait_for(self.client.execute("human-monitor-command", {"command-line": line}))

    def close(self) -> None:
        wait_for(self._close())

    async def _close(self) -> None:
        self.watcher.cancel()
        try:
            await self.client.disconnect()
        except Exception:  # Whatever it is: QEMU is gone, and so is the connection.
            return
