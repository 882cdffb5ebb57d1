"""Samples of content: what the pages written in an interval looked like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from switchover import _native

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

SAMPLE = np.dtype(
    [
        ("interval", "<u4"),
        ("pages", "<u4"),
        ("zero", "<u4"),
        ("duplicates", "<u4"),
        ("lz4", "<u8"),
        ("zstd", "<u8"),
        ("based", "<u4"),
        ("xbzrle", "<u8"),
        ("delta", "<u8"),
    ]
)
"""A sample: the interval's number; pages that were read; of them zero pages; pages whose content another sampled page
has; bytes of the pages that are not zero by `lz4` and by `zstd`; pages of which an earlier version was there, and
their bytes by `xbzrle` and by `delta` (zstd of the difference) against it."""

NONE: NDArray[Any] = np.empty(0, dtype=SAMPLE)
"""No samples."""


def of_records(records: Iterable[Mapping[str, int]]) -> NDArray[Any]:
    """Samples out of what the engine says of each."""
    names = SAMPLE.names or ()
    return np.array([tuple(record[name] for name in names) for record in records], dtype=SAMPLE)


def to_columns(samples: NDArray[Any]) -> dict[str, list[int]]:
    """What the file has: a list of numbers a field."""
    return {name: samples[name].tolist() for name in SAMPLE.names or ()}


def of_columns(columns: Mapping[str, list[int]]) -> NDArray[Any]:
    """The samples that a file has.

    Raises:
        ValueError: The columns are not those of samples.
    """
    names = SAMPLE.names or ()
    lengths = {len(columns[name]) for name in names}
    if len(lengths) != 1:
        raise ValueError("the columns of its samples differ in length")
    samples = np.empty(lengths.pop(), dtype=SAMPLE)
    for name in names:
        samples[name] = columns[name]
    return samples


def shares(samples: NDArray[Any]) -> dict[str, float | None]:
    """All samples in short, each page counting alike: shares of pages, and sizes as shares of raw ones.

    `zero` is of all pages, the others of those that are not zero; `xbzrle` and `delta` of those that were met before.
    `duplicates` is a lower bound: it knows only the pages that were sampled. None where there is nothing to tell.

        >>> shares(of_records([dict.fromkeys(SAMPLE.names, 2) | {"pages": 4, "zstd": 4096}]))["zstd"]
        0.5
    """
    total = {name: int(samples[name].sum()) for name in SAMPLE.names or ()}
    full = total["pages"] - total["zero"]

    def share(part: int, whole: int) -> float | None:
        return part / whole if whole else None

    return {
        "zero": share(total["zero"], total["pages"]),
        "duplicates": share(total["duplicates"], full),
        "lz4": share(total["lz4"], full * _native.PAGE),
        "zstd": share(total["zstd"], full * _native.PAGE),
        "xbzrle": share(total["xbzrle"], total["based"] * _native.PAGE),
        "delta": share(total["delta"], total["based"] * _native.PAGE),
    }
