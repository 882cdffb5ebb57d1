"""Bake-offs: codecs measured on pages of your own.

    >>> import switchover as sw
    >>> with sw.Guest("2MiB", sw.workloads.Sweep(rate="20MB/s", content=sw.contents.Counter()), seed=7) as guest:
    ...     found = sw.codecs.bakeoff(guest, ["raw", "xbzrle", "zstd"], interval="20ms", passes=1)
    >>> int(found.row("raw").bytes_per_page)
    4096
    >>> bool(found.row("xbzrle", "again").ratio < 0.5)
    True

What is measured is what a lane of a migration does, in processor time of one thread; `docs/which-codec.md` says more.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from switchover import _native, codecs, units
from switchover.errors import UsageError
from switchover.guest import Guest
from switchover.stream import Capture

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from numpy.typing import NDArray
    from typing_extensions import Buffer

Image: TypeAlias = "str | os.PathLike[str] | Buffer"
"""A memory image: a file's name, or its bytes."""
Source: TypeAlias = "int | Guest | Capture | Image | Sequence[Image]"
"""Where pages come from; see [`bakeoff`][switchover.bakeoff.bakeoff]."""

CODECS = (
    "raw",
    "zero",
    "xbzrle",
    "lz4",
    "zstd",
    "zstd:level=5",
    "delta-lz4",
    "delta-zstd",
    "dedup",
    "dedup+delta-zstd",
)
"""The codecs that are compared unless others are asked for; where a link is given, `adaptive` as well."""

LINKS = ("100Mbit/s", "1Gbit/s", "10Gbit/s", "25Gbit/s", "40Gbit/s", "100Gbit/s")
"""The links for which speeds are shown."""

ROW = np.dtype(
    [
        ("codec", "U64"),
        ("part", "U5"),
        ("pages", "<u8"),
        ("zero_pages", "<u8"),
        ("raw_pages", "<u8"),
        ("bytes", "<u8"),
        ("bytes_per_page", "<f8"),
        ("ratio", "<f8"),
        ("encode_ns", "<f8"),
        ("encode_ns_least", "<f8"),
        ("encode_ns_most", "<f8"),
        ("decode_ns", "<f8"),
        ("decode_ns_least", "<f8"),
        ("decode_ns_most", "<f8"),
        ("encode_rate", "<f8"),
        ("decode_rate", "<f8"),
        ("cpu_seconds_per_gib", "<f8"),
        ("hit_rate", "<f8"),
        ("break_even", "<f8"),
    ]
)
"""A codec's figures on the pages sent for the `first` time, or on those that came `again` in a later version.

`raw_pages` stayed as they were, `ratio` is `bytes` over the pages' own. `encode_ns` and `decode_ns` are nanoseconds of
processor time a page, the median of all passes, between the least and the most; `encode_rate` and `decode_rate` the
bytes of pages that one thread does in a second, NaN where there is nothing to do. `hit_rate` is the share of pages of
which an earlier version (with `dedup` an equal page) was at hand, NaN for codecs that look at nothing earlier.
`break_even` is the fastest link, in bytes a second for each channel, on which the codec is ahead of raw pages: 0 where
it shortens nothing, NaN where there is nothing to do."""


