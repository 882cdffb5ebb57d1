"""A capture: the files of one migration."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from switchover import _native
from switchover.errors import StreamError, UsageError
from switchover.stream import events

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

PAGE_ROW = np.dtype(
    [
        ("seconds", "<f8"),
        ("offset", "<u8"),
        ("page", "<u8"),
        ("block", "<u4"),
        ("pass", "<u4"),
        ("bytes", "<u4"),
        ("channel", "<u2"),
        ("kind", "u1"),
        ("sent_again", "?"),
    ]
)
"""A row of `Capture.pages`: seconds since the first connection by which it had come (not a number where no receiver
noted that), position in the channel, number of the page in its block, number of the block in
`Capture.blocks`, number of the pass in `Capture.passes`, bytes in the stream, channel, kind (0 raw, 1 zero, 2 xbzrle,
3 compressed), and whether the page had been sent before."""


@dataclass(frozen=True)
class Counts:
    """Pages by kind; `sent_again` of all these had been sent before; `bytes` is what they took in the stream."""

    raw: int
    zero: int
    xbzrle: int
    compressed: int
    sent_again: int
    bytes: int

    @property
    def pages(self) -> int:
        """All pages."""
        return self.raw + self.zero + self.xbzrle + self.compressed


@dataclass(frozen=True)
class Block:
    """A RAM block.

    Attributes:
        name: Such as `pc.ram`.
        bytes: Its length.
        distinct_pages: Pages that came at least once.
        counts: All that came.
    """

    name: str
    bytes: int
    distinct_pages: int
    counts: Counts


@dataclass(frozen=True)
class Pass:
    """A pass over memory. The stream does not mark passes: where one ends is inferred.

    Attributes:
        kind: `live` (the guest ran at the source), `final` (it had stopped) or `post-copy`.
        channel: Where its first page is.
        offset: Position of its first page in that channel.
        times: When its first and its last page came, in seconds since the first connection, where a receiver noted it.
        counts: All pages of it.
        blocks: The same by RAM block.
    """

    kind: str
    channel: int
    offset: int
    times: tuple[float, float] | None
    counts: Counts
    blocks: dict[str, Counts]


@dataclass(frozen=True)
class Device:
    """A device's state.

    Attributes:
        name: The section's name, such as `0000:00:02.0/vga`.
        instance: Tells devices of the same name apart.
        version: Of its format.
        offset: Position of its section.
        bytes: Length of its state.
        state: Values by the VM description; a hexadecimal text without one.
        problem: Why the description does not fit, if there is one.
    """

    name: str
    instance: int
    version: int
    offset: int
    bytes: int
    state: Any
    problem: str | None = None


@dataclass(frozen=True)
class Problem:
    """Where a capture breaks its format or ends too early: the position, and what was expected."""

    offset: int
    reason: str


def open_capture(*paths: Paths) -> Capture:
    """Opens a capture.

    Args:
        paths: The files of one migration, in any order, or a folder of them; `-` is the standard input, which can be
            looked at once.

    Raises:
        UsageError: A file is missing, or there is not exactly one main channel.
        StreamError: A file is no part of a migration.
    """
    return Capture(*paths)


class Capture:
    """The files of one migration. Each look at it reads them anew; nothing is kept but the summary and the memory."""

    def __init__(self, *paths: Paths) -> None:
        flat: list[str] = []
        for each in paths:
            several = [each] if isinstance(each, str | os.PathLike) else each
            flat += [os.fspath(path) for path in several]
        if not flat:
            raise UsageError("no file: give the files of a migration, or a folder of them")
        self.paths = flat
        # Files that cannot be a capture are refused here rather than at the first look; a pipe allows one look only.
        if not any(path == "-" or Path(path).is_fifo() for path in flat):
            _native.StreamLines(flat, json=True, each_page=False)
        self._images: dict[str, NDArray[np.uint8]] | None = None

    @cached_property
    def summary(self) -> dict[str, Any]:
        """All figures, as `switchover stream inspect --json` prints them."""
        found: dict[str, Any] = json.loads(_native.stream_summary(self.paths))
        return found

    @property
    def files(self) -> list[str]:
        """The files, numbered as in `Event.channel`; return paths are left out."""
        return [file["path"] for file in self.summary["files"]]

    @property
    def machine(self) -> str | None:
        """The machine type in full; none for types up to 2.3."""
        found: str | None = self.summary["machine"]
        return found

    @property
    def page_bytes(self) -> int:
        """Size of a page in bytes."""
        return int(self.summary["page_bytes"])

    @property
    def problem(self) -> Problem | None:
        """The first offence; `None` for a capture that is whole and right."""
        found = self.summary["problem"]
        return Problem(**found) if found else None

    @property
    def blocks(self) -> list[Block]:
        """The RAM blocks in the order of the list."""
        return [
            Block(each["name"], each["block_bytes"], each["distinct_pages"], counts(each["counts"]))
            for each in self.summary["blocks"]
        ]

    @property
    def passes(self) -> list[Pass]:
        """The passes."""
        return [
            Pass(
                each["kind"],
                each["channel"],
                each["offset"],
                tuple(each["times"]) if each["times"] else None,
                counts(each["counts"]),
                {name: counts(of) for name, of in each["blocks"].items()},
            )
            for each in self.summary["passes"]
        ]

    @cached_property
    def devices(self) -> list[Device]:
        """State of the devices, by the VM description.

        Raises:
            StreamError: The capture is not whole.
        """
        return [Device(**each) for each in json.loads(_native.stream_devices(self.paths))]

    def validate(self) -> None:
        """Does nothing if the capture is whole and right.

        Raises:
            StreamError: The first offence, with its position.
        """
        if self.problem:
            raise StreamError(f"at byte {self.problem.offset}: {self.problem.reason}", self.problem.offset)

    def __iter__(self) -> Iterator[events.Event]:
        """All events, in the order in which they count."""
        for lines in _native.StreamLines(self.paths, json=True, each_page=False):
            for line in lines.splitlines():
                yield events.read(line)

    def listing(self, *, each_page: bool = True) -> Iterator[str]:
        """Lines for people: channel, position, bytes, and what is there; many lines a text."""
        yield from _native.StreamLines(self.paths, json=False, each_page=each_page)

    def pages(self) -> Iterator[NDArray[np.void]]:
        """A row for each page, many at a time, as arrays of `PAGE_ROW`: what was sent when, and what was sent again."""
        for rows in _native.StreamPages(self.paths):
            yield np.frombuffer(rows, dtype=PAGE_ROW)

    @property
    def seconds(self) -> float | None:
        """From the first connection to the last byte, where a receiver noted it."""
        found: float | None = self.summary["seconds"]
        return found

    def extract(self, folder: str | os.PathLike[str]) -> dict[str, Path]:
        """Writes each RAM block into a file of `folder`, named after it.

        Returns:
            The files by the blocks' names.

        Raises:
            StreamError: The first offence; what came before it is in the files.
        """
        made = _native.stream_extract(self.paths, os.fspath(folder))
        return {name: Path(path) for name, path, _ in made}

    def core(self, file: str | os.PathLike[str], addresses: dict[str, int] | None = None) -> dict[str, Any]:
        """Writes an ELF core file of the guest's physical memory, for gdb, crash and Volatility.

        Args:
            file: Its path.
            addresses: Guest-physical addresses of RAM blocks. Those of `pc` and `q35` machines are known.

        Returns:
            `segments` (block, address, offset, bytes), the blocks that are `left_out` as nobody knows where they lie,
            and the number of `processors` whose registers are in it.
        """
        given = list((addresses or {}).items())
        written: dict[str, Any] = json.loads(_native.stream_core(self.paths, os.fspath(file), given))
        return written

    def squash(self, file: str | os.PathLike[str], *, mapped_ram: bool = False) -> int:
        """Writes a smaller stream with the final content only, which a QEMU of the same machine type loads.

        Args:
            file: Its path.
            mapped_ram: Write a mapped-ram file, with holes for zero pages: QEMU 9.0 and later loads it with that
                capability set.

        Returns:
            Its bytes, holes included.
        """
        # Beside the file there is room for it.
        with tempfile.TemporaryDirectory(prefix=".switchover-", dir=Path(file).absolute().parent) as folder:
            return _native.stream_squash(self.paths, os.fspath(file), folder, mapped_ram)

    def diff(self, other: Capture) -> dict[str, Any]:
        """What differs from another capture.

        Returns:
            `blocks`: name (`block`), `bytes` in both, number of `pages` that differ, and their `runs` (first, count);
            `fields`: the path of the `field` and its `values` in both.
        """
        with tempfile.TemporaryDirectory(prefix="switchover-") as folder:
            found: dict[str, Any] = json.loads(_native.stream_diff(self.paths, other.paths, folder))
            return found

    def memory(self, block: str) -> NDArray[np.uint8]:
        """A RAM block as it was at the end: a memory map of a temporary file that is gone with the last array of it.

        Raises:
            UsageError: There is no such block.
            StreamError: The capture is not whole.
        """
        if self._images is None:
            self._images = self._map_all()
        if block not in self._images:
            raise UsageError(f"no RAM block `{block}`; there are: {', '.join(self._images)}")
        return self._images[block]

    def _map_all(self) -> dict[str, NDArray[np.uint8]]:
        with tempfile.TemporaryDirectory(prefix="switchover-") as folder:
            return {name: np.memmap(path, dtype=np.uint8, mode="r") for name, path in self.extract(folder).items()}

    def close(self) -> None:
        """Lets go of the memory maps."""
        self._images = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Capture({', '.join(map(repr, self.paths))})"


def counts(found: dict[str, Any]) -> Counts:
    """The figures among others."""
    return Counts(**{each.name: found[each.name] for each in fields(Counts)})
