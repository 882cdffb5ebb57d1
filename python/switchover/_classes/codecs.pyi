"""Types of the classes of `switchover.codecs`. Written by scripts/stubs.py."""

from typing import Any

from switchover.codecs import Codec
from switchover.units import Number, Rate, Size, Time

class Raw(Codec):
    """Pages as they are, zero pages included: the plain case that others are measured against.
    """
    def __init__(self) -> None: ...

class Zero(Codec):
    """Zero pages are named, not sent; the others are raw.
    """
    def __init__(self) -> None: ...
