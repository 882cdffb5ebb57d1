"""A destination in a process of its own: `to="process"`. Run as a program it is that process.

Orders go in as lines and answers come out as lines of JSON: {"answer": ...} or {"error": code, "text": ...}.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from switchover.errors import LinkError, SwitchoverError, catalogue

if TYPE_CHECKING:
    from switchover.guest import Guest

WAIT = 60.0
"""Seconds for which a destination waits for its guest."""


class Process:
    """A process that takes one guest in, and runs it until it is closed."""

    def __init__(self, transport: str, stall: float) -> None:
        self._room = tempfile.TemporaryDirectory(prefix="switchover-")
        listen = f"unix:{Path(self._room.name) / 'socket'}" if transport == "unix" else "127.0.0.1:0"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "switchover.process", listen, str(stall)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Ctrl-C is for the source: the destination ends when its source does.
            start_new_session=True,
        )
        self._orders, self._answers = cast("IO[str]", self._process.stdin), cast("IO[str]", self._process.stdout)
        try:
            self.endpoint = str(self._read())
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """For messages."""
        return f"process {self._process.pid}"

    def call(self, order: str) -> Any:
        """Has the guest there `resume`, `pause`, `check` or tell its `progress`."""
        try:
            self._orders.write(order + "\n")
            self._orders.flush()
        except (BrokenPipeError, ValueError) as error:
            raise LinkError(f"{self.name}, where the guest ran, has ended") from error
        return self._read()

    def _read(self) -> Any:
        line = self._answers.readline()
        if not line:
            raise LinkError(f"{self.name}, which was to take the guest in, has ended")
        answer = json.loads(line)
        if "error" in answer:
            raise catalogue().get(answer["error"], SwitchoverError)(answer["text"])
        return answer["answer"]

    def close(self) -> None:
        """Ends the process and the guest in it."""
        for pipe in (self._orders, self._answers):
            pipe.close()
        try:
            self._process.wait(timeout=0.2 if self._process.returncode is None else 0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._room.cleanup()


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _obey(guest: Guest, order: str) -> Any:
    if order == "progress":
        return guest.progress
    return {"resume": guest.resume, "pause": guest.pause, "check": guest.check}[order]()


def _answer(guest: Guest, order: str) -> None:
    try:
        _say({"answer": _obey(guest, order)})
    except SwitchoverError as error:
        _say({"error": error.code, "text": str(error)})


def main(listen: str, stall: str) -> None:
    """Takes one guest in, then obeys until its orders end."""
    from switchover.receiver import Receiver

    with Receiver(listen, stall_timeout=float(stall)) as receiver:
        _say({"answer": receiver.endpoint})
        try:
            guest = receiver.accept(timeout=WAIT)
        except SwitchoverError:
            # The source reports it.
            return
    with guest:
        for line in sys.stdin:
            _answer(guest, line.strip())


if __name__ == "__main__":
    main(*sys.argv[1:])
