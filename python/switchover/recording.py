"""Recording dirty traces: of any running process, or of a guest."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from switchover import _native, samples, trackers, units
from switchover.errors import UsageError

if TYPE_CHECKING:
    from switchover.guest import Guest
    from switchover.trace import Trace

LOOK = 0.25
"""Seconds between two looks at how it goes."""


class Standing(NamedTuple):
    """Where a recording stands.

    Attributes:
        seconds: That were recorded.
        duration: Seconds that are to be.
        dirty_rate: Bytes of distinct pages written per second, since the last look.
        memory_bytes: Memory in use.
    """

    seconds: float
    duration: float
    dirty_rate: float
    memory_bytes: int


def record(
    pid: int | None,
    guest: Guest | None,
    duration: units.Time,
    interval: units.Time,
    *,
    sample: int,
    tracker: trackers.Tracker | str,
    on_progress: Callable[[Standing], object] | None,
) -> Trace:
    """See [`Trace.record`][switchover.trace.Trace.record]."""
    from switchover.trace import Trace

    if (pid is None) == (guest is None):
        raise UsageError("record one process (pid) or one guest")
    step = units.parse_time(interval, "interval")
    count = _intervals(units.parse_time(duration, "duration"), step)
    size = units.parse_count(sample, "samples")
    who = _process(pid) if pid is not None else {"source": "guest"}
    if guest is not None:
        who["guest"] = json.dumps(guest.spec)
        spec = json.dumps(trackers.registry.of(tracker).spec()) if tracker != "auto" else '{"name": "auto"}'
        recording = _native.Recording.of_guest(guest.native(), spec, step, size)
    else:
        recording = _native.Recording.of_process(int(pid or 0), step, size)
    ended = _run(recording, count, step, on_progress)
    native, text = recording.finish()
    facts = json.loads(text)
    trace = Trace._of(native, who | _facts(facts, list(dict(native.blocks())), ended))
    trace.samples = samples.of_records(facts["samples"])
    return trace


def _intervals(duration: float, interval: float) -> int:
    if interval <= 0 or duration < interval:
        raise UsageError("a recording needs an interval of 1 ms or more and a duration of one or more intervals")
    return min(round(duration / interval), 2**32 - 1)


def _run(
    recording: _native.Recording, count: int, step: float, on_progress: Callable[[Standing], object] | None
) -> str:
    """Records, until it is over or Ctrl-C is pressed; why it ended."""
    try:
        intervals, reason = 0, None
        while intervals < count and reason is None:
            intervals, written, seconds, pages, reason = recording.advance(count, LOOK)
            if on_progress:
                rate = written * _native.PAGE / seconds if seconds else 0.0
                on_progress(Standing(intervals * step, count * step, rate, pages * _native.PAGE))
    except KeyboardInterrupt:
        return "interrupted"
    return reason or "the time was over"


def _process(pid: int) -> dict[str, str]:
    """What is known of a process before it is recorded."""
    command = ""
    # Where it cannot be read, the engine says what is the matter.
    with contextlib.suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return {"source": "process", "pid": str(pid), "command": command[:1000]}


def _facts(facts: dict[str, Any], blocks: list[str], ended: str) -> dict[str, str]:
    """What the file tells of the recording."""
    addresses = {name: hex(address) for name, address in zip(blocks, facts["addresses"], strict=True)}
    kernel = f"{platform.system()} {platform.release()}, {os.cpu_count()} CPUs"
    return {
        "tracker": facts["tracker"],
        "ended": ended,
        "addresses": json.dumps(addresses),
        "cost": json.dumps(facts["cost"]),
        "machine": kernel,
        "recorded": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
