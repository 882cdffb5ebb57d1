"""Which QEMUs this machine has."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

BINARY = "qemu-system-x86_64"
UNPACKED = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "switchover/qemu-10.0" / BINARY

# What the tests want, as `scripts/install-qemu` provides it on Debian 12.
WANTED = ("7.2", "10.0")


@dataclass(frozen=True)
class Qemu:
    """A QEMU: where it is and which release it says it is, such as "7.2"."""

    path: str
    release: str

    @property
    def version(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.release.split("."))


@cache
def found() -> dict[str, Qemu]:
    """The QEMUs of this machine by release; SWITCHOVER_QEMUS names more of them, separated by colons."""
    places = [shutil.which(BINARY), str(UNPACKED), *os.environ.get("SWITCHOVER_QEMUS", "").split(":")]
    qemus = [identified(place) for place in places if place and Path(place).exists()]
    return {qemu.release: qemu for qemu in reversed(qemus) if qemu}


def identified(path: str) -> Qemu | None:
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"version (\d+\.\d+)", said)
    return Qemu(path, match[1]) if match else None


def require(release: str) -> Qemu:
    """The QEMU of that release. Without it a test is skipped; where CI=true it fails."""
    if release in found():
        return found()[release]
    text = f"no QEMU {release} here: scripts/install-qemu installs it"
    if os.environ.get("CI") == "true":
        pytest.fail(text, pytrace=False)
    pytest.skip(text)
