"""``switchover qemu``: migrations of real VMs."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import click

import switchover as sw

from . import show

FEATURES_HELP = (
    "What QEMU is to use on the way, as NAME=VALUE[,...]: xbzrle, multifd, compression, zero_pages, auto_converge, "
    "dirty_limit, preempt, mapped_ram, tls, bandwidth, downtime_limit, or a capability or parameter by QEMU's own name."
)
OUTPUT = click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the report there as JSON."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
STRATEGY = click.option(
    "-s", "--strategy", default="pre-copy", show_default=True,
    help="How memory moves: pre-copy, stop-and-copy, post-copy, hybrid[:rounds=N].",
)  # fmt: skip
POLICY = click.option(
    "-p", "--policy", "policies", multiple=True,
    help="When to switch over, throttle, go post-copy, as NAME[:KNOB=VALUE,...]; the first of several that fires "
    "decides. Default: QEMU's own rule.",
)  # fmt: skip
SHADOW = click.option(
    "--shadow", multiple=True, help="A policy that only watches; what it would have done is in the report."
)
LINK = click.option(
    "-l", "--link", default=None, metavar="BANDWIDTH[,RTT[,JITTER]]",
    help="Shape the link, e.g. 1Gbit/s,0.5ms; default: as fast as the machine.",
)  # fmt: skip
FEATURES = click.option("-f", "--features", default="", help=FEATURES_HELP)


@click.group()
def qemu() -> None:
    """Migrate real VMs, driven over QMP: one that you have, or a pair started here."""


@qemu.command()
@click.option("--source", required=True, metavar="PATH|HOST:PORT", help="The source's QMP monitor.")
@click.option("--to", required=True, metavar="URI", help="Where to: tcp:HOST:PORT, unix:PATH, file:PATH, exec:COMMAND.")
@click.option(
    "--destination", metavar="PATH|HOST:PORT",
    help="The destination's QMP monitor: it is set up like the source and told to listen (-incoming defer).",
)  # fmt: skip
@STRATEGY
@POLICY
@SHADOW
@FEATURES
@click.option("--heartbeat", nargs=2, metavar="HERE THERE", help="Devices on which the guest sends bytes on its own.")
@click.option("--observer", nargs=2, metavar="HERE THERE", help="Devices on which the guest answers each byte.")
@click.option(
    "--warm-up", default="1s", show_default=True,
    help="With a heartbeat: how long it is listened to before the start, for the guest's speed before.",
)  # fmt: skip
@click.option(
    "--cool-down", default="500ms", show_default=True,
    help="With a heartbeat: how long it is listened to at the destination.",
)  # fmt: skip
@click.option("--relay", is_flag=True, help="Carry the stream through here, which tells the blackout's parts apart.")
@LINK
@click.option("--recover/--no-recover", default=True, show_default=True, help="Go on when post-copy loses its link.")
@click.option("--timeout", default="30s", show_default=True, help="How long QEMU may take to answer.")
@OUTPUT
@JSON
def migrate(
    *,
    source: str,
    to: str,
    destination: str | None,
    strategy: str,
    policies: tuple[str, ...],
    shadow: tuple[str, ...],
    features: str,
    heartbeat: tuple[str, str] | None,
    observer: tuple[str, str] | None,
    warm_up: str,
    cool_down: str,
    relay: bool,
    link: str | None,
    recover: bool,
    timeout: str,
    output: Path | None,
    as_json: bool,
) -> int:
    """Migrate a VM that runs. What was set on it is put back; whatever fails leaves it running where it was."""
    with contextlib.ExitStack() as stack:
        report = sw.qemu.migrate(
            source,
            to,
            strategy,
            policy_of(policies),
            destination=destination,
            features=features,
            shadow=shadow,
            heartbeat=heartbeat or None,
            observer=observer or None,
            warm_up=warm_up,
            cool_down=cool_down,
            through=stack.enter_context(sw.qemu.Relay(link)) if relay or link else None,
            recover=recover,
            timeout=timeout,
            on_round=show.rounds(None if as_json else show.console()),
        )
    return tell(report, strategy, policies, output, as_json=as_json)


@qemu.command()
@click.option(
    "-w", "--workload", default="hot-cold:rate=50MB/s", show_default=True, metavar="W",
    help="What the guest writes: a pattern, as NAME[:KNOB=VALUE,...].",
)  # fmt: skip
@click.option("--content", default=None, help="What it writes there, as NAME[:KNOB=VALUE,...].")
@click.option("-m", "--memory", default="128MiB", show_default=True, help="Memory of each VM.")
@STRATEGY
@POLICY
@SHADOW
@FEATURES
@LINK
@click.option("--qemu", "binary", default=None, help="Which QEMU; default: the system's.")
@click.option("--destination-qemu", "there", default=None, help="The destination's, if it is another one.")
@click.option("--accelerator", type=click.Choice(["auto", "tcg", "kvm"]), default="auto", show_default=True)
@click.option("--seed", default=0, show_default=True, help="Seed of all that is random.")
@OUTPUT
@JSON
def run(
    *,
    workload: str,
    content: str | None,
    memory: str,
    strategy: str,
    policies: tuple[str, ...],
    shadow: tuple[str, ...],
    features: str,
    link: str | None,
    binary: str | None,
    there: str | None,
    accelerator: str,
    seed: int,
    output: Path | None,
    as_json: bool,
) -> int:
    """Start a source and a destination with a guest of our own, migrate it once, and have it check its data."""
    pattern = sw.workloads.parse(workload)
    if content is not None:
        pattern = pattern.replace(content=sw.contents.parse(content))
    with sw.qemu.Pair(
        pattern, memory, link=link, binary=binary, destination_binary=there, accelerator=accelerator, seed=seed
    ) as pair:
        report = pair.migrate(
            strategy,
            policy_of(policies),
            features=features,
            shadow=shadow,
            on_round=show.rounds(None if as_json else show.console()),
        )
    return tell(report, strategy, policies, output, as_json=as_json)


@qemu.command()
@click.option("--source", required=True, metavar="PATH|HOST:PORT", help="The source's QMP monitor.")
@click.option("--destination", required=True, metavar="PATH|HOST:PORT", help="The destination's.")
@click.option("--listen", required=True, metavar="URI", help="Where the destination is to listen: tcp:HOST:PORT.")
@click.option("--connect", metavar="URI", help="Where the source is to go, if something stands between.")
def recover(source: str, destination: str, listen: str, connect: str | None) -> int:
    """Have a post-copy whose link was cut go on over another one."""
    with sw.qemu.Qmp(source) as here, sw.qemu.Qmp(destination) as there:
        goes_on = sw.qemu.recover(here, there, listen, connect)
    if goes_on:
        click.echo(f"the post-copy goes on over {connect or listen}")
    else:
        click.echo("it is over: the destination has every page, only the source had not heard of it; shut that down")
    return 0


@qemu.command()
@click.option("--source", required=True, metavar="PATH|HOST:PORT", help="The VM's QMP monitor, on this machine.")
@click.option("-d", "--duration", default="30s", show_default=True, help="How long.")
@click.option("--bandwidth", default="32MB/s", show_default=True, help="The most to use.")
@click.option("--keep", type=click.Path(dir_okay=False, path_type=Path), help="Keep the stream there.")
@SHADOW
@OUTPUT
@JSON
def rehearse(
    *,
    source: str,
    duration: str,
    bandwidth: str,
    keep: Path | None,
    shadow: tuple[str, ...],
    output: Path | None,
    as_json: bool,
) -> int:
    """Have a VM copy its memory for a while, to see its rounds; it never moves, and is not stopped."""
    rehearsal = sw.qemu.rehearse(
        source,
        duration,
        bandwidth=bandwidth,
        output=keep,
        shadow=shadow,
        on_round=show.rounds(None if as_json else show.console()),
    )
    tell(rehearsal.report, "rehearsal", (), output, as_json=as_json)
    return 0


@qemu.command()
@click.argument("monitor", metavar="PATH|HOST:PORT")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def abilities(monitor: str, as_json: bool) -> int:
    """Say what the QEMU behind a monitor can do in a migration, and what is set."""
    with sw.qemu.Qmp(monitor) as qmp:
        found = sw.qemu.Abilities(qmp)
        data = {
            "version": found.version,
            "capabilities": found.capabilities,
            "parameters": found.parameters,
            "transports": found.transports(),
            "blocked": qmp.execute("query-migrate").get("blocked-reasons", []),
        }
    if as_json:
        click.echo(json.dumps(data, indent=2))
        return 0
    click.echo(f"QEMU {data['version']}")
    for name, state in data["capabilities"].items():
        click.echo(f"capability {name}: {'on' if state else 'off'}")
    for name, value in data["parameters"].items():
        click.echo(f"parameter {name}: {value}")
    for reason in data["blocked"]:
        click.echo(f"cannot migrate: {reason}")
    return 0


def policy_of(texts: tuple[str, ...]) -> Any:
    """The policy that some texts stand for; none is QEMU's own rule."""
    return sw.policies.any_of(*(sw.policies.parse(text) for text in texts)) if texts else None


