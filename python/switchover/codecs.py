"""Page codecs: how a page's bytes become fewer.

>>> import switchover as sw
>>> codec = sw.codecs.get("zero")
>>> codec.encode(bytes(4096)), codec.encode(b"x" * 4096)
(b'', None)
>>> codec.decode(b"") == bytes(4096)
True

Names combine: `zero+dedup+delta-zstd` is the chain of three, whose knobs go to each part that has them.

>>> sw.codecs.get("delta-lz4") == sw.codecs.Delta(inner="lz4")
True
"""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING

from switchover import _native
from switchover.errors import UsageError
from switchover.part import Part, Registry

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Codec(Part):
    """Turns pages of 4096 bytes into fewer bytes and back."""

    kind = "codec"

    @cached_property
    def _codec(self) -> _native.Codec:
        return _native.Codec(json.dumps(self.spec()))

    def encode(self, page: Buffer, base: Buffer | None = None) -> bytes | None:
        """The encoding of `page`, or `None` where raw is no longer.

        Args:
            page: 4096 bytes.
            base: What the destination has at that page, for codecs that send differences.
        """
        return self._codec.encode(page, base)

    def decode(self, data: Buffer, base: Buffer | None = None) -> bytes:
        """The page that was encoded, with the same `base`.

        Raises:
            StreamError: `data` is no encoding of this codec; says at which byte.
        """
        return self._codec.decode(data, base)

    def passed(self, page: Buffer) -> None:
        """Tells a decoder of a page that came raw: codecs that name earlier pages (`dedup`) must see all of them."""
        self._codec.passed(page)


class Codecs(Registry[Codec]):
    """The codecs, with names that combine: `a+b` is a chain, `delta-lz4` a delta whose inner codec is lz4."""

    def get(self, name: str, /, **knobs: object) -> Codec:
        """The codec called `name`, alone or combined."""
        if "+" not in name and "-" not in name:
            return super().get(name, **knobs)
        parts = [self._part(piece, knobs) for piece in name.split("+")]
        known = {knob.name for part in parts for knob in part.knobs}
        if unknown := knobs.keys() - known:
            raise UsageError(f"{name} has no knob `{min(unknown)}`; there are: {', '.join(sorted(known))}")
        return parts[0] if len(parts) == 1 else super().get("chain", parts=parts)

    def _part(self, piece: str, knobs: dict[str, object]) -> Codec:
        outer, _, inner = piece.partition("-")
        known = {knob.name for knob in super().get(outer).knobs}
        own = {name: value for name, value in knobs.items() if name in known}
        return super().get(outer, **own, **({"inner": inner} if inner else {}))


registry = Codecs("codec", Codec, __name__)
get = registry.get
parse = registry.parse
names = registry.names
describe = registry.describe
__all__ = ["Codec", "bakeoff", "describe", "get", "names", "parse", *registry.classes()]


if TYPE_CHECKING:
    from switchover._classes.codecs import *
    from switchover.bakeoff import bakeoff
else:

    def __getattr__(name: str) -> object:
        if name != "bakeoff":
            return registry.attribute(name)
        # It measures these codecs, and so imports them first.
        from switchover.bakeoff import bakeoff

        return bakeoff
