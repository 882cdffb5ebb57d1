"""``switchover tune``: from traces to the settings to paste."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

import switchover as sw
from switchover.errors import UsageError

from . import show

if TYPE_CHECKING:
    from switchover.tuning import Tuning
    from switchover.tuning.confirmation import Confirmation


@click.command()
@click.argument("traces", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-x",
    "--space",
    multiple=True,
    default=("policy.limit=10ms..2s:log", "strategy.clear=early,skip,late"),
    show_default=True,
    metavar="NAME=LOW..HIGH[:log]|A,B",
    help="What is searched: policy.KNOB, strategy.KNOB, link.bandwidth, policy, strategy; may be given several times.",
)
@click.option(
    "-O",
    "--objective",
    "objectives",
    multiple=True,
    default=("effective_downtime",),
    show_default=True,
    help="What is to be small, as METRIC or METRIC:pN.",
)
@click.option("-C", "--constraint", "constraints", multiple=True, help='A promise: "blackout <= 300ms in 99 %".')
@click.option("-s", "--strategy", default="pre-copy", show_default=True, help="How memory moves, where not searched.")
@click.option("-p", "--policy", default="downtime-limit", show_default=True, help="When to switch over, likewise.")
@click.option("-l", "--link", default="1Gbit/s", show_default=True, metavar="BANDWIDTH[,RTT[,JITTER]]")
@click.option("--trials", default=200, show_default=True, type=click.IntRange(1), help="Candidates.")
@click.option("--starts", default=20, show_default=True, type=click.IntRange(1), help="Moments of each trace.")
@click.option(
    "--test", multiple=True, help="A trace that is held out; default: every third, or the half of a single one."
)
@click.option("--sampler", default="auto", show_default=True, help="tpe, nsga2, gp, cma, random.")
@click.option("--seed", default=0, show_default=True, help="Of the search.")
@click.option(
    "--study", type=click.Path(dir_okay=False, path_type=Path), help="Journal by which an ended search goes on."
)
@click.option("--zero-share", default=0.0, show_default=True, help="Share of pages that are zero until written.")
@click.option("--costs", type=click.Path(exists=True, dir_okay=False), help="A file of `switchover calibrate`.")
@click.option("--exact", is_flag=True, help="Follow every page, rather than count pages where that does.")
@click.option("--sample", default=1, show_default=True, type=click.IntRange(1), help="Follow one page in so many.")
@click.option(
    "--confirm", default=0, type=click.IntRange(0), help="Run the recommendation so often for real (5 or more)."
)
@click.option(
    "--confirm-in", default="memory", show_default=True, type=click.Choice(["memory", "qemu"]), help="In which world."
)
@click.option("--qemu", type=click.Path(exists=True, dir_okay=False), help="The QEMU of --confirm-in qemu.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the report there as HTML.")
@click.option(
    "--suite",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a suite for `switchover compare` there: what is recommended beside the first plan.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def tune(
    *,
    traces: tuple[Path, ...],
    space: tuple[str, ...],
    objectives: tuple[str, ...],
    constraints: tuple[str, ...],
    strategy: str,
    policy: str,
    link: str,
    trials: int,
    starts: int,
    test: tuple[str, ...],
    sampler: str,
    seed: int,
    study: Path | None,
    zero_share: float,
    costs: str | None,
    exact: bool,
    sample: int,
    confirm: int,
    confirm_in: str,
    qemu: str | None,
    html: Path | None,
    suite: Path | None,
    as_json: bool,
) -> int:
    """Search for the settings that serve the guests of TRACES best, whenever their migration begins."""
    screen = show.console()

    def told(done: int, of: int) -> None:
        if not as_json:
            screen.print(f"{done}/{of} candidates", highlight=False)

    found = sw.tune(
        {path.stem: sw.Trace.load(path) for path in traces},
        dict(map(_axis, space)),
        objectives,
        constraints,
        link,
        strategy=strategy,
        policy=policy,
        trials=trials,
        starts=starts,
        test=[Path(name).stem for name in test] or None,
        sampler=sampler,
        seed=seed,
        study=study,
        zero_share=zero_share,
        costs=costs,
        fast=not exact,
        sample=sample,
        on_batch=told,
    )
    if html is not None:
        found.to_html(html, f"Tuning for {', '.join(path.stem for path in traces)}")
    if suite is not None:
        _write_suite(found, suite, traces)
    confirmed = found.confirm(confirm, world=confirm_in, qemu=qemu) if confirm else None
    if as_json:
        told_of = json.loads(found.to_json())
        click.echo(json.dumps({**told_of, "confirmation": confirmed and confirmed.rows()}, indent=2))
        return 0
    click.echo(str(found))
    for name, text in found.settings().items():
        click.echo(f"\n{name}\n{text.rstrip()}")
    if confirmed is not None:
        screen.print(_side_by_side(confirmed))
    return 0


def _write_suite(found: Tuning, suite: Path, traces: tuple[Path, ...]) -> None:
    text = found.suite({path.stem: os.path.relpath(path, suite.parent) for path in traces})
    try:
        suite.write_text(text)
    except OSError as error:
        raise UsageError(f"{suite}: not written: {error.strerror}") from error


def _axis(text: str) -> tuple[str, str]:
    name, mark, what = text.partition("=")
    if not mark or not what:
        raise UsageError(f"--space takes NAME=LOW..HIGH[:log] or NAME=A,B, not {text!r}")
    return name.strip(), what.strip()


def _side_by_side(confirmed: Confirmation) -> Table:
    grid = Table(title=f"Confirmed on {confirmed.guest}", title_justify="left", header_style="bold")
    for name in ("metric", "predicted", "measured"):
        grid.add_column(name)
    for row in confirmed.rows():
        grid.add_row(*row)
    return grid
