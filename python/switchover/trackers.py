"""Dirty trackers: who finds out which pages were written.

>>> import switchover as sw
>>> with sw.Guest("1MiB", sw.workloads.Sweep()) as guest:
...     with sw.trackers.get("software").arm(guest) as tracker:
...         guest.start()
...         while not tracker.peek().any():
...             pass
...         guest.pause()
...         bool(tracker.harvest()[0]), int(tracker.harvest().sum())
(True, 0)
"""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING

from switchover import _native
from switchover.part import Part, Registry

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    import numpy as np
    from numpy.typing import NDArray

    from switchover.guest import Guest


class Tracker(Part):
    """Knows which pages of a guest were written since it was last asked.

    It may report a page that was not written; it never misses one that was.
    """

    kind = "tracker"

    @cached_property
    def _tracker(self) -> _native.Tracker:
        return _native.Tracker(json.dumps(self.spec()))

    @property
    def needs_pause(self) -> bool:
        """Whether the guest must be paused during a harvest."""
        return self._tracker.needs_pause

    def arm(self, guest: Guest) -> Self:
        """Begins tracking `guest` with every page clean.

        Raises:
            TrackerUnavailable: This kernel, or this guest, cannot have it; says what would provide it.
        """
        self._tracker.arm(guest.native())
        return self

    def harvest(self, first: int = 0, end: int | None = None) -> NDArray[np.bool_]:
        """Reads and clears the dirty bits of pages `first` to `end`: a mask, True for dirty."""
        return _mask(self._tracker.harvest(first, end))

    def peek(self, first: int = 0, end: int | None = None) -> NDArray[np.bool_]:
        """The same without clearing."""
        return _mask(self._tracker.peek(first, end))

    def disarm(self) -> None:
        """Ends tracking and leaves memory as it was found."""
        self._tracker.disarm()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disarm()


def _mask(bits: bytes) -> NDArray[np.bool_]:
    import numpy as np

    return np.frombuffer(bits, dtype=np.bool_)


def availability() -> dict[str, str | None]:
    """For each tracker why this machine cannot have it, or `None` where it can.

    >>> availability()["software"] is None
    True
    """
    return {tracker["name"]: tracker["unavailable"] for tracker in describe()}


def best() -> str:
    """The tracker that `auto` takes for a guest of the core's workloads."""
    return next(str(part["name"]) for part in describe() if part["unavailable"] is None and not part["only_vcpus"])


registry = Registry("tracker", Tracker, __name__)
get = registry.get
parse = registry.parse
names = registry.names
describe = registry.describe
__all__ = ["Tracker", "availability", "best", "describe", "get", "names", "parse", *registry.classes()]

if TYPE_CHECKING:
    from switchover._classes.trackers import *
else:
    __getattr__ = registry.attribute
