"""How the copy stands in the middle of a round."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True, slots=True)
class Sample:
    """What a policy with a `sample` method is shown when round 0 begins and every 100 ms from then on.

    Attributes:
        round: The round under way.
        elapsed: Time since the migration's start, in seconds.
        bandwidth: Over the last 100 ms or more, in bytes per second; 0 before there is one.
        remaining_bytes: Of this round; what was written since the harvest is not in it.
        sent_bytes: Put on the link since the migration's start.
        memory_bytes: The guest's memory.
    """

    round: int = 0
    elapsed: float = 0.0
    bandwidth: float = 0.0
    remaining_bytes: int = 0
    sent_bytes: int = 0
    memory_bytes: int = 0

    @classmethod
    def from_json(cls, text: str) -> Sample:
        """Out of JSON text. What a later version added is left out."""
        data = json.loads(text)
        return cls(**{field.name: data[field.name] for field in fields(cls) if field.name in data})

    def to_json(self) -> str:
        """As JSON text."""
        return json.dumps(asdict(self))