def tell(report: sw.Report, strategy: str, policies: tuple[str, ...], output: Path | None, *, as_json: bool) -> int:
    """Prints a report; the command's exit code."""
    if output:
        output.write_text(report.to_json())
    if as_json:
        click.echo(report.to_json())
    else:
        screen = show.console()
        screen.print(show.table([(f"{strategy} / {' + '.join(policies) or 'QEMU'}", report)]))
        for line in remarks(report):
            screen.print(line, highlight=False, markup=False, soft_wrap=True)
    return 0 if report.outcome == "completed" else 1


def cost_of(report: sw.Report) -> list[str]:
    """The blackout in its parts, and what was lost beside it."""
    parts = {name: part for name, part in report.data["blackout_parts"].items() if part is not None}
    # What comes after the blackout, and what is there in its own parts.
    for name in ("acknowledge", *(["last_ram_to_load"] if "load" in parts else [])):
        parts.pop(name, None)
    told = [f"{name.replace('_', ' ')} {show.span(part)}" for name, part in parts.items()]
    lines = [f"its parts: {', '.join(told)}"] if told else []
    if report.effective_downtime is not None and report.brownout is not None:
        lost = show.span(report.brownout["loss"])
        lines.append(f"effective downtime {show.span(report.effective_downtime)}: the blackout and {lost} of work lost")
    return lines


def remarks(report: sw.Report) -> list[str]:
    """What the table has no room for."""
    lines = [f"{report.outcome}: {report.reason}"] if report.reason else []
    places = ("guest_gap", "events_gap", "sender_pause", "observer_gap")
    seen = [
        f"{name.replace('_', ' ')} {show.span(report.data[name])}" for name in places if report.data[name] is not None
    ]
    if seen:
        lines.append(f"blackout by vantage point: {', '.join(seen)}")
    lines += cost_of(report)
    for side, cost in report.data["qemu"]["cpu"].items():
        vcpus = ", ".join("-" if each is None else f"{each:.2f} s" for each in cost["vcpus"])
        lines.append(f"CPU time of the {side}: {cost['process']:.2f} s, of its vCPUs {vcpus}")
    if "guest_check" in report.data["qemu"]:
        lines.append(f"the guest found all of its {report.data['qemu']['guest_check']} pages as it wrote them")
    for event in report.events:
        if event["event"] == "shadow":
            decision = event["decision"]
            lines.append(f"{event['policy']} would have said {decision['kind']} in round {event['round']}")
    return lines
