"""What runs look like on a terminal: rounds as they end, and a table of reports."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from switchover import Decision, Report, Round

BAR = 24


def console() -> Console:
    """Standard output; at least 100 columns where it is not a terminal."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=max(plain.width, 120))


def size(count: float) -> str:
    """Bytes for people: binary multiples, three digits."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"


def rate(value: float) -> str:
    """Bytes a second for people: decimal multiples."""
    return f"{value / 1e9:.2f} GB/s" if value >= 1e9 else f"{value / 1e6:.0f} MB/s"


def span(seconds: float | None) -> str:
    """A time for people."""
    if seconds is None:
        return "-"
    if seconds == float("inf"):
        return "never"
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"


def round_line(round: Round, decision: Decision | None) -> str:
    """One round in a line: what was sent, what remains, what was decided."""
    share = min(1.0, round.remaining_bytes / max(1, round.memory_bytes))
    bar = ("#" * round_up(share * BAR)).ljust(BAR, ".")
    text = (
        f"round {round.index:3d}  sent {size(round.sent_bytes):>8}  remaining [{bar}] {size(round.remaining_bytes):>8}"
        f"  at {rate(round.bandwidth):>9}  would black out {span(round.expected_blackout):>7}"
    )
    if decision is None or decision.kind == "proceed":
        return text
    return f"{text}  -> {decision.kind}: {decision.reason}"


def round_up(value: float) -> int:
    """The next whole number, so that what remains is never drawn as nothing."""
    return int(-(-value // 1))


def verdict(report: Report) -> str:
    """Whether the destination's memory was compared, and how it came out."""
    if report.outcome != "completed":
        return report.outcome
    return {True: "yes", False: "NO", None: "not asked"}[report.verified]


def slowdown(report: Report) -> str:
    """The share of its speed that the guest lost while it was copied."""
    lost = report.guest_cost.get("slowdown")
    return "-" if lost is None else f"{lost * 100:.0f} %"


def table(rows: Iterable[tuple[str, Report]], title: str | None = None) -> Table:
    """Reports side by side."""
    result = Table(title=title, title_justify="left", header_style="bold")
    result.add_column("run")
    for name in ("total time", "blackout", "sent", "rounds", "throughput", "slowdown", "verified"):
        result.add_column(name, justify="right")
    for name, report in rows:
        result.add_row(
            name,
            span(report.total_time),
            span(report.blackout),
            size(report.sent_bytes),
            str(len(report.rounds)),
            rate(report.throughput),
            slowdown(report),
            verdict(report),
        )
    return result
