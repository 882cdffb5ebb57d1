"""Outlives whoever drives a migration: if that process dies, it is cancelled and all settings are put back.

QEMU would go on by itself, under limits that nobody would lift any more. The guardian is a process of its own that
holds no connection: it waits until a pipe closes. Without the word that all is done it connects, cancels what can be
cancelled, and puts back what was set. A post-copy is left to come to its end, as the guest is in two places.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from switchover.qemu.qmp import Qmp

DONE = "done"
# How long the VM's monitor may take to notice that its client is gone.
PATIENCE = 30.0
CANCELLABLE = ("setup", "wait-unplug", "active", "pre-switchover", "device")
ENDED = ("none", "completed", "failed", "cancelled")


class Guardian:
    """The guardian's process, as its charge sees it."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}
        command = [sys.executable, "-c", f"from {__name__} import main; main()"]
        # A session of its own, so that what ends a terminal's jobs does not end it.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
            start_new_session=True,
        )  # fmt: skip

    def know(self, side: str, address: Any, before: dict[str, Any]) -> None:
        """Tells it what a side's settings were."""
        self._known[side] = {"address": address, "before": before}
        self._tell(self._known)

    def _tell(self, what: object) -> None:
        with contextlib.suppress(OSError, ValueError):
            assert self._process.stdin is not None  # noqa: S101  opened above
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()

    def dismiss(self) -> None:
        """All is done, and put back."""
        self._tell(DONE)
        with contextlib.suppress(OSError, ValueError):
            assert self._process.stdin is not None  # noqa: S101  opened above
            self._process.stdin.close()
        self._process.wait()


def main() -> None:
    """Waits for the end of its charge, and acts if it was none that had been announced."""
    known: Any = None
    for line in sys.stdin:
        with contextlib.suppress(ValueError):
            known = json.loads(line)
    if known is None or known == DONE:
        return
    for side in ("source", "destination"):
        if side in known:
            with contextlib.suppress(Exception):
                settle(side, **known[side])


def settle(side: str, address: Any, before: dict[str, Any]) -> None:
    """Cancels at the source, waits for the end, and puts the settings back."""
    from switchover.qemu.settings import put_back

    with _connected(tuple(address) if isinstance(address, list) else address) as qmp:
        # A destination that nobody connected to waits for ever.
        deadline = time.monotonic() + (float("inf") if side == "source" else PATIENCE)
        while (status := _status(qmp)) not in ENDED and time.monotonic() < deadline:
            if side == "source" and status in CANCELLABLE:
                with contextlib.suppress(Exception):
                    qmp.execute("migrate_cancel")
            time.sleep(0.05)
        put_back(qmp, before)


def _status(qmp: Qmp) -> str:
    return str(qmp.execute("query-migrate").get("status", "none"))


def _connected(address: Any) -> Qmp:
    from switchover.errors import QmpError
    from switchover.qemu.qmp import Qmp

    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return Qmp(address, timeout=PATIENCE)
        except QmpError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
