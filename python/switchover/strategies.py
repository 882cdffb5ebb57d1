"""Strategies: how memory moves.

>>> import switchover as sw
>>> sw.PreCopy(clear="late", codec="xbzrle")
PreCopy(clear='late', codec='xbzrle')
>>> sw.PreCopy(codec="zero+delta-zstd:level=3").codec
Chain(parts=[{'name': 'zero'}, {'name': 'delta', 'level': 3, 'inner': 'zstd'}])
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from switchover import codecs
from switchover.part import Knob, Part, Registry

if TYPE_CHECKING:
    from typing import Self


class Strategy(Part):
    """How memory moves. With its knobs comes `codec`: how the pages are encoded.

    `raw` sends pages as they are, `zero` names those of zeros; so do all others, and encode the rest.
    """

    kind = "strategy"

    def __init__(self, *args: object, codec: str | codecs.Codec | None = None, **given: object) -> None:
        super().__init__(*args, **given)
        self._named = codec is not None
        self._codec = codecs.registry.of("zero" if codec is None else codec)

    @property
    def codec(self) -> codecs.Codec:
        """How the pages are encoded."""
        return self._codec

    @classmethod
    def signature(cls, knobs: tuple[Knob, ...]) -> inspect.Signature:
        """The knobs, and `codec`."""
        codec = inspect.Parameter("codec", inspect.Parameter.KEYWORD_ONLY, default="zero")
        return inspect.Signature([*super().signature(knobs).parameters.values(), codec])

    def replace(self, **given: object) -> Self:
        """The same with some knobs, or the codec, changed."""
        return super().replace(**{"codec": self._codec if self._named else None, **given})

    def __repr__(self) -> str:
        if not self._named:
            return super().__repr__()
        inner = super().__repr__().removesuffix(")")
        codec = repr(self._codec) if self._codec.spec().keys() - {"name"} else repr(self._codec.name)
        return f"{inner}{'' if inner.endswith('(') else ', '}codec={codec})"

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) and isinstance(other, Strategy) and self._codec == other._codec

    __hash__ = Part.__hash__


registry = Registry("strategy", Strategy, __name__)
get = registry.get
parse = registry.parse
names = registry.names
describe = registry.describe
__all__ = ["Strategy", "describe", "get", "names", "parse", *registry.classes()]


if TYPE_CHECKING:
    from switchover._classes.strategies import *
else:
    __getattr__ = registry.attribute
