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

class Xbzrle(Codec):
    """Runs of bytes changed since the version the destination has, in QEMU's XBZRLE encoding; raw without a base.

    Args:
        cache: Memory that a migration's source takes for the versions sent last; QEMU's `xbzrle-cache-size`. In bytes. From 64 KiB to 1 TiB. Default 64 MiB.
    """
    def __init__(self, cache: Size = 67108864) -> None: ...
    cache: Any

class Lz4(Codec):
    """Each page an LZ4 block, without frame or length.
    """
    def __init__(self) -> None: ...

class Zstd(Codec):
    """Each page a Zstandard frame. With a dictionary, which is trained on a sample of the guest's pages and sent
    ahead, pages that share content with others become far shorter.

    Args:
        level: Effort; negative levels are faster than 1, which is QEMU's default for `multifd-zstd-level`. From -100 to 22. Default 1.
        dictionary: Size of the dictionary to train; 0 for none. A hundredth of the sample's size suits. In bytes. From 0 B to 1 MiB. Default 0 B.
    """
    def __init__(self, level: int | str = 1, *, dictionary: Size = 0) -> None: ...
    level: Any
    dictionary: Any

class Delta(Codec):
    """The XOR of a page with the version the destination has, mostly zeros, compressed by another codec. Without a
    base the page itself is compressed. The differences of a batch are compressed together.

    Args:
        inner: What compresses: zstd or lz4. Default zstd.
        level: Effort of zstd; negative levels are faster than 1. From -100 to 22. Default 1.
        cache: Memory that a migration's source takes for the versions sent last. In bytes. From 64 KiB to 1 TiB. Default 64 MiB.
    """
    def __init__(self, inner: str = 'zstd', *, level: int | str = 1, cache: Size = 67108864) -> None: ...
    inner: Any
    level: Any
    cache: Any

class Dedup(Codec):
    """Pages equal to one sent before are named by four bytes. Each side keeps a window of the last distinct pages.

    Args:
        window: Memory of the window on each side. In bytes. From 64 KiB to 16 GiB. Default 64 MiB.
    """
    def __init__(self, window: Size = 67108864) -> None: ...
    window: Any

class Chain(Codec):
    """The first of several codecs that shortens a page encodes it, at the cost of one byte. Cheap and sharp ones
    go first: zero, dedup, then a difference, then a compressor.

    Args:
        parts: The codecs, in the order in which they are tried; no chains among them. Default [{'name': 'zero'}, {'name': 'dedup'}, {'name': 'delta'}].
    """
    def __init__(self, parts: Any = ...) -> None: ...
    parts: Any

class Adaptive(Codec):
    """The codec that suits each kind of page at the time: by its measured cost and gain, and by whether the link waits
    for the encoder or the encoder for the link.

    Args:
        candidates: The codecs to choose among, beside pages as they are; none that names earlier pages, as dedup does. Default [{'name': 'lz4'}, {'name': 'zstd'}, {'level': 5, 'name': 'zstd'}, {'name': 'xbzrle'}, {'name': 'delta-lz4'}, {'name': 'delta-zstd'}].
        cache: Memory that a migration's source takes for the versions sent last. In bytes. From 64 KiB to 1 TiB. Default 64 MiB.
    """
    def __init__(self, candidates: Any = ..., *, cache: Size = 67108864) -> None: ...
    candidates: Any
    cache: Any
