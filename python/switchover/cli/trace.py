"""``switchover trace info | plot | cut | merge | scale``: traces, looked at and edited."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.table import Table

import switchover as sw
from switchover import samples
from switchover.units import format_rate, format_size, format_time

from . import chart, show
from .record import cost_line, describe, summary

FILE = click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
OUTPUT = click.option(
    "-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The file to write."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
BLOCKS = 10


@click.group()
def trace() -> None:
    """Look at dirty traces, cut, merge and scale them."""


def findings(loaded: sw.Trace) -> dict[str, Any]:
    """What is to be said about a trace."""
    lengths = chart.windows(loaded, 12) if loaded.intervals else []
    return summary(loaded) | {
        "blocks": loaded.blocks,
        "written_pages": written(loaded),
        "working_set": [
            {"window": window, "bytes": float(pages) * 4096}
            for window, pages in zip(lengths, loaded.unique_pages(lengths), strict=True)
        ],
        "phases": [phase._asdict() for phase in loaded.phases()],
        "content": samples.shares(loaded.samples) | {"sampled_pages": int(loaded.samples["pages"].sum())},
        "metadata": loaded.metadata,
    }


def written(loaded: sw.Trace) -> dict[str, int]:
    """Writes of pages in each block: a page counts once an interval."""
    counts = [0] * len(loaded.blocks)
    for block, pages in zip(loaded.rows["block"].tolist(), loaded.rows["pages"].tolist(), strict=True):
        counts[block] += pages
    return dict(zip(loaded.blocks, counts, strict=True))


@trace.command()
@FILE
@JSON
def info(file: Path, as_json: bool) -> None:
    """Say what a trace holds: dirty rate, working set, phases, content, where it comes from."""
    loaded = sw.Trace.load(file)
    found = findings(loaded)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    screen = show.console()
    screen.print(describe(loaded), highlight=False, markup=False)
    for name in ("source", "command", "tracker", "machine", "ended", "edits"):
        if name in loaded.metadata:
            screen.print(f"{name}: {loaded.metadata[name]}", highlight=False, markup=False)
    if "cost" in loaded.metadata:
        screen.print(cost_line(loaded), highlight=False, markup=False)
    screen.print(content(found["content"]), highlight=False, markup=False)
    screen.print(working_set(found))
    screen.print(phase_table(loaded))
    screen.print(block_table(found))


def content(found: dict[str, Any]) -> str:
    """The samples in a line."""
    if not found["sampled_pages"]:
        return "content: not sampled"
    parts = [f"{name} {found[name] * 100:.1f} %" for name in ("zero", "duplicates") if found[name] is not None]
    sizes = [f"{name} {found[name]:.2f}" for name in ("lz4", "zstd", "xbzrle", "delta") if found[name] is not None]
    return (
        f"content of {found['sampled_pages']} pages: {', '.join(parts)}; of their size remains by {', '.join(sizes)}"
        if sizes
        else f"content of {found['sampled_pages']} pages: {', '.join(parts)}"
    )


def working_set(found: dict[str, Any]) -> Table:
    """The working-set curve in numbers."""
    table = Table(title="working set", title_justify="left", header_style="bold")
    table.add_column("window", justify="right")
    table.add_column("distinct memory written", justify="right")
    for point in found["working_set"]:
        table.add_row(format_time(point["window"]), format_size(point["bytes"]))
    return table


def phase_table(loaded: sw.Trace) -> Table:
    """The phases."""
    table = Table(title="phases", title_justify="left", header_style="bold")
    for name in ("from", "to", "dirty rate"):
        table.add_column(name, justify="right")
    for phase in loaded.phases():
        table.add_row(format_time(phase.start), format_time(phase.end), format_rate(phase.dirty_rate))
    return table


def block_table(found: dict[str, Any]) -> Table:
    """The blocks that are written most."""
    table = Table(title="blocks, the most written first", title_justify="left", header_style="bold")
    table.add_column("block")
    for name in ("size", "written"):
        table.add_column(name, justify="right")
    ranked = sorted(found["blocks"], key=lambda name: (-found["written_pages"][name], -found["blocks"][name]))
    for name in ranked[:BLOCKS]:
        table.add_row(name, format_size(found["blocks"][name] * 4096), format_size(found["written_pages"][name] * 4096))
    if len(ranked) > BLOCKS:
        table.add_row(f"and {len(ranked) - BLOCKS} more", "", "")
    return table


@trace.command()
@FILE
@JSON
def plot(file: Path, as_json: bool) -> None:
    """Draw the dirty rate over time, the working-set curve, and a heat map of pages."""
    loaded = sw.Trace.load(file)
    if not loaded.intervals:
        raise sw.UsageError(f"{file}: the trace has no interval to draw")
    if as_json:
        lengths = chart.windows(loaded)
        curves = {
            "dirty_rate": loaded.dirty_rate.tolist(),
            "windows": lengths,
            "unique_pages": loaded.unique_pages(lengths).tolist(),
        }
        click.echo(json.dumps(curves))
        return
    for drawn in (chart.dirty_rate, chart.working_set, chart.heat):
        click.echo(drawn(loaded) + "\n")


def save(made: sw.Trace, output: Path, as_json: bool) -> None:
    """Writes what was made, and says so."""
    made.save(output)
    click.echo(json.dumps(summary(made) | {"file": str(output)}) if as_json else f"{output}: {describe(made)}")


@trace.command()
@FILE
@click.option("--start", default="0s", show_default=True, help="From this time on.")
@click.option("--end", default=None, help="Up to this time; default: the trace's end.")
@OUTPUT
@JSON
def cut(*, file: Path, start: str, end: str | None, output: Path, as_json: bool) -> None:
    """Keep a part of a trace."""
    save(sw.Trace.load(file).cut(start, end), output, as_json)


@trace.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--after", is_flag=True, help="One after another, instead of side by side as one guest.")
@OUTPUT
@JSON
def merge(*, files: tuple[Path, ...], after: bool, output: Path, as_json: bool) -> None:
    """Make one trace out of several."""
    save(sw.Trace.merge([sw.Trace.load(file) for file in files], one_after_another=after), output, as_json)


@trace.command()
@FILE
@click.option("--speed", default=1.0, show_default=True, help="So many times as fast.")
@click.option("--memory", default=1, show_default=True, help="So many times as large.")
@click.option("--interval", default=None, help="Intervals of this length, a multiple of the trace's.")
@OUTPUT
@JSON
def scale(*, file: Path, speed: float, memory: int, interval: str | None, output: Path, as_json: bool) -> None:
    """Make a trace of a faster or larger guest, or one of longer intervals."""
    save(sw.Trace.load(file).scale(speed, memory, interval), output, as_json)
