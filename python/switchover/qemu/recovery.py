"""A post-copy whose link was cut: both sides wait with their pages, and go on over another link."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from switchover.errors import QmpError, UsageError
from switchover.qemu.incoming import listen_again

if TYPE_CHECKING:
    from collections.abc import Callable

    from switchover.qemu.qmp import Qmp

PAUSED = "postcopy-paused"
PATIENCE = 30.0


def resume(source: Qmp, destination: Qmp, listen: str, connect: str | Callable[[str], str] | None = None) -> bool:
    """Has a paused post-copy go on: the destination listens at `listen`, the source connects there, or to `connect`.

    Args:
        source: The source's monitor.
        destination: The destination's.
        listen: Where the destination is to listen; port 0 takes any free one.
        connect: Where the source is to go, if something stands between; or what tells that of where the destination
            listens.

    Returns:
        Whether it goes on. If not, the link was cut when the destination had every page already: the migration is
        over, and only the source has not heard of it.

    Raises:
        QmpError: One of them cannot go on; both are as before.
    """
    if not pause(destination, may_be_over=True):
        return False
    pause(source)
    there = listen_again(destination, listen)
    goes_to = connect(there) if callable(connect) else connect or there
    source.execute("migrate", {"uri": goes_to, "resume": True})
    return True


def pause(side: Qmp, *, may_be_over: bool = False) -> bool:
    """Has one side know that its link is gone; it may wait for a lost peer for very long by itself.

    Returns:
        Whether it waits for another link; not, if its migration `may_be_over` and is.
    """
    deadline = time.monotonic() + PATIENCE
    asked = False
    while (status := side.execute("query-migrate").get("status")) != PAUSED:
        if status == "postcopy-recover-setup":
            # Of a try that led nowhere: it falls back by itself.
            pass
        elif status == "completed" and may_be_over:
            return False
        elif status not in ("postcopy-active", "postcopy-recover", "active", "device"):
            raise UsageError(f"{side.name}: there is no post-copy to recover: its migration is {status}")
        elif not asked:
            asked = True
            with contextlib.suppress(QmpError):
                side.execute("migrate-pause", oob=True)
        if time.monotonic() > deadline:
            raise QmpError(f"{side.name}: its post-copy does not pause; it is {status}", "migrate-pause")
        time.sleep(0.02)
    return True
