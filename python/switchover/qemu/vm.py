"""Virtual machines of our own: a QEMU with our guest, gone at the end of its `with` block, or with us."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from switchover import units
from switchover.errors import SwitchoverError, UsageError, VerificationError
from switchover.qemu import guest
from switchover.qemu.heartbeat import Line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

BINARY = "qemu-system-x86_64"
PATIENCE = 60.0
# KiB by which RAM is not a multiple of 256 KiB: where it is one, QEMU 7.2 takes a short cut when it harvests the dirty
# bitmap under TCG and misses later writes to the same pages: the guest arrives damaged. 10.0 is right either way.
ODD = 8


def found(binary: str | None = None) -> str:
    """The QEMU to use: the one that was named, or the system's.

    Raises:
        UsageError: There is none.
    """
    path = shutil.which(binary or BINARY)
    if path is None:
        raise UsageError(f"no {binary or BINARY} here: install it (Debian: qemu-system-x86), or name another one")
    return path


class Vm:
    """A virtual machine with our guest.

    Args:
        workload: What the guest writes: a pattern of `switchover.workloads`.
        memory: The VM's memory.
        seed: Of what is random.
        incoming: Wait for a migration, rather than start.
        binary: Which QEMU.
        accelerator: `tcg` or `kvm`.
        arguments: More for QEMU's command line; the same on both sides.
    """

    def __init__(
        self,
        workload: object = "uniform:rate=10MB/s",
        memory: units.Size = "64MiB",
        *,
        seed: int = 0,
        incoming: bool = False,
        binary: str | None = None,
        accelerator: str = "tcg",
        arguments: Sequence[str] = (),
    ) -> None:
        self.memory = units.parse_size(memory, "memory")
        line = guest.command_line(workload, self.memory, seed)
        path = found(binary)
        # Not below the user's own folder for such: the path of a UNIX socket has at most 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="switchover-vm-"))
        (self.folder / "guest").write_bytes(guest.image())
        command = [*_tied(), path, *self._command(accelerator, line), *arguments]
        command += ["-incoming", "defer"] if incoming else []
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._line: Line | None = None

    def _command(self, accelerator: str, line: str) -> list[str]:
        sockets = [
            word
            for name in ("beat", "echo")
            for word in (
                "-chardev", f"socket,id={name},path={self.folder / name},server=on,wait=off",
                "-serial", f"chardev:{name}",
            )
        ]  # fmt: skip
        return [
            "-accel", accelerator, "-machine", "pc", "-m", f"{(self.memory >> 10) + ODD}K", "-nodefaults",
            "-display", "none", "-name", "switchover", "-qmp", f"unix:{self.monitor},server=on,wait=off", *sockets,
            "-kernel", str(self.folder / "guest"), "-append", line,
        ]  # fmt: skip

    @property
    def monitor(self) -> Path:
        """Where its monitor listens."""
        return self.folder / "qmp"

    @property
    def beat(self) -> Path:
        """The character device of the guest's heartbeat."""
        return self.folder / "beat"

    @property
    def echo(self) -> Path:
        """The character device on which the guest answers each byte."""
        return self.folder / "echo"

    @cached_property
    def log(self) -> str:
        """What QEMU printed, once it has ended."""
        return (self.folder / "log").read_text(errors="replace").strip()

    def __enter__(self) -> Self:
        try:
            self._wait_for_monitor()
        except BaseException:
            self.close()
            raise
        return self

    def _wait_for_monitor(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not (self.monitor.exists() and self.beat.exists() and self.echo.exists()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SwitchoverError(f"QEMU did not start: {self.log or 'it does not say why'}")
            time.sleep(0.005)

    def listen(self) -> Line:
        """The heartbeat's line, listened to from here on."""
        if self._line is None:
            self._line = Line(self.beat)
        return self._line

    def hang_up(self) -> None:
        """Leaves the heartbeat's device to somebody else."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def wait_until_filled(self, timeout: float = PATIENCE) -> None:
        """Until the guest has filled its memory and begins to write."""
        # What it says before anybody listens is lost; its progress it goes on telling.
        self._heard("Fp", 0, timeout)

    def _heard(self, letters: str, after: int, timeout: float) -> tuple[str, str]:
        """The first of `letters` that the guest said after so many bytes, and the eight digits behind it."""
        line, deadline = self.listen(), time.monotonic() + timeout
        while time.monotonic() < deadline:
            said = bytes(line.content[after:]).decode("ascii", "replace")
            for letter in letters:
                at = said.find(letter)
                if at >= 0 and (letter == "F" or "\n" in said[at:]):
                    return letter, said[at + 1 : at + 9]
            if self.process.poll() is not None:
                raise SwitchoverError(f"QEMU ended before its guest said {letters}: {self.log}")
            time.sleep(0.002)
        raise SwitchoverError(f"the guest did not say {letters} within {timeout:g} s: it does not run, or hangs")

    def check(self, timeout: float = PATIENCE) -> int:
        """Has the guest check all of its data; how many pages there were.

        Raises:
            VerificationError: A page is not what the guest wrote last.
        """
        line = self.listen()
        said = len(line.content)
        line.say(b"c")
        letter, number = self._heard("KX", said, timeout)
        if letter == "X":
            raise VerificationError(f"the guest found page {int(number, 16)} damaged")
        return int(number, 16)

    def rest(self) -> None:
        """Has the guest write no more."""
        self.listen().say(b"r")

    def close(self) -> None:
        """Ends the VM and takes its files away."""
        self.hang_up()
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.folder.exists():
            _ = self.log
        shutil.rmtree(self.folder, ignore_errors=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _tied() -> list[str]:
    """What makes a program die with us, also where we are killed."""
    tool = shutil.which("setpriv")
    return [tool, "--pdeathsig", "KILL"] if tool else []
