"""``switchover receive``: the destination, on another process or host."""

from __future__ import annotations

import json
import time

import click

import switchover as sw
from switchover import units


@click.command()
@click.option(
    "--listen",
    required=True,
    metavar="HOST:PORT|unix:PATH",
    help="Where to wait for a source; port 0 takes any free one.",
)
@click.option("--timeout", default="1h", show_default=True, help="How long to wait for a source.")
@click.option("--stay", default="1s", show_default=True, help="How long to run the guest once it is here.")
@click.option(
    "--recovery-timeout",
    default="60s",
    show_default=True,
    help="How long a guest ahead of its memory waits for a source that lost its link.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def receive(listen: str, timeout: str, stay: str, recovery_timeout: str, as_json: bool) -> int:
    """Take one guest in, run it for a while, check its data, and let it go.

    The guest's memory and its workload come from the source: `switchover run --to HOST:PORT`.
    """
    seconds = units.parse_time(stay, "--stay")
    with sw.Receiver(listen, recovery_timeout=recovery_timeout) as receiver:
        click.echo(f"listening on {receiver.endpoint}", err=True)
        guest = receiver.accept(timeout)
    with guest:
        before = guest.progress.operations
        time.sleep(seconds)
        rate = (guest.progress.operations - before) / seconds if seconds else 0.0
        guest.check()
        size = guest.memory_bytes
    if as_json:
        click.echo(json.dumps({"memory_bytes": size, "operations_per_second": rate, "checked": True}))
    else:
        text = (
            f"{units.format_size(size)} taken in; the guest runs at {rate:.0f} operations a second, its data are whole"
        )
        click.echo(text)
    return 0
