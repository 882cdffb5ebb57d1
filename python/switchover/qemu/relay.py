"""What stands between a source and its destination: a shaped link that notes when the parts of a migration go by."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from switchover import _native
from switchover.link import Link

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


class Relay:
    """Carries a migration over a link, through this process: `migrate(..., through=relay)`.

    It reads the main channel on its way and changes nothing. With encryption it sees nothing.

    Args:
        link: What it is carried over; as fast as it goes if left out.
        folder: Where its sockets are; one of its own if left out. The path of a socket has at most 107 bytes.
    """

    def __init__(self, link: Link | str | None = None, folder: Path | None = None) -> None:
        self.link = Link.of(link)
        self._own = None if folder else Path(tempfile.mkdtemp(prefix="switchover-relay-"))
        self._folder = folder or self._own or Path()
        self.made: list[_native.Forwarder] = []
        """Those that a source connects to: one for each address."""
        self._far: list[_native.Forwarder] = []

    def __call__(self, uri: str) -> str:
        """The address that leads to `uri` over the link."""
        # Moments are those at which bytes come out of the link, not those at which they go in.
        shaped = self.link.spec() != Link().spec()
        nearer = self._add(self._far, f"far{len(self._far)}", uri, Link()) if shaped else uri
        return self._add(self.made, f"link{len(self.made)}", nearer, self.link)

    def _add(self, made: list[_native.Forwarder], name: str, uri: str, link: Link) -> str:
        # A QEMU that another user runs cannot come into our folder.
        by_path = uri.startswith("unix:")
        listen = f"unix:{self._folder / name}" if by_path else "tcp:127.0.0.1:0"
        made.append(_native.Forwarder(listen, uri, json.dumps(link.spec())))
        return listen if by_path else f"tcp:{made[-1].endpoint.removeprefix('tcp:')}"

    @property
    def carried(self) -> int:
        """Bytes that sources have sent."""
        return sum(each.carried for each in self.made)

    def moments(self) -> dict[str, Any]:
        """When the parts of the migration had been handed to the destination's socket, in seconds since 1970.

        `switchover_start`, `last_ram_begins`, `last_ram_ends`, `package_begins`, `package_ends`, `sections_end`,
        `description_ends`, `beside` (the last bytes on other connections), `first_request` and `shut` (what the
        destination said), each `None` if not seen; and `error`, why the main channel was not read on.
        """
        # What comes after a recovery is a rest of pages: the first connection had the switchover.
        first = (self._far or self.made)[:1]
        return json.loads(first[0].moments) if first else {}

    @property
    def has_read(self) -> bool:
        """Whether the stream's end has gone by, or nothing of it can be told."""
        moments = self.moments()
        return not moments or moments["error"] is not None or moments["sections_end"] is not None

    def cut(self) -> None:
        """Breaks all connections off, as a lost link does."""
        for each in (*self.made, *self._far):
            each.cut()

    def close(self) -> None:
        """Ends them."""
        for each in (*self.made, *self._far):
            each.close()
        if self._own:
            shutil.rmtree(self._own, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
