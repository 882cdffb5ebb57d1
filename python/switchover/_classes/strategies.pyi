"""Types of the classes of `switchover.strategies`. Written by scripts/stubs.py."""

from typing import Any

from switchover.codecs import Codec
from switchover.strategies import Strategy
from switchover.units import Number, Rate, Size, Time

class PreCopy(Strategy):
    """Copies memory while the guest writes, then what was written meanwhile, until the policy switches
    over (Clark et al., 2005). When a page's dirty bit is cleared decides how little can remain: with
    `early` all bits are cleared at the round's start; with `skip` too, and pages already dirty again
    are not sent; with `late` the bits of a chunk are cleared just before it is sent.

    Args:
        clear: Clear discipline: `early`, `skip` or `late`. Default late.
        chunk_pages: Pages that are sent together, and cleared together with `late`. From 1 to 65536. Default 256.
    """
    def __init__(self, clear: str = 'late', *, chunk_pages: int | str = 256, codec: str | Codec | None = "zero") -> None: ...
    clear: Any
    chunk_pages: Any

class StopAndCopy(Strategy):
    """Stops the guest, sends all of memory once, runs it on the destination. The blackout is the whole
    transfer, and the bytes are the fewest: memory divided by bandwidth (Clark et al., 2005, stage 3 alone).

    Args:
        chunk_pages: Pages that are sent together. From 1 to 65536. Default 256.
    """
    def __init__(self, chunk_pages: int | str = 256, *, codec: str | Codec | None = "zero") -> None: ...
    chunk_pages: Any
