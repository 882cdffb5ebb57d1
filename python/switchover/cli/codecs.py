"""``switchover codecs``: what codecs there are; and with pages, what they make of those."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.table import Table

import switchover as sw
from switchover import units
from switchover.bakeoff import LINKS, BakeOff

from . import show
from .parts import as_table

if TYPE_CHECKING:
    from collections.abc import Callable

PARTS = {"first": "pages sent for the first time", "again": "pages that came again, changed"}


@click.command()
@click.argument("source", nargs=-1)
@click.option("--stream", multiple=True, help="Take pages from a captured migration of QEMU's; again for each file.")
@click.option("-w", "--workload", help="Take pages from a guest that runs this, such as `kv:rate=30MB/s`.")
@click.option("-l", "--link", help="Say which codec wins on this link, such as `1Gbit/s`.")
@click.option("-c", "--codec", "compared", multiple=True, help="A codec to compare; may be given again.")
@click.option("-m", "--memory", default="32MiB", show_default=True, help="Most memory to take pages of.")
@click.option("--rounds", default=3, show_default=True, help="Looks at a process or guest.")
@click.option("--interval", default="1s", show_default=True, help="Between two looks.")
@click.option("--passes", default=5, show_default=True, help="Over all pages, for each codec.")
@click.option("--alone", is_flag=True, help="Encode each page by itself, not in batches of 64.")
@click.option(
    "--chart",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a chart (SVG) of speeds by link; `-again` is put before the suffix for pages that came again.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def codecs(
    *,
    source: tuple[str, ...],
    stream: tuple[str, ...],
    workload: str | None,
    link: str | None,
    compared: tuple[str, ...],
    memory: str,
    rounds: int,
    interval: str,
    passes: int,
    alone: bool,
    chart: Path | None,
    as_json: bool,
) -> None:
    """List the codecs; or measure them on real pages.

    SOURCE is a memory image, several images of the same memory one after the other, or the number of a running process.
    """
    places = sum((bool(source), bool(stream), workload is not None))
    if not places:
        if link or compared or chart:
            raise sw.UsageError("say what to take pages from: a file, a process's number, --stream or --workload")
        listing(as_json)
        return
    if places > 1:
        raise sw.UsageError("pages come from one place: a file or process, --stream or --workload")
    if chart and not chart.absolute().parent.is_dir():
        raise sw.UsageError(f"{chart}: its folder does not exist")
    bandwidth = of_link(link)
    options: dict[str, Any] = {"link": bandwidth, "memory": memory, "rounds": rounds, "interval": interval}
    options |= {"passes": passes, "together": not alone, "on_progress": progress(as_json)}
    if workload is not None:
        with sw.Guest(memory, sw.workloads.registry.of(workload)) as guest:
            found = sw.codecs.bakeoff(guest, compared or None, **options)
    elif stream:
        found = measured_stream(stream, compared, options)
    else:
        found = sw.codecs.bakeoff(of(source), compared or None, **options)
    clear(as_json)
    if chart:
        write(found, chart)
    if as_json:
        click.echo(json.dumps(found.to_dict() | {"winner": winners(found, bandwidth)}))
    else:
        report(found, workload or " ".join(source or stream), bandwidth)


def listing(as_json: bool) -> None:
    """What codecs there are."""
    described = sw.codecs.describe()
    if as_json:
        click.echo(json.dumps(described, indent=2))
    else:
        show.console().print(as_table(described))


def of(source: tuple[str, ...]) -> int | list[str]:
    """A process's number, unless there is a file of that name; files otherwise."""
    if len(source) == 1 and source[0].isdecimal() and not Path(source[0]).exists():
        return int(source[0])
    return list(source)


def measured_stream(files: tuple[str, ...], compared: tuple[str, ...], options: dict[str, Any]) -> BakeOff:
    """Of a capture; what is wrong with its files is bad input."""
    try:
        return sw.codecs.bakeoff(sw.stream.open(files), compared or None, **options)
    except sw.StreamError as error:
        raise sw.UsageError(f"{', '.join(files)}: {error}") from error


def of_link(link: str | None) -> float | None:
    """A link's bandwidth; its other properties do not matter here."""
    if link is None:
        return None
    bandwidth = sw.Link.of(link).bandwidth
    if not bandwidth:
        raise sw.UsageError(f"--link needs a bandwidth above 0, such as 1Gbit/s, not {link!r}")
    return float(bandwidth)


def progress(silent: bool) -> Callable[[str, int, int], None] | None:
    """A line that is written over, where somebody watches."""
    if silent or not sys.stderr.isatty():
        return None
    return lambda name, index, count: click.echo(f"\r{f'{index + 1} of {count}: {name}':<76}", nl=False, err=True)


def clear(silent: bool) -> None:
    """Takes the line away."""
    if not silent and sys.stderr.isatty():
        click.echo(f"\r{'':<76}\r", nl=False, err=True)


