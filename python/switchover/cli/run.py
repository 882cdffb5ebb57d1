"""``switchover run``: one migration of a guest of our own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

import switchover as sw
from switchover.report import coded

from . import show


@click.command()
@click.option(
    "-w",
    "--workload",
    "workloads",
    multiple=True,
    default=("kv",),
    show_default=True,
    metavar="W",
    help="What the guest runs, as NAME[:KNOB=VALUE,...]; several give a vCPU each.",
)
@click.option("-m", "--memory", default="256MiB", show_default=True, help="Guest memory.")
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
    help="When to switch over, as NAME[:KNOB=VALUE,...]; the first of several that fires decides.",
)
@click.option("--shadow", multiple=True, help="A policy that only watches; what it would have done is in the report.")
@click.option(
    "-l",
    "--link",
    default=None,
    metavar="BANDWIDTH[,RTT[,JITTER]]",
    help="Shape the link, e.g. 1Gbit/s,0.5ms; default: as fast as the machine.",
)
@click.option("--channels", default=1, show_default=True, help="Connections side by side.")
@click.option("--transport", type=click.Choice(["tcp", "unix"]), default="tcp", show_default=True)
@click.option(
    "--to",
    default=None,
    metavar="HOST:PORT|unix:PATH|process",
    help="Destination: `switchover receive` elsewhere, or another process; default: another mapping here.",
)
@click.option(
    "-c",
    "--codec",
    default="zero",
    show_default=True,
    help="How pages are encoded, as NAME[+NAME...][:KNOB=VALUE,...].",
)
@click.option("-t", "--tracker", default="auto", show_default=True, help="How writes are found.")
@click.option("--seed", default=0, show_default=True, help="Seed of all that is random.")
@click.option("--warm-up", default="500ms", show_default=True, help="How long the guest runs before.")
@click.option("--verify/--no-verify", default=False, help="Compare source and destination page by page.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the report there as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def run(
    *,
    workloads: tuple[str, ...],
    memory: str,
    strategy: str,
    policies: tuple[str, ...],
    shadow: tuple[str, ...],
    link: str | None,
    channels: int,
    transport: str,
    to: str | None,
    codec: str,
    tracker: str,
    seed: int,
    warm_up: str,
    verify: bool,
    output: Path | None,
    as_json: bool,
) -> int:
    """Migrate a running guest once and report what it cost."""
    screen = show.console()
    path = dataclasses.replace(sw.Link.of(link), channels=channels, transport=transport, seed=seed)
    plan = sw.strategies.parse(strategy).replace(codec=codec)
    rules = [sw.policies.parse(text) for text in policies]
    guest = sw.Guest(memory, [sw.workloads.parse(text) for text in workloads], seed=seed)

    with guest:
        report = sw.migrate(
            guest,
            plan,
            policy=sw.policies.any_of(*rules),
            link=path,
            to=to,
            tracker=tracker,
            verify=verify,
            warm_up=warm_up,
            on_round=show.rounds(None if as_json else screen),
            shadow=shadow,
        )
    if output:
        output.write_text(report.to_json())
    if as_json:
        click.echo(report.to_json())
    else:
        screen.print(show.table([(f"{strategy} / {' + '.join(policies)}", report)]))
        for line in remarks(report):
            screen.print(line, highlight=False, markup=False)
    return 0 if report.outcome == "completed" else 1


def remarks(report: sw.Report) -> list[str]:
    """What the table has no room for."""
    lines = [f"{report.outcome}: {report.reason}"] if report.reason else []
    tax = report.tracking
    first, scan = tax["first_write_ns"], tax["scan_us_per_gib"]
    costs = [f"{first:.0f} ns a first write"] if first is not None else []
    costs += [f"{scan:.0f} us a GiB scanned"] if scan is not None else []
    lines.append(f"tracked by {tax['tracker']}" + (f": {', '.join(costs)}" if costs else ""))
    if report.sender_pause is not None:
        lines.append(
            f"blackout seen by the guest {show.span(report.guest_gap)}, by the sender {show.span(report.sender_pause)}"
        )
    if report.coding is not None:
        lines.append(f"encoded {coded(report.coding)}")
    for event in report.events:
        if event["event"] == "shadow":
            decision = event["decision"]
            if decision["kind"] != "proceed":
                lines.append(f"{event['policy']} would have said {decision['kind']} after round {event['round']}")
    return lines
