"""The blackout, from each place from which it was seen, each under its own name.

sender_pause   what the source's QEMU says: from just before it stops its guest until the destination has said that
the guest runs there (with a return path), or until its last byte is handed to the kernel (without)
events_gap     from the source's STOP event to the destination's RESUME event
guest_gap      from the guest's last heartbeat at the source to its first at the destination
observer_gap   the longest that an outsider who asked every millisecond went without an answer
"""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from switchover.qemu.qmp import Event

ORDER = ("guest_gap", "events_gap", "sender_pause")


PARTS = ("stop", "harvest", "last_ram", "device_state", "load", "resume")


@dataclass
class Moments:
    """When things happened around the switchover, on this machine's clock and on the QEMUs' own.

    Attributes:
        one_clock: Whether both QEMUs stamp their events by this machine's clock.
        beats: The guest's last heartbeat at the source and its first at the destination, on the monotonic clock.
        wire: What a relay saw go by: see `Relay.moments`.
        post_copy: Whether the guest went ahead of its memory.
    """

    one_clock: bool = False
    stop: Event | None = None
    last_pass: Event | None = None
    resume: Event | None = None
    completed: Event | None = None
    beats: tuple[float, float] | None = None
    wire: dict[str, Any] = field(default_factory=dict)
    post_copy: bool = False

    def note(self, side: str, event: Event) -> None:
        """Takes an event in."""
        if side == "source" and event.name == "STOP":
            self.stop, self.last_pass = event, None
        elif side == "source" and event.name == "RESUME":
            self.stop = None
        elif side == "source" and event.name == "MIGRATION_PASS" and self.stop is not None:
            self.last_pass = self.last_pass or event
        elif side == "source" and event.name == "MIGRATION" and event.data.get("status") == "completed":
            self.completed = event
        elif side == "destination" and event.name == "RESUME":
            self.resume = self.resume or event

    def _between(self, first: Event | None, then: Event | None) -> float | None:
        if first is None or then is None:
            return None
        if self.one_clock:
            return max(0.0, then.stamped - first.stamped)
        return max(0.0, then.arrived - first.arrived)

    @property
    def events_gap(self) -> float | None:
        """From STOP there to RESUME here."""
        return self._between(self.stop, self.resume)

    def parts(self) -> dict[str, float | None]:
        """The blackout in parts, in the order in which they come; `None` where one cannot be told.

        Those that are known next to each other add up: to the guest's gap where all are, to the events' gap without
        the first and the last. `last_ram_to_load` is the three in one, known without a relay; `acknowledge` comes
        after the blackout.
        """
        edges = self._edges()
        found: dict[str, float | None] = dict.fromkeys(PARTS)
        for (_, begin), (name, end) in itertools.pairwise(edges):
            found[name] = None if begin is None or end is None else end - begin
        found["last_ram_to_load"] = self._between(self.last_pass, self.resume)
        found["acknowledge"] = None if self.post_copy else self._between(self.resume, self.completed)
        return found

    def _edges(self) -> list[tuple[str, float | None]]:
        """Each part's end, on one clock, none before the one before it: stamps of several threads may be out of turn.

        In post-copy no memory is sent with the guest stopped, but which pages are out of date.
        """
        offset = time.time() - time.monotonic()
        beats = (None, None) if self.beats is None else tuple(beat + offset for beat in self.beats)
        edges = [("", beats[0]), ("stop", self._at(self.stop, offset)), ("harvest", self._at(self.last_pass, offset))]
        if not self.post_copy:
            edges.append(("last_ram", _latest(self.wire, "last_ram_ends", "beside")))
        state = "package_ends" if self.post_copy else "sections_end"
        edges += [("device_state", self.wire.get(state)), ("load", self._at(self.resume, offset)), ("resume", beats[1])]
        last = next((moment for _, moment in reversed(edges) if moment is not None), math.inf)
        ordered, so_far = [], -math.inf
        for name, moment in edges:
            so_far = so_far if moment is None else max(so_far, min(moment, last))
            ordered.append((name, None if moment is None else so_far))
        return ordered

    def _at(self, event: Event | None, offset: float) -> float | None:
        """When an event was, in seconds since 1970."""
        if event is None:
            return None
        return event.stamped if self.one_clock else event.arrived + offset


def _latest(wire: dict[str, Any], needed: str, *others: str) -> float | None:
    """The last of some moments; `None` without the needed one."""
    if wire.get(needed) is None:
        return None
    return max(float(wire[name]) for name in (needed, *others) if wire.get(name) is not None)


def choose(gaps: dict[str, float | None]) -> tuple[float | None, str | None]:
    """The blackout, and whose: the guest's own if it was heard, else the best that there is."""
    found = ((gaps[name], name) for name in ORDER if gaps.get(name) is not None)
    return next(found, (None, None))
