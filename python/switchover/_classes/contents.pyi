"""Types of the classes of `switchover.contents`. Written by scripts/stubs.py."""

from typing import Any

from switchover.contents import Content
from switchover.units import Number, Rate, Size, Time

class Zero(Content):
    """Zeros: pages that a guest clears.
    """
    def __init__(self) -> None: ...

class Counter(Content):
    """A few 8-byte counters are incremented and the rest of the page stays: sub-page edits.

    Args:
        edits: Counters that a write of a page increments. Each page has its own, always the same ones. From 1 to 512. Default 4.
    """
    def __init__(self, edits: int | str = 4) -> None: ...
    edits: Any

class Text(Content):
    """Words of a small vocabulary, frequent and rare ones; a page shrinks 2.5 to 3 times under zstd 1.
    """
    def __init__(self) -> None: ...

class Random(Content):
    """Random bytes, which no codec makes fewer.
    """
    def __init__(self) -> None: ...

class Mix(Content):
    """One word over and over, then random bytes: compresses to about the share of random bytes.

    Args:
        incompressible: Share of incompressible bytes. From 0 to 1. Default 0.4.
    """
    def __init__(self, incompressible: Number = 0.4) -> None: ...
    incompressible: Any

class Image(Content):
    """Pages of several kinds, as in the memory of a machine in use: zero, text, random, and else `mix`.
    What memory is filled with when a guest is made, unless told otherwise.

    Args:
        zero_share: Share of zero pages. From 0 to 1. Default 0.25.
        text_share: Share of text-like pages. From 0 to 1. Default 0.25.
        random_share: Share of random pages. From 0 to 1. Default 0.1.
        incompressible: Share of incompressible bytes in the pages that remain. From 0 to 1. Default 0.4.
    """
    def __init__(self, zero_share: Number = 0.25, *, text_share: Number = 0.25, random_share: Number = 0.1, incompressible: Number = 0.4) -> None: ...
    zero_share: Any
    text_share: Any
    random_share: Any
    incompressible: Any
