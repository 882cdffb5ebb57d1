"""``switchover record``: what a running process writes, or a guest wrote while it was migrated, as a trace."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

import switchover as sw
from switchover.units import format_rate, format_size, format_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from switchover.recording import Standing


@click.command()
@click.option("--pid", type=int, help="The process: any that runs, a QEMU with its guest too.")
@click.option(
    "--stream",
    multiple=True,
    type=click.Path(),
    metavar="FILE",
    help="Or a captured QEMU stream, once for each of its files, or a receiver's page log.",
)
@click.option(
    "--qmp", metavar="SOCK", help="Or the monitor of a VM: a rehearsal, in which it never moves and is never stopped."
)
@click.option("--cap", default="32MB/s", show_default=True, help="The most that a rehearsal may use of the link.")
@click.option("--bandwidth", default="1Gbit/s", show_default=True, help="Of a stream of which nobody noted the times.")
@click.option("--interval", default="100ms", show_default=True, help="How often written pages are looked for.")
@click.option("--duration", default="30s", show_default=True, help="For how long; Ctrl-C ends it early.")
@click.option("--samples", default=64, show_default=True, help="Pages of an interval whose content is looked at.")
@click.option(
    "-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The trace's file (Parquet)."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def record(
    *, pid: int | None, stream: tuple[str, ...], qmp: str | None, cap: str, bandwidth: str, interval: str,
    duration: str, samples: int, output: Path, as_json: bool,
) -> int:  # fmt: skip
    """Record which pages a running process or VM writes, without its taking part; or those of a migration's stream."""
    if [pid is not None, bool(stream), qmp is not None].count(True) != 1:
        raise sw.UsageError(
            "give --pid for a process, --qmp for a VM or --stream for a captured migration, one of them"
        )
    if not output.absolute().parent.is_dir():
        raise sw.UsageError(f"{output}: its folder does not exist")
    if stream or qmp is not None:
        source = stream[0] if len(stream) == 1 else stream
        trace = (
            sw.Trace.record(qmp=qmp, duration=duration, interval=interval, bandwidth=cap)
            if qmp is not None
            else sw.Trace.from_stream(source, interval=interval, bandwidth=bandwidth)
        )
        return keep(trace, output, as_json)
    trace = sw.Trace.record(pid, duration=duration, interval=interval, samples=samples, on_progress=progress(as_json))
    trace.save(output)
    cost = json.loads(trace.metadata["cost"])
    if as_json:
        click.echo(json.dumps(summary(trace) | {"file": str(output), "ended": trace.metadata["ended"], "cost": cost}))
        return 0
    clear()
    click.echo(f"{output}: {describe(trace)}; {trace.metadata['ended']}")
    click.echo(cost_line(trace))
    return 0


def keep(trace: sw.Trace, output: Path, as_json: bool) -> int:
    """Writes the trace of a migration."""
    trace.save(output)
    if as_json:
        click.echo(json.dumps(summary(trace) | {"file": str(output), "metadata": trace.metadata}))
    else:
        click.echo(f"{output}: {describe(trace)}; times {trace.metadata['times']}")
    return 0


def progress(silent: bool) -> Callable[[Standing], None] | None:
    """A line that is written over, where somebody watches."""
    if silent or not sys.stderr.isatty():
        return None

    def show(now: Standing) -> None:
        left = format_time(max(0.0, now.duration - now.seconds))
        text = f"recording: {left} left, {format_rate(now.dirty_rate)}, {format_size(now.memory_bytes)} in use"
        click.echo(f"\r{text:<76}", nl=False, err=True)

    return show


def clear() -> None:
    """Takes the line away."""
    if sys.stderr.isatty():
        click.echo(f"\r{'':<76}\r", nl=False, err=True)


def describe(trace: sw.Trace) -> str:
    """A trace in a line."""
    rate = trace.dirty_rate.mean() if trace.intervals else 0.0
    return (
        f"{format_time(trace.duration)} of {format_size(trace.memory_bytes)} in {len(trace.blocks)} blocks, "
        f"{trace.intervals} intervals, {format_rate(float(rate))} written on average"
    )


def cost_line(trace: sw.Trace) -> str:
    """What recording cost the process."""
    cost = json.loads(trace.metadata["cost"])
    mean, longest = format_time(cost["harvest_mean"]), format_time(cost["harvest_max"])
    first, share = cost["first_write_ns"], cost["first_write_share"]
    parts = [
        f"stopped for {format_time(cost['stopped'])}" + (f" in {cost['stops']} stops" if cost["stops"] > 1 else ""),
        f"{cost['harvests']} harvests of {mean} (longest {longest})",
    ]
    if first is not None:
        parts.append(f"{first:.0f} ns for each first write to a page")
    if share is not None:
        parts.append(f"which is {share * 100:.2g} % of a CPU")
    if cost["late"]:
        parts.append(f"{cost['late']} intervals late")
    if cost["refused_bytes"]:
        parts.append(f"{format_size(cost['refused_bytes'])} could not be watched")
    return "cost: " + ", ".join(parts)


def summary(trace: sw.Trace) -> dict[str, object]:
    """A trace in numbers, for JSON."""
    rates = trace.dirty_rate
    return {
        "duration": trace.duration,
        "interval": trace.interval,
        "intervals": trace.intervals,
        "memory_bytes": trace.memory_bytes,
        "rows": len(trace.rows),
        "dirty_rate": {
            "mean": float(rates.mean()) if len(rates) else 0.0,
            "max": float(rates.max()) if len(rates) else 0.0,
        },
    }
