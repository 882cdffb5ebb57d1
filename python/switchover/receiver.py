"""The destination of guests from other processes and hosts: what `switchover receive` runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from switchover import _native, units
from switchover.guest import Guest

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


class Receiver:
    """Listens for guests and takes them in, one after the other.

    Args:
        listen: "HOST:PORT" (port 0 lets the system choose) or "unix:PATH".
        stall_timeout: How long a source may be silent before it counts as lost.
        recovery_timeout: How long a guest that is ahead of its memory waits for a source that lost its link.

    Examples:
        >>> with Receiver("127.0.0.1:0") as receiver:
        ...     receiver.endpoint.startswith("tcp:127.0.0.1:")
        True
    """

    def __init__(
        self,
        listen: str = "127.0.0.1:0",
        *,
        stall_timeout: units.Time = "10s",
        recovery_timeout: units.Time = "60s",
    ) -> None:
        self._recovery = units.parse_time(recovery_timeout, "recovery_timeout")
        self._stall = units.parse_time(stall_timeout, "stall_timeout")
        self._native: _native.Receiver = _native.Receiver(listen)

    @property
    def endpoint(self) -> str:
        """Where it listens, with the real port."""
        return self._native.endpoint

    def accept(self, timeout: units.Time | None = None) -> Guest:
        """Takes one guest in; returns when it runs here with all of its memory.

        A source that loses its link in post-copy may come back over another: the guest's vCPUs wait meanwhile.

        Args:
            timeout: How long it may take to come; `None` waits for ever.

        Raises:
            LinkError: Nobody came, the source was lost or gave up; nothing of its guest is left here. In
                post-copy: it did not come back in time, and the guest is lost.
            StreamError: The peer talked rubbish; says at which byte.
        """
        limit = None if timeout is None else units.parse_time(timeout, "timeout")
        return Guest.arrived(self._native.accept(limit, self._stall, self._recovery))

    def cancel(self) -> None:
        """Makes `accept` give up, from any thread."""
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
