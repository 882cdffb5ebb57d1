"""The guest of the tests, as a disk image: `boot.hex` with other parameters."""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass
from pathlib import Path

HERE = Path(__file__).parent
PARAMETERS = struct.Struct("<9I")
PARAMETERS_AT = 4
# Ticks of the timer in a millisecond.
MILLISECOND = 3580


@dataclass(frozen=True)
class Boot:
    """What the guest does; see `boot.S`. Pages count 4096 bytes, `interval` in ticks of `MILLISECOND`."""

    first: int = 0x400
    pages: int = 0x800
    kinds: int = 3
    step: int = 7
    words: int = 3
    zeroes: int = 0x1F
    burst: int = 8
    interval: int = MILLISECOND
    passes: int = 0

    def image(self) -> bytes:
        """A disk that a BIOS starts from: with fewer than two cylinders it would not."""
        sector = bytearray.fromhex((HERE / "boot.hex").read_text())
        PARAMETERS.pack_into(sector, PARAMETERS_AT, *astuple(self))
        return bytes(sector) + bytes(2 * 16 * 63 * 512)


IDLE = Boot(passes=1, burst=0x800)
"""Writes every page once more, then rests."""

BUSY = Boot(burst=64)
"""Writes 64 pages a millisecond, some 260 MB/s of dirty pages, in a set of 8 MiB, until it is told to rest."""
