"""``switchover compare``: a suite of cases, repeated; and the regression gate over two results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table as Grid

from switchover import comparison, extra
from switchover.comparison.metric import GATED
from switchover.errors import UsageError

from . import show

if TYPE_CHECKING:
    from rich.console import Console

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("suite", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the results, which is gone on with if it is there; default: SUITE's name with `.results`.",
)
@click.option("--repeats", type=click.IntRange(5), help="Runs of each case; default: what SUITE says.")
@click.option("--metric", "metrics", multiple=True, help="Which figures; several may be given.")
@click.option("--base", type=FOLDER, help="Results to hold others against.")
@click.option("--head", type=FOLDER, help="The others; default: those of SUITE.")
@click.option("--fail-over", default="5%", show_default=True, help="Share by which a median may grow.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the report there as HTML.")
@click.option("--json", "as_json", is_flag=True, help="Print the table, or the gate's findings, as JSON.")
def compare(
    *,
    suite: Path | None,
    output: Path | None,
    repeats: int | None,
    metrics: tuple[str, ...],
    base: Path | None,
    head: Path | None,
    fail_over: str,
    html: Path | None,
    as_json: bool,
) -> int:
    """Run SUITE and table it; or, with --base, fail if results have become worse.

    Results are kept run by run: a comparison that was ended, or killed, goes on where it was. With --base, the exit
    code is 1 if a median is worse by more than --fail-over, surely and beyond the noise.
    """
    names = metrics or GATED
    if (suite is None) == (head is None):
        raise UsageError("give either a SUITE to run, or --base and --head to hold results against each other")
    if head is not None and base is None:
        raise UsageError("--head is held against something: give --base")
    screen = show.console()
    table = comparison.Table.load(head) if head else _run(suite or Path(), output, repeats, None if as_json else screen)
    if html is not None:
        table.to_html(html, f"Comparison {(suite or head or Path()).stem}", names)
    if base is not None:
        return _gate(table.against(comparison.Table.load(base), fail_over, names), as_json)
    if as_json:
        click.echo(table.to_json())
    else:
        screen.print(grid(table, names))
        for line in table.remarks(names):
            screen.print(line, highlight=False, markup=False)
    return 0 if all(run.completed for run in table.runs) else 1


def _run(path: Path, output: Path | None, repeats: int | None, screen: Console | None) -> comparison.Table:
    suite, base = extra.load("switchover.comparison.suite", "compare").Suite.load(path)
    folder = output or path.with_suffix(".results")

    def told(done: int, of: int, run: comparison.Run) -> None:
        if screen is not None:
            what = ", ".join(run.names.values()) + (", again" if run.arm == "again" else "")
            report = run.report
            figures = f"blackout {show.span(report.blackout)}, total {show.span(report.total_time)}"
            line = f"{done}/{of}  {what}: {report.outcome}, {figures}"
            screen.print(line, highlight=False, markup=False, soft_wrap=True)

    table: comparison.Table = suite.run(base, folder, repeats, told)
    return table


def _gate(gate: comparison.Gate, as_json: bool) -> int:
    if as_json:
        click.echo(json.dumps({"passed": gate.passed, "findings": [_finding(f) for f in gate.findings]}, indent=2))
    else:
        click.echo(str(gate))
    return 0 if gate.passed else 1


def _finding(finding: comparison.Finding) -> dict[str, Any]:
    return {"case": finding.case, "metric": finding.metric, "failed": finding.failed, "text": finding.text}


def grid(table: comparison.Table, metrics: tuple[str, ...]) -> Grid:
    """The table for a terminal."""
    head, rows = table.cells(metrics)
    grid = Grid(header_style="bold")
    for name in head:
        grid.add_column(name, overflow="fold")
    for row in rows:
        grid.add_row(*row)
    return grid
