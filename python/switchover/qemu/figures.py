"""What QEMU counts, in the words of rounds and samples.

QEMU forgets its numbers when a migration fails or is cancelled, so they are taken while it runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from switchover.round import Round
from switchover.sample import Sample

WINDOW = 0.1
PAGE = 4096
# Rows of the timeline; when there are more, every second one goes.
ROWS = 4000
# QEMU's figures that are kept beside ours, by their names there.
KEPT = (
    "mbps", "dirty-pages-rate", "pages-per-second", "dirty-sync-count", "multifd-bytes", "precopy-bytes",
    "downtime-bytes", "postcopy-bytes", "postcopy-requests",
)  # fmt: skip
ALSO = ("expected-downtime", "cpu-throttle-percentage", "dirty-limit-throttle-time-per-round")


@dataclass(frozen=True)
class Look:
    """What `query-migrate` said on the source, and when: seconds since the migration's start."""

    time: float
    answer: dict[str, Any]

    @property
    def status(self) -> str:
        """The migration's state."""
        return str(self.answer.get("status", "none"))

    @property
    def ram(self) -> dict[str, Any]:
        """Counters; empty in states in which QEMU gives none."""
        found: dict[str, Any] = self.answer.get("ram", {})
        return found

    @property
    def throttle(self) -> float:
        """Percent for which vCPUs are held back."""
        return float(self.answer.get("cpu-throttle-percentage", 0))

    @property
    def pages(self) -> tuple[int, int, int]:
        """Pages sent: all, of zeros, encoded."""
        encoded = int(self.answer.get("xbzrle-cache", {}).get("pages", 0))
        zero = int(self.ram.get("duplicate", 0))
        return int(self.ram.get("normal", 0)) + zero + encoded, zero, encoded

    def figures(self) -> dict[str, Any]:
        """QEMU's own figures of this moment, by its names and in its units."""
        from_ram = {name: self.ram[name] for name in KEPT if name in self.ram}
        return from_ram | {name: self.answer[name] for name in ALSO if name in self.answer}


@dataclass
class Ledger:
    """Rounds out of looks.

    Attributes:
        rounds: Rows as a report has them, QEMU's own figures of each beside ours.
        timeline: A row for each look, thinned out where there are very many.
    """

    memory_bytes: int = 0
    rounds: list[dict[str, Any]] = field(default_factory=list)
    timeline: list[dict[str, Any]] = field(default_factory=list)
    last: Look = field(default_factory=lambda: Look(0.0, {}))
    begun: Look | None = None
    _window: list[tuple[float, int]] = field(default_factory=list)
    _bandwidth: float = 0.0
    _stride: int = 1
    _seen: int = 0

    @property
    def sent_bytes(self) -> int:
        """Bytes sent so far, as QEMU counts them."""
        return int(self.last.ram.get("transferred", 0))

    def note(self, look: Look, cpu: dict[str, Any] | None = None) -> None:
        """Takes a look in. One without counters changes none of ours."""
        if "transferred" not in look.ram:
            return
        self.last = look
        self.memory_bytes = int(look.ram.get("total", 0)) or self.memory_bytes
        self._slide(look.time, self.sent_bytes)
        self._seen += 1
        if self._seen % self._stride:
            return
        self.timeline.append(
            {
                "time": look.time,
                "status": look.status,
                "sent_bytes": self.sent_bytes,
                "remaining_bytes": int(look.ram.get("remaining", 0)),
                "bandwidth": self._bandwidth,
                "qemu": look.figures(),
                **({"cpu": cpu} if cpu else {}),
            }
        )
        if len(self.timeline) > ROWS:
            self.timeline, self._stride = self.timeline[::2], self._stride * 2

    def _slide(self, now: float, sent: int) -> None:
        self._window.append((now, sent))
        while len(self._window) > 2 and self._window[1][0] <= now - WINDOW:
            self._window.pop(0)
        then, before = self._window[0]
        if now - then >= WINDOW:
            self._bandwidth = max(0.0, (sent - before) / (now - then))

    def begin(self, look: Look) -> None:
        """The first bitmap is there: round 0 begins."""
        self.begun = self.begun or look

    def end_round(self, look: Look, *, live: bool, delay: float = 0.0) -> Round:
        """The round that ends with `look`, the dirty bitmap just harvested: `delay` seconds before QEMU answered."""
        start = self.begun or look
        ram, before = look.ram or self.last.ram, start.ram
        pages, was = (look.pages if look.ram else self.last.pages), start.pages
        duration = max(0.0, look.time - start.time)
        sent = max(0, int(ram.get("transferred", 0)) - int(before.get("transferred", 0)))
        remaining = int(ram.get("remaining", 0)) if live else 0
        # A harvest holds the sender up: the window in which it falls says little of the link.
        bandwidth = max(self._bandwidth, sent / duration if duration > 0 else 0.0)
        ended = Round(
            index=len(self.rounds),
            live=live,
            start=start.time,
            duration=duration,
            elapsed=look.time,
            sent_bytes=sent,
            sent_pages=max(0, pages[0] - was[0]),
            zero_pages=max(0, pages[1] - was[1]),
            encoded_pages=max(0, pages[2] - was[2]),
            total_sent_bytes=int(ram.get("transferred", 0)),
            total_sent_pages=pages[0],
            remaining_pages=remaining // PAGE,
            remaining_bytes=remaining,
            dirty_rate=remaining / duration if duration > 0 else 0.0,
            bandwidth=bandwidth,
            expected_blackout=remaining / bandwidth if bandwidth > 0 else (math.inf if remaining else 0.0),
            throttle=look.throttle,
            memory_bytes=self.memory_bytes,
        )
        self.begun = look if look.ram else Look(look.time, self.last.answer)
        row = {name: getattr(ended, name) for name in Round.__dataclass_fields__}
        if math.isinf(ended.expected_blackout):
            row["expected_blackout"] = None
        self.rounds.append(row | {"qemu": look.figures() | {"answer_delay": delay}})
        return ended

    def sample(self, look: Look) -> Sample:
        """How the round under way stands."""
        return Sample(
            round=len(self.rounds),
            elapsed=look.time,
            bandwidth=self._bandwidth,
            remaining_bytes=int(look.ram.get("remaining", 0)),
            sent_bytes=self.sent_bytes,
            memory_bytes=self.memory_bytes,
        )
