"""What a policy sees at each round's end."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Round:
    """One pass, as it stands at its end. Times in seconds, sizes in bytes, rates in bytes per second.

    Attributes:
        index: 0 for the round that sends everything.
        live: Whether the guest ran during it; the last round of a pre-copy is sent in the blackout.
        start: When it began, from the migration's start.
        duration: How long it took, harvest included.
        elapsed: Time since the migration's start, at its end.
        sent_bytes: Bytes that it put on the link, headers included.
        sent_pages: Pages that it sent, of all kinds.
        zero_pages: Of them, pages of zeros.
        encoded_pages: Of them, pages sent shorter than raw by a codec.
        skipped_pages: Pages left out because they were dirty again.
        total_sent_bytes: Bytes put on the link since the migration's start.
        total_sent_pages: Pages sent since the migration's start.
        remaining_pages: Pages dirty at its end.
        remaining_bytes: The same in bytes.
        dirty_rate: Unique pages written during it, in bytes per second.
        bandwidth: Over the last 100 ms or more.
        expected_blackout: `remaining_bytes / bandwidth`, and the fixed cost of switchover if known;
            infinite before there is a bandwidth.
        throttle: Share of their time that writers are held back, percent.
        memory_bytes: The guest's memory.
    """

    index: int = 0
    live: bool = True
    start: float = 0.0
    duration: float = 0.0
    elapsed: float = 0.0
    sent_bytes: int = 0
    sent_pages: int = 0
    zero_pages: int = 0
    encoded_pages: int = 0
    skipped_pages: int = 0
    total_sent_bytes: int = 0
    total_sent_pages: int = 0
    remaining_pages: int = 0
    remaining_bytes: int = 0
    dirty_rate: float = 0.0
    bandwidth: float = 0.0
    expected_blackout: float = 0.0
    throttle: float = 0.0
    memory_bytes: int = 0

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Round:
        """Out of JSON, which has no infinity and writes null. What a later version added is left out."""
        known = {field.name: data[field.name] for field in fields(cls) if field.name in data}
        infinite = known.get("expected_blackout", 0.0) is None
        return cls(**known | ({"expected_blackout": math.inf} if infinite else {}))

    @classmethod
    def from_json(cls, text: str) -> Round:
        """Out of JSON text."""
        return cls.from_dict(json.loads(text))

    def to_json(self) -> str:
        """As JSON text."""
        data = asdict(self)
        if math.isinf(self.expected_blackout):
            data["expected_blackout"] = None
        return json.dumps(data)


@dataclass(frozen=True, slots=True)
class Sample:
    """How the copy stands in the middle of a round. Times in seconds, sizes in bytes, rates in bytes per second.

    A policy of yours that has a method `sample(sample)` is shown one every 100 ms, and may answer with a decision.

    Attributes:
        round: The round under way.
        elapsed: Time since the migration's start.
        bandwidth: Over the last 100 ms or more; 0 before there is one.
        remaining_bytes: What is still to be sent of this round; what was written since the harvest is not in it.
        sent_bytes: Bytes put on the link since the migration's start.
        memory_bytes: The guest's memory.
    """

    round: int = 0
    elapsed: float = 0.0
    bandwidth: float = 0.0
    remaining_bytes: int = 0
    sent_bytes: int = 0
    memory_bytes: int = 0

    def to_json(self) -> str:
        """As JSON text."""
        return json.dumps(asdict(self))
