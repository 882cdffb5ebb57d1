"""``switchover stream inspect | extract | validate``: what is in a capture, whether it is right, what comes out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import Any

import click
from rich.table import Table

import switchover as sw
from switchover.units import format_size, format_time

from . import show

# More passes or devices than a screen has room for.
MOST_PASSES = 12
MOST_DEVICES = 12


def on_files(work: Callable[..., int | None]) -> Callable[..., int | None]:
    """A command over the files of a capture; what is wrong with them is bad input."""

    @click.argument("files", nargs=-1, required=True, type=click.Path(), metavar="FILE...")
    @wraps(work)
    def command(files: tuple[str, ...], **options: Any) -> int | None:
        try:
            return work(files, **options)
        except sw.StreamError as error:
            raise click.ClickException(f"{', '.join(files)}: {error}") from error

    return command


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
@click.option("--events", is_flag=True, help="Print a line for each record instead: channel, position, bytes, what.")
@on_files
def inspect(files: tuple[str, ...], *, as_json: bool, events: bool) -> int | None:
    """Sum up what is in a stream: machine, memory, passes, devices. Takes the standard input as `-`."""
    capture = sw.stream.open(files)
    if events:
        list_events(capture, as_json=as_json)
        return None
    if as_json:
        click.echo(json.dumps(capture.summary))
    else:
        explain(capture)
    return 2 if capture.problem else None


def list_events(capture: sw.stream.Capture, *, as_json: bool) -> None:
    """All records, one a line."""
    if not as_json:
        for lines in capture.listing():
            click.echo(lines, nl=False)
        return
    for event in capture:
        click.echo(json.dumps({"event": type(event).__name__, **asdict(event)}))


def explain(capture: sw.stream.Capture) -> None:
    """One screen for people."""
    screen = show.console()
    for line in facts(capture):
        screen.print(line, highlight=False, markup=False)
    for table in (of_blocks(capture), of_passes(capture), of_devices(capture)):
        if table.row_count:
            screen.print(table)
    if capture.problem:
        screen.print(f"At byte {capture.problem.offset}: {capture.problem.reason}", style="red", markup=False)


def facts(capture: sw.stream.Capture) -> list[str]:
    """What is true of the whole."""
    found = capture.summary
    memory, pages = format_size(found["memory_bytes"]), found["pages"]
    total = pages["raw"] + pages["zero"] + pages["xbzrle"] + pages["compressed"]
    machine = found["machine"] or "a machine type of 2.3 or before"
    lines = [
        f"A migration of {machine}: {memory} of memory in {format_size(found['bytes'])}"
        f" ({len(found['files'])} {'file' if len(found['files']) == 1 else 'files'}), "
        f"{'whole' if found['complete'] else 'NOT whole'}."
    ]
    used = [*found["features"], *found["capabilities"], *sorted(wrappings(found))]
    if used:
        lines.append(f"With {', '.join(dict.fromkeys(used))}.")
    if found["uuid"]:
        lines.append(f"UUID {found['uuid']}.")
    if total:
        text = (
            f"{total} pages came: {share(pages['zero'], total)} zero, {share(pages['sent_again'], total)} sent before"
        )
        copies = found["duplicate_share"]
        lines.append(text + (f"; of the raw ones {copies:.0%} copy another." if copies is not None else "."))
    lines += spent(capture)
    if "multifd-flush" in found["features"] and "multifd" not in found["features"]:
        lines.append("Its pages came over multifd channels, whose files are missing: give them, too.")
    if found["trailing_bytes"]:
        lines.append(f"{found['trailing_bytes']} bytes follow the end.")
    return lines


def spent(capture: sw.stream.Capture) -> list[str]:
    """Where the time went, if a receiver noted it."""
    if capture.seconds is None or not capture.passes or not all(each.times for each in capture.passes):
        return []
    starts = [each.times[0] for each in capture.passes if each.times] + [capture.seconds]
    live = sum(b - a for each, a, b in zip(capture.passes, starts, starts[1:], strict=False) if each.kind == "live")
    rest = capture.seconds - starts[0] - live
    return [
        f"It took {format_time(capture.seconds)}: {format_time(starts[0])} before the first page, "
        f"{format_time(live)} while the guest ran at the source, {format_time(rest)} after."
    ]


def wrappings(found: dict[str, Any]) -> set[str]:
    """What is around the files."""
    return {file["wrapping"] for file in found["files"]} - {"none"}


def share(part: int, whole: int) -> str:
    """A share in per cent."""
    return f"{part / whole:.0%}"


def counts(of: sw.stream.Counts) -> list[str]:
    """The columns of figures."""
    kinds = [str(number) if number else "-" for number in (of.raw, of.zero, of.xbzrle, of.compressed, of.sent_again)]
    return [str(of.pages), *kinds, format_size(of.bytes)]


COLUMNS = ("pages", "raw", "zero", "xbzrle", "compressed", "sent before", "in the stream")


def of_blocks(capture: sw.stream.Capture) -> Table:
    """The RAM blocks that pages came for."""
    table = new_table("RAM block", "length", *COLUMNS)
    for block in capture.blocks:
        table.add_row(block.name, format_size(block.bytes), *counts(block.counts))
    return table


def of_passes(capture: sw.stream.Capture) -> Table:
    """The passes, those in the middle left out where they are many."""
    passes = list(enumerate(capture.passes))
    timed = ("begins", "lasts") if any(each.times for each in capture.passes) else ()
    table = new_table("pass (inferred)", "from byte", *timed, *COLUMNS)
    shown = passes if len(passes) <= MOST_PASSES else passes[: MOST_PASSES // 2] + passes[-MOST_PASSES // 2 :]
    for before, (number, each) in zip([None, *(n for n, _ in shown)], shown, strict=False):
        if before is not None and number > before + 1:
            table.add_row(f"... {number - before - 1} more", *[""] * (len(COLUMNS) + len(timed) + 1))
        start, end = each.times or (0.0, 0.0)
        times = (format_time(start), format_time(end - start)) if timed else ()
        table.add_row(f"{number} {each.kind}", str(each.offset), *times, *counts(each.counts))
    return table


def of_devices(capture: sw.stream.Capture) -> Table:
    """The largest device sections."""
    found = sorted(capture.summary["devices"], key=lambda device: -device["bytes"])
    whole = sum(device["bytes"] for device in found)
    table = new_table(f"device state ({len(found)} sections, {format_size(whole)})", "instance", "version", "bytes")
    for device in found[:MOST_DEVICES]:
        table.add_row(device["name"], str(device["instance"]), str(device["version"]), str(device["bytes"]))
    if len(found) > MOST_DEVICES:
        rest = sum(device["bytes"] for device in found[MOST_DEVICES:])
        table.add_row(f"... {len(found) - MOST_DEVICES} more", "", "", str(rest))
    return table


def new_table(first: str, *others: str) -> Table:
    """A table whose first column is a name, the others figures."""
    table = Table(header_style="bold")
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right")
    return table


@click.command()
@click.option("-o", "--output", required=True, type=click.Path(file_okay=False, path_type=Path), help="The folder.")
@click.option("--elf", type=click.Path(dir_okay=False, path_type=Path), help="Also an ELF core file for debuggers.")
@click.option("--at", "addresses", multiple=True, metavar="BLOCK=ADDRESS", help="Where a RAM block lies in the guest.")
@click.option("--json", "as_json", is_flag=True, help="Print the files as JSON.")
@on_files
def extract(
    files: tuple[str, ...], *, output: Path, elf: Path | None, addresses: tuple[str, ...], as_json: bool
) -> None:
    """Write the memory and the state of the devices out.

    In the folder are then a raw file for each RAM block, named after it, and devices.json.
    """
    capture = sw.stream.open(files)
    if elf:
        left_out = capture.core(elf, dict(map(placed, addresses)))["left_out"]
        click.echo(
            f"{elf} has no memory of {', '.join(left_out)}: give --at BLOCK=ADDRESS" if left_out else elf, err=True
        )
    blocks = capture.extract(output)
    path = output / "devices.json"
    path.write_text(json.dumps([asdict(device) for device in capture.devices], indent=1))
    if as_json:
        click.echo(json.dumps({"blocks": {name: str(file) for name, file in blocks.items()}, "devices": str(path)}))
        return
    table = new_table("file", "length", "what")
    for name, file in blocks.items():
        table.add_row(str(file), format_size(file.stat().st_size), f"RAM block {name}")
    table.add_row(str(path), format_size(path.stat().st_size), f"state of {len(capture.devices)} devices")
    show.console().print(table)


def placed(text: str) -> tuple[str, int]:
    """A RAM block and its address."""
    block, _, address = text.rpartition("=")
    try:
        return block, int(address, 0)
    except ValueError:
        raise sw.UsageError(f"--at {text}: BLOCK=ADDRESS was expected, as in pc.ram=0x0") from None


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@on_files
def validate(files: tuple[str, ...], *, as_json: bool) -> int:
    """Say whether a stream is whole and right; if not, the first offence with its position and what was expected."""
    capture = sw.stream.open(files)
    if as_json:
        click.echo(json.dumps({"valid": capture.problem is None, "problem": capture.summary["problem"]}))
        return 2 if capture.problem else 0
    capture.validate()
    found = capture.summary
    machine, memory = found["machine"] or "machine type of 2.3 or before", format_size(found["memory_bytes"])
    click.echo(f"valid: {machine}, {memory} of memory, {len(found['devices'])} device sections")
    return 0


@click.command()
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help="The smaller stream.")
@click.option("--mapped-ram", is_flag=True, help="A mapped-ram file with holes, for QEMU 9.0 and later.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@on_files
def squash(files: tuple[str, ...], *, output: str, mapped_ram: bool, as_json: bool) -> None:
    """Write a smaller stream with the final content only.

    A QEMU of the same machine type loads it: `-incoming "exec:cat FILE"`; a mapped-ram file from `file:FILE`, with the
    capability mapped-ram.
    """
    capture = sw.stream.open(files)
    before, after = capture.summary["bytes"], capture.squash(output, mapped_ram=mapped_ram)
    if as_json:
        click.echo(json.dumps({"file": output, "bytes": after, "bytes_before": before}))
    else:
        click.echo(f"{output}: {format_size(after)}, out of {format_size(before)}")


@click.command()
@click.argument("first", type=click.Path())
@click.argument("second", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def diff(first: str, second: str, *, as_json: bool) -> int:
    """Say which pages and which fields of devices differ; exits 1 if any do. A capture of several files is a folder."""
    try:
        found = sw.stream.open(first).diff(sw.stream.open(second))
    except sw.StreamError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(found))
    else:
        tell(found)
    return 1 if found["blocks"] or found["fields"] else 0


def tell(found: dict[str, Any]) -> None:
    """Differences for people."""
    for block in found["blocks"]:
        runs = ", ".join(f"{first} to {first + count - 1}" for first, count in block["runs"][:8])
        more = ", ..." if len(block["runs"]) > 8 else ""
        click.echo(f"{block['block']}: {block['pages']} pages differ: {runs}{more}")
    for field in found["fields"]:
        before, after = (json.dumps(value) for value in field["values"])
        click.echo(f"{field['field']}: {before[:60]} -> {after[:60]}")
    if not found["blocks"] and not found["fields"]:
        click.echo("memory and devices are the same")


commands = (inspect, extract, validate, squash, diff)
