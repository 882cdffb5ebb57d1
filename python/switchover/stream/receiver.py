"""A destination for real QEMU sources: what `switchover stream receive` runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from switchover import _native, units
from switchover.errors import UsageError
from switchover.stream.reception import Reception

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    Ending = Literal["accept", "drop", "hold"]

ENDINGS = ("accept", "drop", "hold")


class Receiver:
    """Listens for QEMU sources and receives their migrations, one after the other.

    Args:
        listen: "tcp:HOST:PORT" (port 0 lets the system choose) or "unix:PATH": what the source's `migrate` is given.
    """

    def __init__(self, listen: str = "tcp:127.0.0.1:0") -> None:
        self._native: _native.StreamReceiver = _native.StreamReceiver(listen)

    @property
    def endpoint(self) -> str:
        """Where it listens, with the real port."""
        return self._native.endpoint

    @property
    def bytes(self) -> int:
        """Bytes that have come in so far, of the migration that is coming in or came last."""
        return self._native.bytes

    def receive(
        self,
        output: str | Path | None = None,
        *,
        log: str | Path | None = None,
        ending: Ending = "accept",
        limit: units.Time | None = None,
        timeout: units.Time | None = None,
        stall: units.Time | None = None,
        switchover_ack: bool = False,
    ) -> Reception:
        """Receives one migration, to its end.

        Args:
            output: A file to keep the main channel's bytes in; those of other channels go to files with .1, .2, ...
                after its name, and what came when to files with .times after theirs. Without it the bytes are measured
                and forgotten.
            log: A file for the page log, with or without `output`: which pages came when, without their contents.
                `Trace.from_stream` makes a dirty trace of it. Urgent pages of a post-copy are not in it.
            ending: "accept": the source completes, and its guest has left it. "drop": the source loses the link when
                it has stopped its guest to switch over, and goes on running it. That takes the capability
                `return-path` at the source, and no `postcopy-ram`: others are dropped at their first bytes. "hold": a
                source with the capability `switchover-ack` is never told that it may switch over, so that its guest is
                not even stopped; others are dropped as with "drop".
            limit: After that time the migration is dropped, whatever `ending` says.
            timeout: How long to wait for a source; `None` waits for ever.
            stall: How long the source may be silent; `None`: for ever.
            switchover_ack: Says that the source has the capability `switchover-ack`. Sources that show by their
                machine's type that they know of it are answered anyhow.

        Raises:
            LinkError: Nobody came. What goes wrong later is the reception's outcome.
        """
        if ending not in ENDINGS:
            raise UsageError(f"an ending is one of {', '.join(ENDINGS)}, not {ending!r}")
        keep, pages = (None if path is None else Path(path) for path in (output, log))
        times = {"limit": limit, "timeout": timeout, "stall": stall}
        limits = {name: None if value is None else units.parse_time(value, name) for name, value in times.items()}
        text = self._native.receive(keep, pages, ending, switchover_ack=switchover_ack, **limits)
        return Reception(json.loads(text))

    def cancel(self) -> None:
        """Drops the migration that is coming in, or makes the wait for one give up, from any thread."""
        self._native.cancel()

    def close(self) -> None:
        """Stops listening."""
        self._native.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def receive(
    listen: str,
    output: str | Path | None = None,
    *,
    log: str | Path | None = None,
    ending: Ending = "accept",
    limit: units.Time | None = None,
    timeout: units.Time | None = None,
    stall: units.Time | None = None,
    switchover_ack: bool = False,
) -> Reception:
    """Receives one migration at `listen`; see `Receiver.receive`."""
    with Receiver(listen) as receiver:
        return receiver.receive(
            output,
            log=log,
            ending=ending,
            limit=limit,
            timeout=timeout,
            stall=stall,
            switchover_ack=switchover_ack,
        )
