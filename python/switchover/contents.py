"""Contents: what a write puts into a page, and what memory holds when a guest is made.

>>> import switchover as sw
>>> with sw.Guest("1MiB", sw.workloads.Sweep(), fill=sw.contents.get("zero")) as guest:
...     bool(guest.memory.any())
False
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from switchover.part import Part, Registry


class Content(Part):
    """Bytes of pages, as a function of a seed."""

    kind = "content"


registry = Registry("content", Content, __name__)
get = registry.get
parse = registry.parse
names = registry.names
describe = registry.describe
__all__ = ["Content", "describe", "get", "names", "parse", *registry.classes()]

if TYPE_CHECKING:
    from switchover._classes.contents import *
else:
    __getattr__ = registry.attribute
