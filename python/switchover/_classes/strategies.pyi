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

class PostCopy(Strategy):
    """Moves execution first and memory after it (Hines and Gopalan, 2009). The blackout does not depend on
    the guest's size and every page is sent once; what is touched before it has come is asked for, and
    whoever touched it waits. A lost link pauses the guest until another is there. No policy is asked.

    Args:
        prepaging: Order in which pages are pushed: `bubbling`, `sequential`, `recency` or `none`, with knobs as in `bubbling:pivots=4`. Default bubbling.
        chunk_pages: Pages that are pushed together. From 1 to 65536. Default 64.
        looks: Looks at what the guest writes, a moment apart, before execution moves; taken only where the order asks for it. From 0 to 1000. Default 16.
    """
    def __init__(self, prepaging: str = 'bubbling', *, chunk_pages: int | str = 64, looks: int | str = 16, codec: str | Codec | None = "zero") -> None: ...
    prepaging: Any
    chunk_pages: Any
    looks: Any

class Hybrid(Strategy):
    """Copies memory in rounds as pre-copy does and then moves execution ahead of what is still dirty, so
    that few pages are waited for and the end is certain. It goes post-copy after `rounds` rounds or when
    the policy says so; a policy that switches over before makes it end as a pre-copy. The destination
    throws its stale copies away before execution moves.

    Args:
        rounds: Rounds of live copying before execution moves. From 1 to 1e+06. Default 3.
        prepaging: Order in which pages are pushed: `bubbling`, `sequential`, `recency` or `none`, with knobs as in `bubbling:pivots=4`. Default bubbling.
        clear: Clear discipline of the rounds: `early`, `skip` or `late`. Default late.
        chunk_pages: Pages that are sent together in the rounds. From 1 to 65536. Default 256.
        push_pages: Pages that are pushed together after execution has moved. From 1 to 65536. Default 64.
    """
    def __init__(self, rounds: int | str = 3, *, prepaging: str = 'bubbling', clear: str = 'late', chunk_pages: int | str = 256, push_pages: int | str = 64, codec: str | Codec | None = "zero") -> None: ...
    rounds: Any
    prepaging: Any
    clear: Any
    chunk_pages: Any
    push_pages: Any
