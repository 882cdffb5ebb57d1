"""``switchover stream``: QEMU's migration streams."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
from rich.table import Table

from switchover import units
from switchover.cli import captures, show
from switchover.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from switchover.stream import Pages, Receiver, Reception

# After so many seconds a person wants to know that something goes on.
QUIET = 2.0


@click.group()
def stream() -> None:
    """Read, check and receive QEMU's migration streams."""


@stream.command()
@click.option(
    "--listen", required=True, metavar="tcp:HOST:PORT|unix:PATH", help="What the source's `migrate` is given."
)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False), help="Keep the bytes here; other channels in FILE.1, ..."
)
@click.option("--log", type=click.Path(dir_okay=False), help="Note here which pages came when, not what is in them.")
@click.option("--discard", is_flag=True, help="Measure the bytes and forget them (the default without -o).")
@click.option("--accept/--drop", "accept", default=True, help="Let the source complete, or go on running its guest.")
@click.option("--for", "limit", metavar="TIME", help="Drop the migration after that time.")
@click.option("--timeout", metavar="TIME", help="How long to wait for a source; for ever without it.")
@click.option("--switchover-ack", is_flag=True, help="The source has this capability.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def receive(
    *, listen: str, output: str | None, log: str | None, discard: bool, accept: bool, limit: str | None,
    timeout: str | None, switchover_ack: bool, as_json: bool,
) -> int:  # fmt: skip
    """Be the destination of a real QEMU source, and note what comes and when.

    The source: `migrate -d tcp:HOST:PORT`. With --drop it needs the capability return-path, and its guest goes on
    running; without, the guest has left the source and runs nowhere.
    """
    from switchover.stream import Receiver

    if output and discard:
        raise UsageError("-o keeps the bytes and --discard forgets them: use one of them")
    with Receiver(listen) as receiver:
        click.echo(f"listening on {receiver.endpoint}", err=True)
        with progress(receiver):
            reception = receiver.receive(
                output, log=log, ending="accept" if accept else "drop", limit=limit, timeout=timeout,
                switchover_ack=switchover_ack,
            )  # fmt: skip
    if as_json:
        click.echo(reception.to_json())
    else:
        summary(reception)
    return 1 if reception.outcome == "failed" else 0


@contextmanager
def progress(receiver: Receiver) -> Iterator[None]:
    """Says every other second how much has come in."""
    done = threading.Event()

    def report() -> None:
        while not done.wait(QUIET):
            if receiver.bytes:
                click.echo(f"{units.format_size(receiver.bytes)} received", err=True)

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def summary(reception: Reception) -> None:
    """The reception in one screen."""
    rate = units.format_rate(reception.bytes / reception.duration) if reception.duration else "-"
    size, time = units.format_size(reception.bytes), units.format_time(reception.duration)
    why = f": {reception.reason}" if reception.reason else ""
    click.echo(f"{reception.outcome}{why}")
    click.echo(f"machine {reception.machine or 'unnamed'}, {units.format_size(sum(reception.blocks.values()))} of RAM")
    click.echo(f"{size} in {time}, {rate} over {len(reception.channels)} connections; pages: {kinds(reception.pages)}")
    if reception.stopped is not None and reception.complete is not None:
        rest = units.format_time(reception.complete - reception.stopped)
        click.echo(f"the guest was seen stopped at {units.format_time(reception.stopped)}; the rest took {rest}")
    table = Table("pass", "begins", "lasts", "bytes", "pages", box=None)
    for index, each in enumerate(reception.passes):
        times = units.format_time(each.start), units.format_time(each.end - each.start)
        table.add_row(str(index), *times, units.format_size(each.bytes), kinds(each.pages))
    if reception.passes:
        show.console().print(table)


def kinds(pages: Pages) -> str:
    """Pages by kind, those that there are."""
    counts = {name: getattr(pages, name) for name in ("raw", "zero", "xbzrle", "compressed")}
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "none"


for command in captures.commands:
    stream.add_command(command)
