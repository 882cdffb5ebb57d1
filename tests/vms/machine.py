"""One running QEMU."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vms.monitor import Monitor

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from vms.boot import Boot
    from vms.installed import Qemu

PATIENCE = 30


class TooEarlyError(Exception):
    """The migration ended before what was waited for."""


class Machine:
    """A virtual machine under TCG, with a monitor and a serial port; gone at the end of the `with` block.

    `devices` are further arguments of QEMU's command line; the source's and the destination's must be the same.
    """

    def __init__(
        self, qemu: Qemu, boot: Boot, *, machine: str = "pc", memory: str = "16M",
        devices: tuple[str, ...] = (), arguments: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.qemu = qemu
        # Not pytest's folder: the path of a UNIX socket has at most 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="sw-vm-"))
        self.said = b""
        (self.folder / "boot").write_bytes(boot.image())
        command = [*tied(), qemu.path, *self._command(machine, memory), *devices, *arguments]
        self.log = (self.folder / "log").open("wb")
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True
        )
        self.serial: socket.socket | None = None
        self.monitor: Monitor | None = None

    @property
    def control(self) -> Path:
        """A monitor for what is tested: each serves one client."""
        return self.folder / "control"

    def _command(self, machine: str, memory: str) -> list[str]:
        qmp, serial, boot = (self.folder / name for name in ("qmp", "serial", "boot"))
        return [
            "-accel", "tcg", "-machine", machine, "-m", memory, "-nodefaults", "-display", "none",
            "-qmp", f"unix:{qmp},server=on,wait=off", "-qmp", f"unix:{self.control},server=on,wait=off",
            "-chardev", f"socket,id=serial,path={serial},server=on,wait=off", "-serial", "chardev:serial",
            "-drive", f"if=none,id=boot,format=raw,readonly=on,file={boot}",
            "-device", "virtio-blk-pci,drive=boot,bootindex=1",
        ]  # fmt: skip

    def __enter__(self) -> Self:
        try:
            self.monitor = Monitor(self.folder / "qmp", lambda: self.process.poll() is None)
            self.serial = socket.socket(socket.AF_UNIX)
            self.serial.settimeout(PATIENCE)
            self.serial.connect(str(self.folder / "serial"))
        except BaseException as error:
            self.close()
            raise RuntimeError(f"QEMU {self.qemu.release} did not start: {self.printed}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.monitor:
            self.monitor.close()
        if self.serial:
            self.serial.close()
        self.log.close()
        self.printed = (self.folder / "log").read_text(errors="replace").strip() if self.folder.exists() else ""
        shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, command: str, **arguments: Any) -> Any:
        assert self.monitor
        return self.monitor.ask(command, **arguments)

    def human(self, line: str) -> str:
        assert self.monitor
        return self.monitor.human(line)

    def hear(self, letter: str) -> None:
        """Waits until the guest has said `letter`."""
        assert self.serial
        while letter.encode() not in self.said:
            more = self.serial.recv(4096)
            assert more, f"QEMU ended before its guest said {letter}"
            self.said += more

    def rest(self) -> None:
        """Tells the guest to write no more."""
        assert self.serial
        self.serial.sendall(b".")

    def set_up(self, capabilities: tuple[str, ...], parameters: dict[str, Any]) -> None:
        """Sets capabilities and parameters of the migration."""
        self.ask("migrate-set-capabilities", capabilities=[{"capability": c, "state": True} for c in capabilities])
        if parameters:
            self.ask("migrate-set-parameters", **parameters)

    def migration(self) -> dict[str, Any]:
        return self.ask("query-migrate")

    def wait_for(self, *states: str) -> dict[str, Any]:
        """Waits until the migration has come to one of `states`; what QEMU says of it then."""
        return self.wait_until(lambda state: state.get("status") in states, f"the migration is {' or '.join(states)}")

    def wait_for_passes(self, count: int) -> dict[str, Any]:
        """Waits until the dirty bitmap was synchronised `count` times."""
        enough = lambda state: state.get("ram", {}).get("dirty-sync-count", 0) >= count  # noqa: E731
        return self.wait_until(enough, f"{count} passes are done")

    def wait_until(self, enough: Any, what: str) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            state = self.migration()
            if enough(state):
                return state
            if state.get("status") == "completed":
                raise TooEarlyError(f"{what}: completed before")
            if state.get("status") in ("failed", "cancelled"):
                break
            time.sleep(0.005)
        text = (self.folder / "log").read_text(errors="replace")
        raise AssertionError(f"waiting until {what}: the migration is {state}; QEMU said: {text or 'nothing'}")


def tied() -> list[str]:
    """What makes a program die with us, also where we are killed."""
    tool = shutil.which("setpriv")
    return [tool, "--pdeathsig", "KILL"] if tool else []
