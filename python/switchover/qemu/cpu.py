"""CPU time of a QEMU of this machine, its threads by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from switchover.errors import QmpError

if TYPE_CHECKING:
    from switchover.qemu.qmp import Qmp

_TICK = os.sysconf("SC_CLK_TCK")


class Usage:
    """CPU seconds of one QEMU process and of each of its vCPU threads; `None` where it is not on this machine."""

    def __init__(self, qmp: Qmp) -> None:
        self._pid = qmp.pid
        self._vcpus: dict[int, int] = {}
        self.count = 0
        try:
            listed = qmp.execute("query-cpus-fast")
        except QmpError:
            return
        self.count = len(listed)
        self._vcpus = {each["cpu-index"]: each["thread-id"] for each in listed}

    def read(self) -> dict[str, Any] | None:
        """Seconds so far: `process`, and `vcpus` in the order of their numbers."""
        if self._pid is None:
            return None
        process = _seconds(f"/proc/{self._pid}/stat")
        if process is None:
            return None
        threads = (f"/proc/{self._pid}/task/{thread}/stat" for _, thread in sorted(self._vcpus.items()))
        return {"process": process, "vcpus": [_seconds(path) for path in threads]}


def spent(before: dict[str, Any] | None, after: dict[str, Any] | None) -> dict[str, Any] | None:
    """What was spent in between."""
    if before is None or after is None:
        return None
    pairs = zip(before["vcpus"], after["vcpus"], strict=False)
    vcpus = [None if a is None or b is None else b - a for a, b in pairs]
    return {"process": after["process"] - before["process"], "vcpus": vcpus}


def _seconds(path: str) -> float | None:
    try:
        # The name, in parentheses, may hold anything; times stand at a fixed place behind it.
        words = Path(path).read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / _TICK
    except (OSError, ValueError, IndexError):
        return None