class BakeOff:
    """The figures of some codecs on some pages.

    Attributes:
        rows: A row for each codec and part: see [`ROW`][switchover.bakeoff.ROW].
        facts: About the pages: `memory_pages` that they were chosen from, different `pages` taken, `versions` of them,
            `zero_pages` among those, `rounds` in which they were sent.
        choices: For codecs that choose, pages by candidate.
    """

    def __init__(self, facts: dict[str, int], found: dict[str, dict[str, Any]]) -> None:
        self.facts = facts
        self.details = found
        rows = [
            _row(codec, part, each[part]) for part in ("first", "again") for codec, each in found.items() if each[part]
        ]
        self.rows: NDArray[Any] = np.array(rows, dtype=ROW)
        self.choices = {codec: dict(each["choices"]) for codec, each in found.items() if each["choices"]}

    @property
    def parts(self) -> list[str]:
        """`first`, and `again` where pages came again."""
        return [part for part in ("first", "again") if (self.rows["part"] == part).any()]

    def of(self, part: str) -> Any:
        """The rows of a part, with fields as attributes."""
        return self.rows[self.rows["part"] == part].view(np.recarray)

    def row(self, codec: str, part: str = "first") -> Any:
        """The figures of a codec; fields are attributes.

        Raises:
            UsageError: It was not measured.
        """
        mine = self.of(part)
        mine = mine[mine.codec == codec]
        if not len(mine):
            names = ", ".join(dict.fromkeys(self.rows["codec"].tolist()))
            raise UsageError(f"no figures of {codec!r} on pages sent {part!r}; there are: {names}")
        return mine[0]

    def rates(self, link: units.Rate, part: str = "first", channels: int = 1) -> dict[str, float]:
        """Bytes of pages that each codec gets through in a second: by the link, or by the slower end.

        Args:
            link: Its bandwidth, all channels together.
            part: `first` or `again`.
            channels: Each has an encoder and a decoder of its own, and a processor to run them on.
        """
        bandwidth = units.parse_rate(link, "link")
        if bandwidth <= 0:
            raise UsageError(f"link: a bandwidth above 0 is needed, not {link!r}")
        mine = self.of(part)
        # NaN is no limit: there is nothing to do.
        speed = np.fmin(mine.encode_rate, mine.decode_rate)
        carried = np.divide(bandwidth, mine.ratio, out=np.full(len(mine), np.inf), where=mine.ratio > 0)
        return dict(zip(mine.codec.tolist(), np.fmin(carried, channels * speed).tolist(), strict=True))

    def best(self, link: units.Rate, part: str = "first", channels: int = 1) -> str:
        """The codec that gets pages through fastest; the one with the least processor time among those within 1 %."""
        rates = self.rates(link, part, channels)
        most = max(rates.values())
        level = [codec for codec, rate in rates.items() if rate >= 0.99 * most or math.isinf(rate)]
        return min(level, key=lambda codec: float(self.row(codec, part).cpu_seconds_per_gib))

    def to_frame(self) -> pd.DataFrame:
        """The rows as a pandas data frame.

        Raises:
            UsageError: pandas is not installed.
        """
        from switchover import extra

        pandas: Any = extra.load("pandas", "frame")
        return pandas.DataFrame(self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        return {"pages": self.facts, "codecs": self.details}

    def chart(self, part: str = "first", title: str = "") -> str:
        """How many times as fast as raw each codec is, over the link's speed, as SVG."""
        from switchover.svg import speed_chart

        return speed_chart(self, part, title)


def _row(codec: str, part: str, figures: dict[str, Any]) -> tuple[Any, ...]:
    flat = dict(figures)
    for name in ("encode_ns", "decode_ns"):
        spread = flat.pop(name)
        flat |= {name: spread["median"], f"{name}_least": spread["least"], f"{name}_most": spread["most"]}
    values = {"codec": codec, "part": part} | {name: math.nan if flat[name] is None else flat[name] for name in flat}
    return tuple(values[name] for name in ROW.names or ())


def bakeoff(
    source: Source,
    compared: Iterable[codecs.Codec | str] | None = None,
    *,
    link: units.Rate | None = None,
    memory: units.Size = "32MiB",
    rounds: int = 3,
    interval: units.Time = "1s",
    passes: int = 5,
    together: bool = True,
    on_progress: Callable[[str, int, int], object] | None = None,
) -> BakeOff:
    """Measures codecs on real pages.

    Args:
        source: The number of a running process; a guest, which is started; a captured migration of QEMU's, whose pages
            come again as they did there; a memory image as a file's name or as bytes; or a list of images, which are
            versions of one memory.
        compared: The codecs; those of `CODECS` unless given.
        link: A bandwidth that `adaptive` is told of, which is then among the codecs.
        memory: Most bytes of different pages to take; from a larger memory, runs of 64 pages all over it.
        rounds: Looks at a process or guest: pages that changed from one to the next are sent again.
        interval: Between two looks.
        passes: Over all pages, for each codec; fewer where they take more than 10 seconds.
        together: Whether pages are encoded in batches of 64, as in migrations, or each by itself.
        on_progress: Called before each codec with its name, its number from 0, and how many there are.

    Raises:
        UsageError: A source, codec or number that cannot be.
        StreamError: The capture breaks its format; says where.
        TrackerUnavailable: The process may not be read.
    """
    chosen = _named(compared, link)
    bandwidth = None if link is None else units.parse_rate(link, "link")
    pages = _taken(source, units.parse_count(rounds, "rounds"), interval, units.parse_size(memory, "memory"))
    found = {}
    for index, (name, codec) in enumerate(chosen.items()):
        if on_progress:
            on_progress(name, index, len(chosen))
        found[name] = json.loads(
            pages.bake(json.dumps(codec.spec()), units.parse_count(passes, "passes"), 10.0, together, bandwidth)
        )
    return BakeOff(json.loads(pages.facts()), found)


def _named(compared: Iterable[codecs.Codec | str] | None, link: object) -> dict[str, codecs.Codec]:
    default = CODECS if link is None else (*CODECS, "adaptive")
    given = [compared] if isinstance(compared, str | codecs.Codec) else list(default if compared is None else compared)
    named = {each if isinstance(each, str) else _label(each): codecs.registry.of(each) for each in given}
    if not named:
        raise UsageError("a bake-off needs a codec")
    if long := [name for name in named if len(name) > 64]:
        raise UsageError(f"codec {long[0][:64]}...: a name of more than 64 characters")
    return named


def _label(codec: codecs.Codec) -> str:
    """A codec as users write it: `zstd:level=5`."""
    knobs = ",".join(f"{name}={value}" for name, value in codec.spec().items() if name != "name")
    return f"{codec.name}:{knobs}" if knobs else codec.name


def _taken(source: Source, rounds: int, interval: units.Time, memory: int) -> _native.PageSet:
    step = units.parse_time(interval, "interval")
    if isinstance(source, Guest):
        source.start()
        return _native.PageSet.of_guest(source.native(), _within(rounds), step, memory)
    if isinstance(source, Capture):
        return _native.PageSet.of_stream(source.paths, memory)
    if isinstance(source, int) and not isinstance(source, bool):
        if not 0 < source < 2**31:
            raise UsageError(f"there is no process {source}")
        return _native.PageSet.of_process(source, _within(rounds), step, memory)
    images: list[Any] = [source] if isinstance(source, str | os.PathLike) or _is_buffer(source) else list(source)  # type: ignore[arg-type]
    names = [image for image in images if isinstance(image, str | os.PathLike)]
    if names and len(names) < len(images):
        raise UsageError("versions of a memory are all files or all bytes")
    return _native.PageSet.of_files(names, memory) if names else _native.PageSet.of_bytes(images, memory)


def _within(rounds: int) -> int:
    """Rounds that the engine can count; it says which it takes."""
    return min(rounds, 2**32 - 1)


def _is_buffer(source: object) -> bool:
    try:
        memoryview(source)  # type: ignore[arg-type]
    except TypeError:
        return False
    return True
