"""``switchover policies | workloads | trackers | strategies``: what there is, with knobs."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.table import Table

import switchover as sw

from . import show

KINDS = {
    "workloads": "What guests run.",
    "policies": "When to switch over, throttle, give up.",
    "strategies": "How memory moves.",
    "prepaging": "Orders in which post-copy pushes pages.",
    "trackers": "How writes are found.",
}


def listing(kind: str) -> click.Command:
    """The command that lists one kind of parts."""

    @click.command(kind, help=f"{KINDS[kind]} With knobs, units and defaults.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    def command(as_json: bool) -> None:
        described = getattr(sw, kind).describe()
        if as_json:
            click.echo(json.dumps(described, indent=2))
        else:
            show.console().print(as_table(described))

    return command


def as_table(described: list[dict[str, Any]]) -> Table:
    """One part a row, its knobs below each other."""
    table = Table(header_style="bold", show_lines=True)
    for name in ("name", "what it is", "knobs (default): what they do"):
        table.add_column(name, overflow="fold")
    for part in described:
        knobs = [f"[bold]{k['name']}[/] ({default(k)}): {' '.join(k['doc'].split())}" for k in part["knobs"]]
        missing = part.get("unavailable")
        what = " ".join(part["doc"].split()) + (f" [red]Not here: {missing}[/]" if missing else "")
        table.add_row(part["name"], what, "\n".join(knobs))
    return table


def default(knob: dict[str, Any]) -> str:
    """A knob's default with its unit."""
    value = knob["default"]
    units = {"bytes": "bytes", "bytes_per_second": "bytes/s", "seconds": "s"}
    return "none" if value is None else f"{value} {units.get(knob['unit'], '')}".strip().replace("[", "\\[")


listings = [listing(kind) for kind in KINDS]