def write(found: BakeOff, chart: Path) -> None:
    """Writes the charts."""
    for part in found.parts:
        path = chart if part == "first" else chart.with_stem(f"{chart.stem}-{part}")
        path.write_text(found.chart(part))


def winners(found: BakeOff, link: float | None) -> dict[str, str] | None:
    """The codec that wins on the link, for each part."""
    return None if link is None else {part: found.best(link, part) for part in found.parts}


def report(found: BakeOff, source: str, link: float | None) -> None:
    """Everything, for people."""
    screen = show.console()

    def say(text: str) -> None:
        screen.print(text, highlight=False, markup=False)

    say(f"{source}: {pages(found.facts)}")
    for part in found.parts:
        screen.print(figures(found, part, link))
    for part in found.parts:
        screen.print(speeds(found, part, link))
    for codec, chosen in found.choices.items():
        share = ", ".join(f"{name} {count}" for name, count in chosen.items() if count)
        say(f"{codec} chose: {share}")
    if link is not None:
        for part in found.parts:
            say(verdict(found, part, link))


def pages(facts: dict[str, int]) -> str:
    """The set in a line."""
    size = units.format_size(facts["pages"] * 4096)
    zero = f"{100 * facts['zero_pages'] / facts['versions']:.1f} % of them zero"
    taken = f"{size} of {units.format_size(facts['memory_pages'] * 4096)} in use"
    again = facts["versions"] - facts["pages"]
    more = f"; {again} came again in {facts['rounds'] - 1} later looks" if again else ""
    return f"{facts['pages']} pages, {taken}, {zero}{more}"


def figures(found: BakeOff, part: str, link: float | None) -> Table:
    """What each codec made of the pages, and what it cost."""
    table = plain(PARTS[part])
    heads = ("bytes/page", "of raw", *("encode ns", "±", "MB/s"), *("decode ns", "±", "MB/s"), "CPU s/GiB", "hits")
    for name in (*heads, "pays up to"):
        table.add_column(name, justify="right", no_wrap=True)
    best = None if link is None else found.best(link, part)
    for row in found.of(part):
        cells = [f"{row.bytes_per_page:.0f}", f"{100 * row.ratio:.1f} %"]
        cells += timed(row.encode_ns, row.encode_ns_least, row.encode_ns_most, row.encode_rate)
        cells += timed(row.decode_ns, row.decode_ns_least, row.decode_ns_most, row.decode_rate)
        cells += [f"{row.cpu_seconds_per_gib:.2f}", percent(row.hit_rate), pays(row.break_even)]
        table.add_row(str(row.codec), *cells, style="bold" if row.codec == best else None)
    return table


def plain(title: str) -> Table:
    """A table without lines: there are many columns."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("codec", no_wrap=True)
    table.padding = (0, 1, 0, 0)
    return table


def speeds(found: BakeOff, part: str, link: float | None) -> Table:
    """How many times as fast as raw, by link; the fastest of each link stands out."""
    table = plain(f"{PARTS[part]}: times as fast as raw")
    links = sorted({units.parse_rate(name) for name in LINKS} | ({link} if link else set()))
    for each in links:
        table.add_column(units.format_bits(each), justify="right")
    rates = {each: found.rates(each, part) for each in links}
    best = {each: found.best(each, part) for each in links}
    for codec in rates[links[0]]:
        table.add_row(codec, *(times(rates[each][codec] / each, best[each] == codec) for each in links))
    return table


def times(value: float, best: bool) -> str:
    """A ratio, marked where it is the best of its link."""
    text = "unbounded" if math.isinf(value) else f"{value:.3g}" if value < 100 else f"{value:.0f}"
    return f"[bold]{text} *[/]" if best else text


def verdict(found: BakeOff, part: str, link: float) -> str:
    """Which codec wins on the link, and why."""
    best, rates = found.best(link, part), found.rates(link, part)
    taken, plain = (units.format_time((1 << 30) / rate) for rate in (rates[best], link))
    bound = "the link" if rates[best] * found.row(best, part).ratio >= 0.999 * link else "the processor"
    return f"{units.format_bits(link)}, {PARTS[part]}: {best} wins, {taken} a GiB, held by {bound}; raw takes {plain}"


def timed(median: float, least: float, most: float, rate: float) -> list[str]:
    """Nanoseconds a page, how far the passes are from their median, and the speed that follows."""
    if math.isnan(rate):
        return ["-", "-", "-"]
    return [f"{median:.0f}", f"{100 * max(most - median, median - least) / median:.0f} %", f"{rate / 1e6:.0f}"]


def percent(share: float) -> str:
    """A share, or nothing."""
    return "-" if math.isnan(share) else f"{100 * share:.0f} %"


def pays(rate: float) -> str:
    """The fastest link on which it pays."""
    if math.isnan(rate):
        return "-"
    return units.format_bits(rate) if rate else "never"
