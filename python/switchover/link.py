"""Links: the sockets between a source and a destination, and how they are shaped."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from switchover import units
from switchover.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Link:
    """A link. Without arguments: one bare TCP channel over loopback.

    Shaping is done here, before the sockets, so that a gigabit link or a WAN can be had on one machine. It
    makes a link slower, never faster: bandwidth counts payload bytes in each direction, all channels together.

    Args:
        bandwidth: Such as "1Gbit/s" or "200MB/s"; `None` leaves it as it is.
        rtt: Round-trip time that is added, such as "0.5ms".
        jitter: Most that is added to a byte's way, drawn anew for each burst.
        outages: Times in which nothing moves, as pairs of start and length since the link's start.
        channels: Connections that share the link, from 1 to 16.
        transport: "tcp" or "unix": the sockets of a link within this machine.
        seed: Of the jitter.

    Examples:
        >>> Link("1Gbit/s", rtt="0.5ms")
        Link('125 MB/s', rtt='500 us')
    """

    bandwidth: units.Rate | None = None
    rtt: units.Time = 0.0
    jitter: units.Time = 0.0
    outages: Iterable[tuple[units.Time, units.Time]] = field(default=())
    channels: int = 1
    transport: str = "tcp"
    seed: int = 0

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        if self.bandwidth is not None:
            put("bandwidth", units.parse_rate(self.bandwidth, "Link: bandwidth"))
        put("rtt", units.parse_time(self.rtt, "Link: rtt"))
        put("jitter", units.parse_time(self.jitter, "Link: jitter"))
        put("channels", units.parse_count(self.channels, "Link: channels"))
        put("outages", tuple(_outage(outage) for outage in self.outages))
        if self.transport not in ("tcp", "unix"):
            raise UsageError(f"Link: transport must be tcp or unix, not {self.transport!r}")

    def spec(self) -> dict[str, Any]:
        """As JSON has it, in SI units."""
        return {
            "transport": self.transport,
            "channels": self.channels,
            "bandwidth": self.bandwidth,
            "rtt": self.rtt,
            "jitter": self.jitter,
            "outages": [{"at": at, "duration": duration} for at, duration in self.outages],
            "seed": self.seed,
        }

    @classmethod
    def of(cls, given: Link | str | None) -> Link:
        """A link out of what users may give: a link, nothing, or a text such as "1Gbit/s,0.5ms".

        >>> Link.of("1Gbit/s,0.5ms")
        Link('125 MB/s', rtt='500 us')
        """
        if given is None or isinstance(given, Link):
            return given or cls()
        if not isinstance(given, str):
            raise UsageError(f"a link was expected, not {given!r}")
        bandwidth, rtt, jitter, *more = (*(word.strip() for word in given.split(",")), "", "")[:4]
        if more and more[0]:
            raise UsageError(f"a link as text is BANDWIDTH[,RTT[,JITTER]], not {given!r}")
        return cls(bandwidth or None, rtt=rtt or 0.0, jitter=jitter or 0.0)

    def __repr__(self) -> str:
        shown = [] if self.bandwidth is None else [repr(units.format_rate(units.parse_rate(self.bandwidth)))]
        times = {"rtt": self.rtt, "jitter": self.jitter}
        shown += [f"{name}={units.format_time(float(value))!r}" for name, value in times.items() if value]
        shown += [f"outages={list(self.outages)!r}"] if self.outages else []
        shown += [f"channels={self.channels}"] if self.channels != 1 else []
        shown += [f"transport={self.transport!r}"] if self.transport != "tcp" else []
        return f"Link({', '.join(shown)})"


def _outage(given: tuple[units.Time, units.Time]) -> tuple[float, float]:
    try:
        at, duration = given
    except (TypeError, ValueError):
        raise UsageError(f"Link: an outage is a pair of start and length, not {given!r}") from None
    return units.parse_time(at, "Link: an outage's start"), units.parse_time(duration, "Link: an outage's length")
