"""What runs look like on a terminal: rounds as they end, and a table of reports."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from switchover.units import format_rate, format_size, format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from switchover import Decision, Report, Round
    from switchover.migration import Faults

BAR = 24


def console() -> Console:
    """Standard output; at least 100 columns where it is not a terminal."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=max(plain.width, 120))


def span(seconds: float | None) -> str:
    """A time for people; a blackout that cannot be is "never"."""
    if seconds is None:
        return "-"
    return "never" if math.isinf(seconds) else format_time(seconds)


def round_line(seen: Round, decision: Decision | None) -> str:
    """One round in a line: what was sent, what remains, what was decided."""
    share = seen.remaining_bytes / max(1, seen.memory_bytes)
    bar = ("#" * math.ceil(share * BAR)).ljust(BAR, ".")
    text = (
        f"round {seen.index:3d}  sent {format_size(seen.sent_bytes):>8}"
        f"  remaining [{bar}] {format_size(seen.remaining_bytes):>8}"
        f"  at {format_rate(seen.bandwidth):>9}  would black out {span(seen.expected_blackout):>7}"
    )
    if decision is None or not decision.fires:
        return text
    return f"{text}  -> {decision.kind}: {decision.reason}"


def rounds(screen: Console | None) -> Callable[[Round, Decision | None], None]:
    """What prints each round as it ends; nothing without a screen."""

    def show(seen: Round, decision: Decision | None) -> None:
        if screen:
            screen.print(round_line(seen, decision), highlight=False, soft_wrap=True, markup=False)

    return show


def faults(screen: Console) -> Callable[[Faults], None]:
    """What prints remote faults while memory follows execution."""

    def show(seen: Faults) -> None:
        screen.print(
            f"post-copy  {seen.placed} pages there  {seen.asked} asked for"
            f"  latency median {span(seen.median)}  99 % {span(seen.p99)}",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )

    return show


def verdict(report: Report) -> str:
    """Whether the destination's memory was compared, and how it came out."""
    if report.outcome != "completed":
        return report.outcome
    return {True: "yes", False: "NO", None: "not asked"}[report.verified]


def slowdown(report: Report) -> str:
    """The share of its speed that the guest lost while it was copied."""
    lost = report.guest_cost.get("slowdown")
    return "-" if lost is None else f"{round(lost * 100)} %"


def table(rows: Iterable[tuple[str, Report]], title: str | None = None) -> Table:
    """Reports side by side."""
    result = Table(title=title, title_justify="left", header_style="bold")
    result.add_column("run")
    columns = ("total time", "blackout", "effective downtime", "sent", "rounds", "throughput", "slowdown", "verified")
    for name in columns:
        result.add_column(name, justify="right")
    for name, report in rows:
        result.add_row(
            name,
            span(report.total_time),
            span(report.blackout),
            span(report.effective_downtime),
            format_size(report.sent_bytes),
            str(len(report.rounds)),
            format_rate(report.throughput),
            slowdown(report),
            verdict(report),
        )
    return result
