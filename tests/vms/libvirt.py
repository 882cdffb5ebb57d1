"""Domains of a libvirt, with our guest; the daemon is started where it is installed and does not run."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from switchover.qemu import guest
from switchover.qemu.vm import Vm

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECTION = "qemu:///system"
# Where process 1 does not wait for processes that have ended, as in some containers, libvirt waits for them at length.
PATIENCE = 120
# Starts daemons and waits for whatever they leave behind, until it is told to end them.
KEEPER = """
import ctypes, os, signal, subprocess, sys
PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
started = {each.pid: each for each in map(subprocess.Popen, sys.argv[1:])}
signal.signal(signal.SIGTERM, lambda *_: [each.send_signal(signal.SIGTERM) for each in started.values()])
while started:
    started.pop(os.wait()[0], None)
"""
# As docs/qemu.md has it: a second monitor, and on the destination's side QEMU's own way to wait.
DOMAIN = """
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name>
  <memory unit='MiB'>32</memory>
  <os><type machine='pc'>hvm</type></os>
  <features><acpi/></features>
  <qemu:commandline>{arguments}</qemu:commandline>
</domain>
"""


def virsh(*words: str) -> str:
    """What libvirt answers; its own words are those of the error."""
    command = ["virsh", "-q", "-c", CONNECTION, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def answers() -> bool:
    with contextlib.suppress(AssertionError, FileNotFoundError, subprocess.TimeoutExpired):
        return bool(virsh("version"))
    return False


@contextlib.contextmanager
def daemon() -> Iterator[None]:
    """A libvirt that answers; without one a test is skipped, and fails where CI=true."""
    if answers():
        yield
        return
    if not (shutil.which("libvirtd") and shutil.which("virsh") and os.geteuid() == 0):
        missing = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        missing("no libvirt here: apt-get install libvirt-daemon-system libvirt-clients, and be root")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    keeper = subprocess.Popen([sys.executable, "-c", KEEPER, "virtlogd", "libvirtd"], **quiet)
    try:
        deadline = time.monotonic() + PATIENCE
        while not answers():
            assert time.monotonic() < deadline, "libvirtd was started but does not answer"
            time.sleep(0.1)
        yield
    finally:
        keeper.terminate()
        keeper.wait()


class Domain(Vm):
    """A domain as one of our VMs: with a monitor, a heartbeat, and a guest that checks its data."""

    def __init__(self, side: str, workload: object, *, incoming: bool = False) -> None:
        self.name = f"switchover-{side}-{os.getpid()}"
        self.folder = Path(tempfile.mkdtemp(prefix="switchover-domain-"))
        # libvirt has a user of its own for QEMU, who makes the sockets.
        self.folder.chmod(0o777)
        (self.folder / "guest").write_bytes(guest.image())
        self.process = SimpleNamespace(poll=lambda: None)
        self._line = None
        self.memory = 32 << 20
        words = self._command("tcg", guest.command_line(workload, self.memory, 0))
        words += ["-incoming", "defer"] if incoming else []
        arguments = "".join(f"<qemu:arg value='{word}'/>" for word in words)
        description = self.folder / "domain.xml"
        description.write_text(DOMAIN.format(name=self.name, arguments=arguments))
        virsh("create", str(description))

    def _command(self, accelerator: str, line: str) -> list[str]:
        """What libvirt does not give by itself of what one of our VMs is started with."""
        words = super()._command(accelerator, line)
        return [word for name in ("-qmp", "-chardev", "-serial", "-kernel", "-append") for word in _of(words, name)]

    def state(self) -> str:
        """As libvirt sees it."""
        return virsh("domstate", self.name)

    def ask(self, command: str) -> str:
        """What QEMU answers over libvirt's own monitor."""
        return virsh("qemu-monitor-command", self.name, f'{{"execute": "{command}"}}')

    def close(self) -> None:
        self.hang_up()
        with contextlib.suppress(AssertionError):
            virsh("destroy", self.name)
        shutil.rmtree(self.folder)


def _of(words: list[str], name: str) -> Iterator[str]:
    for option, value in itertools.pairwise(words):
        if option == name:
            yield from (option, value)
