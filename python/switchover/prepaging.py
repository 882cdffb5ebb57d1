"""Prepaging: the order in which post-copy pushes pages that the guest has not asked for.

>>> import switchover as sw
>>> sw.prepaging.names()
['bubbling', 'sequential', 'recency', 'none']
>>> sw.PostCopy(prepaging=sw.prepaging.of("bubbling", pivots=4))
PostCopy(prepaging='bubbling:pivots=4')
"""

from __future__ import annotations

import json
from typing import Any

from switchover import _native

KIND = "prepaging"

__all__ = ["describe", "names", "of"]


def describe() -> list[dict[str, Any]]:
    """The orders as JSON: name, doc, knobs with unit, range and default."""
    described: list[dict[str, Any]] = json.loads(_native.describe(KIND))
    return described


def names() -> list[str]:
    """Their names."""
    return [order["name"] for order in describe()]


def of(name: str, **knobs: float) -> str:
    """An order with knobs set, as the knob `prepaging` of a strategy takes it.

    Raises:
        UsageError: There is no such order or knob, or a value is out of range.
    """
    _native.check(KIND, json.dumps({"name": name, **knobs}))
    pairs = ",".join(f"{knob}={value}" for knob, value in knobs.items())
    return f"{name}:{pairs}" if pairs else name
