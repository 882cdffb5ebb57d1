"""What is found in a capture, one thing at a time, in the order in which it counts."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something in a capture.

    Attributes:
        channel: The number of its file in `Capture.files`.
        offset: Position of its first byte in that channel.
        bytes: Its bytes there.
    """

    channel: int
    offset: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Header(Event):
    """The stream begins."""

    version: int


@dataclass(frozen=True, kw_only=True)
class Machine(Event):
    """The machine type, in full."""

    machine: str


@dataclass(frozen=True, kw_only=True)
class Setting(Event):
    """A part of the configuration.

    Attributes:
        setting: `target-page-bits`, `capability` or `uuid`.
        values: What it says, by name.
    """

    setting: str
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Command(Event):
    """What the source tells the destination.

    Attributes:
        command: Such as `ping` or `postcopy-run`.
        values: What it carries, by name.
    """

    command: str
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PackageEnds(Event):
    """The package that a command announced is over."""


@dataclass(frozen=True, kw_only=True)
class SectionBegins(Event):
    """A section's head.

    Attributes:
        kind: `start`, `part`, `end` or `full`.
        id: The number that the parts of one device share.
    """

    kind: str
    id: int
    name: str
    instance: int
    version: int


@dataclass(frozen=True, kw_only=True)
class SectionEnds(SectionBegins):
    """A section is over; `began` is the position of its head."""

    began: int


@dataclass(frozen=True, kw_only=True)
class ListedBlock(Event):
    """A RAM block is listed; `block_bytes` is its length."""

    name: str
    block_bytes: int


@dataclass(frozen=True, kw_only=True)
class Pages(Event):
    """Pages that follow each other in a block, of one kind, without anything between.

    Attributes:
        block: The RAM block's name.
        kind: `raw`, `zero`, `xbzrle`, `compressed`, or `fill` for one byte that is not 0.
        first: Number of the first page in the block.
        pages: How many.
    """

    block: str
    kind: str
    first: int
    pages: int


@dataclass(frozen=True, kw_only=True)
class Flush(Event):
    """All channels are brought to the same point."""


@dataclass(frozen=True, kw_only=True)
class PagesEnd(Event):
    """The pages of this section are over."""


@dataclass(frozen=True, kw_only=True)
class Data(Event):
    """A piece of a device's state."""


@dataclass(frozen=True, kw_only=True)
class SectionsEnd(Event):
    """No sections follow."""


@dataclass(frozen=True, kw_only=True)
class Description(Event):
    """A piece of the VM description."""


@dataclass(frozen=True, kw_only=True)
class DescriptionEnds(Event):
    """The VM description is complete."""


@dataclass(frozen=True, kw_only=True)
class Trailing(Event):
    """Bytes after the end."""


@dataclass(frozen=True, kw_only=True)
class Channel(Event):
    """A multifd channel begins; `number` is the source's for it."""

    number: int
    uuid: str


@dataclass(frozen=True, kw_only=True)
class Packet(Event):
    """A multifd packet's head.

    Attributes:
        number: Grows over all channels.
        pages: Pages that it carries.
        zeros: Pages that it says are zero.
        payload: Bytes after the head.
        packing: `none`, `zlib`, `zstd`, `qpl`, `uadk` or `qatzip`.
        sync: Whether channels meet after it.
        device: Whether it carries a device's state instead of pages.
    """

    number: int
    pages: int
    zeros: int
    payload: int
    packing: str
    sync: bool
    device: bool


@dataclass(frozen=True, kw_only=True)
class Sync(Event):
    """A point at which channels meet."""


KINDS: dict[str, type[Event]] = {
    "header": Header,
    "machine": Machine,
    "setting": Setting,
    "command": Command,
    "package-ends": PackageEnds,
    "section-begins": SectionBegins,
    "section-ends": SectionEnds,
    "block": ListedBlock,
    "pages": Pages,
    "flush": Flush,
    "pages-end": PagesEnd,
    "data": Data,
    "sections-end": SectionsEnd,
    "description": Description,
    "description-ends": DescriptionEnds,
    "trailing": Trailing,
    "channel": Channel,
    "packet": Packet,
    "sync": Sync,
}
_FIELDS = {kind: {each.name for each in fields(kind)} for kind in KINDS.values()}


def read(line: str) -> Event:
    """The event of a line of the listing."""
    found = json.loads(line)
    kind = KINDS[found.pop("event")]
    known = _FIELDS[kind]
    own = {key: value for key, value in found.items() if key in known}
    if "values" in known:
        own["values"] = {key: value for key, value in found.items() if key not in known}
    return kind(**own)
