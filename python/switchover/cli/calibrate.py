"""``switchover calibrate``: the simulator's costs out of real runs on this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

import switchover as sw

from . import show

if TYPE_CHECKING:
    from collections.abc import Callable


@click.command()
@click.argument("reports", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--repeats", default=3, show_default=True, help="Of six migrations, if no reports are given.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the costs here (JSON).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def calibrate(reports: tuple[Path, ...], *, repeats: int, output: Path | None, as_json: bool) -> int:
    """Fit what migrations cost beside sending, for `simulate --costs`.

    REPORTS are reports of real runs as JSON, such as `run --json` prints. Without any, guests of two sizes are
    migrated over three links here.
    """
    from switchover import calibration

    if repeats < 1:
        raise sw.UsageError("--repeats must be 1 or more")
    runs = [read(path) for path in reports] or calibration.measure(repeats, progress(as_json))
    costs = sw.Costs.fit(runs)
    if output:
        costs.save(output)
    if as_json:
        click.echo(json.dumps({"costs": costs.spec(), "errors": dict(costs.errors), "about": dict(costs.about)}))
    else:
        show.console().print(table(costs))
    return 0


def read(path: Path) -> sw.Report:
    """The report in a file."""
    try:
        return sw.Report.from_json(path.read_text())
    except sw.UsageError as error:
        raise sw.UsageError(f"{path}: {error}") from error
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise sw.UsageError(f"{path}: not a report: {error}") from error


def table(costs: sw.Costs) -> Table:
    """Costs and their standard errors."""
    from switchover.costs import NAMES, as_text

    title = f"costs of the world {costs.about['world']}, of {costs.about['runs']} runs"
    result = Table(title=title, title_justify="left", header_style="bold")
    for name in ("cost", "fitted", "standard error"):
        result.add_column(name, justify="left" if name == "cost" else "right")
    for name in NAMES:
        result.add_row(name, as_text(getattr(costs, name), name), as_text(costs.errors[name], name))
    return result


def progress(silent: bool) -> Callable[[int, int], None] | None:
    """A line that is written over, where somebody watches."""
    if silent or not sys.stderr.isatty():
        return None

    def line(done: int, of: int) -> None:
        click.echo(f"\rcalibrating: {done} of {of} migrations{'' if done < of else chr(10)}", nl=False, err=True)

    return line
