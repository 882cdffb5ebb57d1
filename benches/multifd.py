"""Throughput of a migration by QEMU itself: multifd on two channels, the same bytes as the pre-copy bench.

The guest is never started: its memory is a file of random bytes, so that both sides move the same
incompressible content and nothing else runs. Used by ``benches/table.py``; run alone it prints one figure.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    Receiver = AbstractContextManager[str]

# Another one for a look: QEMU=~/.cache/switchover/qemu-10.0/qemu-system-x86_64 python benches/table.py
BINARY = os.environ.get("QEMU", "qemu-system-x86_64")


class Monitor:
    """A QMP connection: one command at a time, events skipped."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        for _ in range(200):
            try:
                self.socket.connect(str(path))
                break
            except OSError:
                time.sleep(0.02)
        else:
            raise RuntimeError(f"QEMU did not open {path}")
        self.lines = self.socket.makefile("r")
        self.lines.readline()
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments: object) -> dict:
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        for line in self.lines:
            answer = json.loads(line)
            if "error" in answer:
                raise RuntimeError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
        raise RuntimeError(f"{command}: QEMU closed the connection")


def start(folder: Path, name: str, mib: int, *extra: str) -> tuple[subprocess.Popen[bytes], Monitor]:
    backend = f"memory-backend-file,id=ram,size={mib}M,mem-path={folder / name},share=on"
    control = folder / f"{name}.qmp"
    command = [BINARY, "-accel", "tcg", "-machine", "pc,memory-backend=ram", "-m", f"{mib}M", "-nodefaults"]
    command += ["-display", "none", "-object", backend, "-S", "-qmp", f"unix:{control},server=on,wait=off", *extra]
    process = subprocess.Popen(command)
    return process, Monitor(control)


def prepare(monitor: Monitor, channels: int) -> None:
    if channels:
        monitor.ask("migrate-set-capabilities", capabilities=[{"capability": "multifd", "state": True}])
        monitor.ask("migrate-set-parameters", **{"multifd-channels": channels})
    monitor.ask("migrate-set-parameters", **{"max-bandwidth": 0})


def fill(path: Path, mib: int) -> None:
    """Touched memory, as in the bench it is held against: no page equals another of the guest's, none is zero."""
    noise = random.Random(1).randbytes(1 << 20)
    with path.open("wb") as file:
        for index in range(mib):
            file.write(index.to_bytes(8, "little") + noise[8:])


def send(source: Monitor, mib: int, uri: str) -> float:
    """Bytes of guest memory a second, from the end of setup to completion, by the source's own clock."""
    source.ask("migrate", uri=uri)
    while (state := source.ask("query-migrate"))["status"] not in ("completed", "failed"):
        time.sleep(0.01)
    if state["status"] == "failed":
        raise RuntimeError(f"QEMU's migration failed: {state.get('error-desc')}")
    return (mib << 20) / ((state["total-time"] - state["setup-time"]) / 1000)


def throughput(mib: int, channels: int = 2) -> float:
    """From one QEMU to another, over multifd on `channels` (0: over the main channel alone)."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="switchover-bench-") as name:
        folder = Path(name)
        for side in ("source", "destination"):
            fill(folder / side, mib)
        destination, there = start(folder, "destination", mib, "-incoming", "defer")
        source, here = start(folder, "source", mib)
        try:
            prepare(here, channels)
            prepare(there, channels)
            return send(here, mib, there_uri(there))
        finally:
            for process in (source, destination):
                process.kill()
                process.wait()


def throughput_to(receive: Callable[[], Receiver], mib: int, channels: int) -> float:
    """The same to a receiver that is no QEMU: `receive` makes one that waits in a thread of its own."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="switchover-bench-") as name:
        folder = Path(name)
        fill(folder / "source", mib)
        source, here = start(folder, "source", mib)
        try:
            prepare(here, channels)
            with receive() as uri:
                return send(here, mib, uri)
        finally:
            source.kill()
            source.wait()


def there_uri(monitor: Monitor) -> str:
    monitor.ask("migrate-incoming", uri="tcp:127.0.0.1:0")
    address = monitor.ask("query-migrate")["socket-address"][0]
    return f"tcp:127.0.0.1:{address['port']}"


def installed() -> bool:
    """Whether there is a QEMU to be measured."""
    return shutil.which(BINARY) is not None and Path("/dev/shm").is_dir()


if __name__ == "__main__":
    mib = int(sys.argv[1]) if len(sys.argv) > 1 else 1024
    print(f"QEMU, multifd on 2 channels, {mib} MiB: {throughput(mib) / 1e9:.2f} GB/s")
