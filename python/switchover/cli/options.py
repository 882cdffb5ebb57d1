"""Options that several commands share: parts with knobs, quantities, links."""

from __future__ import annotations

from typing import Any

import switchover as sw
from switchover.errors import UsageError

PARTS = {"workload": "workloads", "policy": "policies", "strategy": "strategies"}


def value(text: str) -> Any:
    """A knob's value: a number or a flag where it reads as one, else the text itself."""
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def part(kind: str, text: str) -> Any:
    """A part out of ``NAME`` or ``NAME:KNOB=VALUE,KNOB=VALUE``.

    >>> part("workload", "zipf:rate=200MB/s,s=0.9")
    workloads.Zipf(rate='200MB/s', s=0.9)
    """
    name, _, rest = text.partition(":")
    knobs = {}
    for item in filter(None, rest.split(",")):
        knob, equals, given = item.partition("=")
        if not equals:
            raise UsageError(f"{kind} `{text}`: `{item}` must read KNOB=VALUE")
        knobs[knob.strip().replace("-", "_")] = value(given.strip())
    module = getattr(sw, PARTS[kind])
    return module.get(name)(**knobs)


def link(text: str | None, channels: int, transport: str) -> sw.Link:
    """A link out of ``BANDWIDTH[,RTT[,JITTER]]``, such as ``1Gbit/s,0.5ms``."""
    bandwidth, rtt, jitter = ([*(text or "").split(","), "", ""])[:3]
    return sw.Link(
        bandwidth.strip() or None,
        rtt=rtt.strip() or 0,
        jitter=jitter.strip() or 0,
        channels=channels,
        transport=transport,
    )
