"""``switchover simulate``: what would have become of a migration of a recorded guest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

import switchover as sw
from switchover import html as pages

from . import show


@click.command()
@click.argument("trace", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-s",
    "--strategy",
    default="pre-copy",
    show_default=True,
    help="How memory moves, as NAME[:KNOB=VALUE,...].",
)
@click.option(
    "-p",
    "--policy",
    "policies",
    multiple=True,
    default=("downtime-limit",),
    show_default=True,
    help="When to switch over, as NAME[:KNOB=VALUE,...]; each of several is a run of its own.",
)
@click.option("-l", "--link", default="1Gbit/s", show_default=True, metavar="BANDWIDTH[,RTT[,JITTER]]")
@click.option(
    "--start", multiple=True, default=("0s",), show_default=True, help="Where in the trace; several are runs."
)
@click.option("-c", "--codec", default="zero", show_default=True, help="How pages are encoded, by the trace's samples.")
@click.option("--encode-rate", metavar="RATE", help="What its encoders get through; unlimited by default.")
@click.option(
    "--reads", default=0.0, show_default=True, help="Pages read for each page written, after post-copy's switch."
)
@click.option("--fast", is_flag=True, help="Count pages instead of following them.")
@click.option("--zero-share", default=0.0, show_default=True, help="Share of pages that are zero until written.")
@click.option(
    "--costs",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What migrations cost beside sending: a file of `switchover calibrate`.",
)
@click.option("--longest", default="1h", show_default=True, help="Simulated time after which a run counts as failed.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the runs there as HTML.")
@click.option("--json", "as_json", is_flag=True, help="Print the reports as JSON.")
def simulate(
    trace: Path,
    *,
    strategy: str,
    policies: tuple[str, ...],
    link: str,
    start: tuple[str, ...],
    codec: str,
    encode_rate: str | None,
    reads: float,
    fast: bool,
    zero_share: float,
    costs: Path | None,
    longest: str,
    html: Path | None,
    as_json: bool,
) -> int:
    """Simulate migrations of the guest that TRACE watched, under each policy and from each start."""
    guest, plan = sw.Trace.load(trace), sw.strategies.parse(strategy).replace(codec=codec)
    runs = [(policy, at) for policy in policies for at in start]
    given = sw.Costs.of(costs)

    def run(policy: str, at: str) -> sw.Report:
        judge = sw.policies.parse(policy)
        model: dict[str, Any] = {
            "costs": given,
            "zero_share": zero_share,
            "encode_rate": encode_rate,
            "reads": reads,
            "fast": fast,
        }
        return sw.simulate(guest, plan, judge, link, start=at, longest=longest, **model)

    reports = [run(policy, at) for policy, at in runs]
    names = [policy if len(start) == 1 else f"{policy} from {at}" for policy, at in runs]
    if html:
        pages.Document(f"{trace.name}, {strategy} over {link}", list(map(pages.of_report, reports, names))).write(html)
    if as_json:
        click.echo(json.dumps([report.data for report in reports], indent=2))
    else:
        show.console().print(show.table(zip(names, reports, strict=True), title=f"{strategy} over {link}: {guest!r}"))
        for name, report in zip(names, reports, strict=True):
            if report.reason:
                click.echo(f"{name}: {report.outcome}: {report.reason}")
    return 0 if all(report.outcome == "completed" for report in reports) else 1
