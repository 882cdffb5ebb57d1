"""What a receiver has noted of a migration. Times in seconds since the first connection, sizes in bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Pages:
    """Pages by the way in which they came."""

    raw: int
    zero: int
    xbzrle: int
    compressed: int

    @property
    def total(self) -> int:
        """Pages of all kinds."""
        return self.raw + self.zero + self.xbzrle + self.compressed


@dataclass(frozen=True)
class Pass:
    """One walk over memory, as far as addresses show it: QEMU marks no pass on the wire."""

    start: float
    end: float
    bytes: int
    pages: Pages


@dataclass(frozen=True)
class Section:
    """A section of the main channel: `kind` is `start`, `part`, `end` or `full`; pages of multifd are in none."""

    kind: str
    name: str
    offset: int
    bytes: int
    start: float
    end: float
    pages: Pages


@dataclass(frozen=True)
class Channel:
    """A connection: `role` is `main`, `multifd`, `preempt` or `silent`; `path` is where its bytes are kept."""

    role: str
    number: int | None
    bytes: int
    path: Path | None
    syncs: int
    closed: bool


class Reception:
    """A migration that was received. `data` is all of it, as JSON has it."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data

    @property
    def outcome(self) -> str:
        """`accepted` (the source has let its guest go), `dropped` (it goes on running it) or `failed`."""
        return str(self.data["outcome"])

    @property
    def reason(self) -> str:
        """Why, where it was not accepted."""
        return str(self.data["reason"])

    @property
    def machine(self) -> str | None:
        """The machine's type, such as `pc-i440fx-10.0`, where the stream names it."""
        machine = self.data["machine"]
        return None if machine is None else str(machine)

    @property
    def blocks(self) -> dict[str, int]:
        """Bytes in use of each RAM block, in the source's order."""
        return {block["name"]: block["bytes"] for block in self.data["blocks"]}

    @property
    def duration(self) -> float:
        """From the first connection to the end."""
        return float(self.data["duration"])

    @property
    def stopped(self) -> float | None:
        """When it was seen that the source had stopped its guest."""
        return self._moment("stopped")

    @property
    def complete(self) -> float | None:
        """When all had come in."""
        return self._moment("complete")

    @property
    def bytes(self) -> int:
        """Bytes of all channels."""
        return int(self.data["bytes"])

    @property
    def pages(self) -> Pages:
        """Pages of all channels."""
        return Pages(**self.data["pages"])

    @property
    def passes(self) -> list[Pass]:
        """Walks over memory."""
        return [Pass(**{**each, "pages": Pages(**each["pages"])}) for each in self.data["passes"]]

    @property
    def sections(self) -> list[Section]:
        """Sections of the main channel, up to 131072 of them."""
        return [Section(**{**each, "pages": Pages(**each["pages"])}) for each in self.data["sections"]]

    @property
    def channels(self) -> list[Channel]:
        """Connections, in the order in which they were made."""
        return [Channel(**{**each, "path": each["path"] and Path(each["path"])}) for each in self.data["channels"]]

    @property
    def files(self) -> list[Path]:
        """The files in which the channels' bytes are kept: `sw.stream.open(reception.files)`."""
        return [channel.path for channel in self.channels if channel.path and channel.bytes]

    def to_json(self) -> str:
        """All of it, the throughput over time (`timeline`, one entry for each `step` seconds) included."""
        return json.dumps(self.data)

    def __repr__(self) -> str:
        return f"Reception({self.outcome!r}, {self.bytes} bytes in {self.duration:.3f} s, {len(self.passes)} passes)"

    def _moment(self, name: str) -> float | None:
        value = self.data[name]
        return None if value is None else float(value)
