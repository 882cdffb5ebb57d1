"""What a policy answers: what to do next, and why."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from switchover import units
from switchover.errors import UsageError

_LIMITS = ("blackout", "bandwidth", "dirty_rate", "write_delay")


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a decision was made.

    Attributes:
        text: In words.
        quantity: What decided, such as `expected_blackout`; empty for words only.
        seen: Its value.
        limit: What it was held against.
    """

    text: str = ""
    quantity: str = ""
    seen: float = 0.0
    limit: float = 0.0

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do next, and why. Made by the methods below.

    Attributes:
        kind: `proceed`, `throttle`, `limit`, `switch_over`, `post_copy` or `abort`.
        reason: Why.
        percent: Of a throttle: the share of their time for which writers are held back.
        blackout: Of a limit: the longest blackout allowed, in seconds.
        bandwidth: Of a limit: bytes per second that may be used; 0 lifts the limit.
        dirty_rate: Of a limit: bytes per second that each writer may dirty, first writes to a page counted;
            0 lifts the limit.
        write_delay: Of a limit: seconds that a writer is held at each first write to a page; 0 lifts the limit.
    """

    kind: str
    reason: Reason = field(default_factory=Reason)
    percent: float | None = None
    blackout: float | None = None
    bandwidth: float | None = None
    dirty_rate: float | None = None
    write_delay: float | None = None

    @classmethod
    def proceed(cls, reason: str = "") -> Decision:
        """Another round."""
        return cls("proceed", _reason(reason)) if reason else _NOTHING

    @classmethod
    def throttle(cls, percent: float, reason: str = "") -> Decision:
        """Hold writers back for `percent` of their time, from 0 to 99."""
        if not 0 <= percent <= 99:
            raise UsageError(f"a throttle must be from 0 to 99 percent, not {percent}")
        return cls("throttle", _reason(reason), percent=float(percent))

    @classmethod
    def limit(
        cls,
        blackout: units.Time | None = None,
        bandwidth: units.Rate | None = None,
        reason: str = "",
        *,
        dirty_rate: units.Rate | None = None,
        write_delay: units.Time | None = None,
    ) -> Decision:
        """Allow a blackout, after which a round that fits it is switched over, or a bandwidth; or hold writers back.

        `dirty_rate` is a quota for each writer, kept as QEMU keeps it: within 25 MiB/s. `write_delay` is slept at
        each first write to a page since its harvest.
        """
        return cls(
            "limit",
            _reason(reason),
            blackout=None if blackout is None else units.parse_time(blackout, "blackout"),
            bandwidth=None if bandwidth is None else units.parse_rate(bandwidth, "bandwidth"),
            dirty_rate=None if dirty_rate is None else units.parse_rate(dirty_rate, "dirty_rate"),
            write_delay=None if write_delay is None else units.parse_time(write_delay, "write_delay"),
        )

    @classmethod
    def switchover(cls, reason: str = "") -> Decision:
        """Stop the guest, send the rest, run on the destination."""
        return cls("switch_over", _reason(reason))

    @classmethod
    def postcopy(cls, reason: str = "") -> Decision:
        """Run on the destination now, send the rest afterwards."""
        return cls("post_copy", _reason(reason))

    @classmethod
    def abort(cls, reason: str = "") -> Decision:
        """Give up; the guest runs on at the source."""
        return cls("abort", _reason(reason))

    @property
    def fires(self) -> bool:
        """Whether it is more than another round."""
        return self.kind != "proceed"

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Decision:
        """Out of JSON."""
        known = {name: data[name] for name in ("kind", "percent", *_LIMITS) if name in data}
        return cls(reason=Reason(**data.get("reason", {})), **known)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        why = self.reason
        own = {
            "throttle": {"percent": self.percent},
            "limit": {name: getattr(self, name) for name in _LIMITS},
        }
        reason = {"text": why.text, "quantity": why.quantity, "seen": why.seen, "limit": why.limit}
        return {"kind": self.kind, **own.get(self.kind, {}), "reason": reason}

    def to_json(self) -> str:
        """As JSON text."""
        return _PROCEED if self is _NOTHING else json.dumps(self.to_dict())

    def __str__(self) -> str:
        what = {"throttle": f"throttle {self.percent} %"}.get(self.kind, self.kind.replace("_", " "))
        return f"{what}: {self.reason}" if self.reason.text else what


def _reason(reason: str) -> Reason:
    return Reason(text=str(reason))


# What most policies answer to most rounds.
_NOTHING = Decision("proceed")
_PROCEED = json.dumps(_NOTHING.to_dict())
