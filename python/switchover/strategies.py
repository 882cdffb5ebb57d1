"""Strategies: how memory moves.

>>> import switchover as sw
>>> sw.PreCopy(clear="late", codec="zero")
PreCopy(clear='late', codec='zero')
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from switchover import codecs
from switchover.errors import UsageError
from switchover.part import Knob, Part, Registry

if TYPE_CHECKING:
    from typing import Self

CARRIED = ("raw", "zero")
"""The codecs that the memory world carries."""


class Strategy(Part):
    """How memory moves. With its knobs comes `codec`: how the pages are encoded."""

    kind = "strategy"

    def __init__(self, *args: object, codec: str | codecs.Codec | None = None, **given: object) -> None:
        super().__init__(*args, **given)
        self._named = codec is not None
        self._codec = codecs.registry.of("zero" if codec is None else codec)
        if self._codec.name not in CARRIED:
            raise UsageError(
                f"{type(self).__name__}: the codec {self._codec.name!r} cannot be sent; these can: {', '.join(CARRIED)}"
            )

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
        return f"{inner}{'' if inner.endswith('(') else ', '}codec={self._codec.name!r})"

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
