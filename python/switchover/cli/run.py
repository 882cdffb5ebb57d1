"""``switchover run``: one migration of a guest of our own."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

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
    metavar="HOST:PORT|unix:PATH|process|here",
    help="Destination: `switchover receive` elsewhere, another process, or another mapping here; default: a process"
    " for post-copy and hybrid, and else here.",
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
@click.option(
    "--cool-down", default=None, help="How long the guest is watched at the destination; default: as the warm-up."
)
@click.option("--verify/--no-verify", default=False, help="Compare source and destination page by page.")
@click.option("--retry", default=0, show_default=True, help="How often a lost link is replaced.")
@click.option("--stall-timeout", default="10s", show_default=True, help="How long the peer may be silent.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the report there as JSON.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write it there as HTML, with charts.")
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
    cool_down: str | None,
    verify: bool,
    retry: int,
    stall_timeout: str,
    output: Path | None,
    html: Path | None,
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
            cool_down=cool_down,
            on_round=show.rounds(None if as_json else screen),
            on_faults=None if as_json else show.faults(screen),
            shadow=shadow,
            stall_timeout=stall_timeout,
            retry=retry,
        )
    if output:
        output.write_text(report.to_json())
    if html:
        report.to_html(html, f"{strategy} / {' + '.join(policies)}")
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
    if report.faults is not None:
        lines += fault_lines(report, report.faults)
    if report.effective_downtime is not None and report.brownout is not None:
        lines.append(
            f"effective downtime {show.span(report.effective_downtime)}: the blackout and "
            f"{show.span(report.brownout['loss'])} of work lost in the brownout"
        )
    if report.coding is not None:
        lines.append(f"encoded {coded(report.coding)}")
    for event in report.events:
        if event["event"] == "shadow":
            decision = event["decision"]
            if decision["kind"] != "proceed":
                said = f"{event['policy']} would have said {sw.Decision.from_dict(decision)}"
                lines.append(f"{said} ({show.span(event['time'])} after the start, round {event['round']})")
    return lines


def fault_lines(report: sw.Report, faults: dict[str, Any]) -> list[str]:
    """Remote faults: counts, the parts of their latency, and how it is distributed."""
    parts = ", ".join(f"{part} {show.span(faults[part]['p50'])}" for part in ("request", "transfer", "placement"))
    lines = [
        f"remote faults: {faults['asked_pages']} pages asked for, {faults['pushed_pages']} pushed, "
        f"{faults['sent_twice']} sent twice; all there after {show.span(faults['duration'])}",
        f"their latency: median {show.span(faults['total']['p50'])}, 99 % {show.span(faults['total']['p99'])}; "
        f"medians of its parts: {parts}",
    ]
    if faults["lost_links"]:
        lines.append(f"the link was lost {faults['lost_links']} times, for {show.span(faults['lost_time'])} in all")
    return [*lines, "latency from  faults", *report.fault_histogram().splitlines()]
