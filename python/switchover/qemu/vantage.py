"""The blackout, from each place from which it was seen, each under its own name.

sender_pause   what the source's QEMU says: from just before it stops its guest until the destination has said that
the guest runs there (with a return path), or until its last byte is handed to the kernel (without)
events_gap     from the source's STOP event to the destination's RESUME event
guest_gap      from the guest's last heartbeat at the source to its first at the destination
observer_gap   the longest that an outsider who asked every millisecond went without an answer
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from switchover.qemu.qmp import Event

ORDER = ("guest_gap", "events_gap", "sender_pause")


@dataclass
class Moments:
    """When things happened around the switchover, on this machine's clock and on the QEMUs' own.

    Attributes:
        one_clock: Whether both QEMUs stamp their events by the same clock.
    """

    one_clock: bool = False
    stop: Event | None = None
    last_pass: Event | None = None
    resume: Event | None = None
    completed: Event | None = None

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
        """The events' gap in parts, and what the source waits for afterwards; `None` where it cannot be told.

        QEMU marks neither the end of its last RAM nor of its device state: what is between is one part.
        """
        return {
            "stop": self._between(self.stop, self.last_pass),
            "last_pages_state_load": self._between(self.last_pass, self.resume),
            "acknowledge": self._between(self.resume, self.completed),
        }


def choose(gaps: dict[str, float | None]) -> tuple[float | None, str | None]:
    """The blackout, and whose: the guest's own if it was heard, else the best that there is."""
    found = ((gaps[name], name) for name in ORDER if gaps.get(name) is not None)
    return next(found, (None, None))
