"""The page log of a receiver: which pages came when, without their contents."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from switchover import samples
from switchover.errors import StreamError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAGIC = "switchover.pages"
VERSION = 1
# Of the first line, which lists the RAM blocks.
MOST_HEAD = 1 << 20

LOG_ROW = np.dtype(
    [
        ("seconds", "<f8"),
        ("first_page", "<u8"),
        ("block", "<u4"),
        ("pass", "<u4"),
        ("pages", "<u4"),
        ("kind", "u1"),
        ("sent_again", "?"),
        ("unused", "<u2"),
    ]
)
"""A row of a page log, which stands for pages that follow each other: seconds since the first connection, number of the
first page in its block, number of the block, number of the pass, how many pages, kind (0 raw, 1 zero, 2 xbzrle,
3 compressed), and whether they had been sent before."""


@dataclass(frozen=True)
class PageLog:
    """A page log that was read.

    Attributes:
        page_bytes: Size of a page.
        blocks: Bytes of each RAM block, by name, in the source's order.
        rows: An array of `LOG_ROW`.
        samples: What a sample of the pages held, by pass: an array of `samples.SAMPLE`, whose `interval` is the pass.
    """

    page_bytes: int
    blocks: dict[str, int]
    rows: NDArray[Any]
    samples: NDArray[Any]


def is_log(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a page log does."""
    begin = f'{{"{MAGIC}"'.encode()
    try:
        with Path(path).open("rb") as file:
            return file.read(len(begin)) == begin
    except OSError:
        return False


def read_log(path: str | os.PathLike[str]) -> PageLog:
    """Reads a page log; one that is still being written, or was cut off, up to its last whole row.

    Raises:
        UsageError: It cannot be read.
        StreamError: It is no page log.
    """
    try:
        with Path(path).open("rb") as file:
            head = json.loads(file.readline(MOST_HEAD))
            version, found = head[MAGIC], file.read()
        if version != VERSION:
            raise StreamError(f"{path}: a page log of version {version}; this version reads {VERSION}", 0)
        blocks = {block["name"]: int(block["bytes"]) for block in head["blocks"]}
        whole = len(found) - len(found) % LOG_ROW.itemsize
        rows = np.frombuffer(found, dtype=LOG_ROW, count=whole // LOG_ROW.itemsize)
        return PageLog(int(head["page_bytes"]), blocks, rows, read_samples(path))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StreamError(f"{path}: no page log of a receiver: {error}", 0) from error


def read_samples(path: str | os.PathLike[str]) -> NDArray[Any]:
    """What lies beside a log that is complete; none beside one that is not."""
    beside = Path(f"{os.fspath(path)}.samples")
    try:
        return samples.of_records(json.loads(beside.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return samples.NONE
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise StreamError(f"{beside}: no samples of a receiver: {error}", 0) from error
