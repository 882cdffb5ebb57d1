#!/usr/bin/env python3
"""Measures the codecs on pages of real things, and writes tables and charts into `docs/which-codec.md`.

``python scripts/which-codec.py [--size 32MiB] [--passes 7] [--no-linux]``: run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import page_sets  # noqa: E402
import switchover as sw  # noqa: E402
from switchover.bakeoff import LINKS, BakeOff  # noqa: E402
from switchover.cli.codecs import pays  # noqa: E402
from switchover.units import format_bits, format_size, parse_rate, parse_size  # noqa: E402

PAGE = ROOT / "docs" / "which-codec.md"
CHARTS = ROOT / "docs" / "charts"
WHAT = {
    "text": "the sources of Python's library",
    "executable": "Python and the libraries that it loads",
    "media": "files packed by LZMA: like pictures and films",
    "heap": "a Python process's memory, and again with some of its objects changed",
    "store": "a key-value store's memory at three times, 2000 requests apart",
    "linux": "the RAM of a Linux guest in QEMU at three times",
}
PARTS = {"first": "first", "again": "again"}


def row(cells: list[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table; all columns but the first to the right."""
    return "\n".join([row(head), row(["---", *["--:"] * (len(head) - 1)]), *map(row, rows)])


def winners(found: dict[str, BakeOff]) -> str:
    """Which codec is first by set and link, and by how much."""
    rows = []
    for name, each in found.items():
        for part in each.parts:
            cells = [f"{name}, {PARTS[part]}"]
            for link in LINKS:
                best = each.best(link, part)
                gain = each.rates(link, part)[best] / parse_rate(link)
                cells.append(f"{best} {gain:.3g}x" if gain > 1.005 else best)
            rows.append(cells)
    return table(["pages", *(format_bits(parse_rate(link)) for link in LINKS)], rows)


def details(each: BakeOff) -> str:
    """What each codec made of a set."""
    head = ["codec"]
    for part in each.parts:
        head += [f"{part}: bytes/page", "encode ns", "decode ns", "pays up to"]
    rows = []
    for codec in each.details:
        cells = [f"`{codec}`"]
        for part in each.parts:
            figures = each.row(codec, part)
            times = [f"{ns:.0f}" if ns else "-" for ns in (figures.encode_ns, figures.decode_ns)]
            cells += [f"{figures.bytes_per_page:.0f}", *times, pays(figures.break_even)]
        rows.append(cells)
    return table(head, rows)


def chart(name: str, each: BakeOff) -> str:
    """Writes a set's charts; how the page shows them."""
    CHARTS.mkdir(exist_ok=True)
    shown = []
    for part in each.parts:
        path = CHARTS / f"which-codec-{name}-{part}.svg"
        path.write_text(each.chart(part, f"{name}, pages sent {part}: times as fast as raw, by link"))
        shown.append(f"![{name}, {part}: times as fast as raw, by link](charts/{path.name})")
    return "\n".join(shown)


def section(name: str, each: BakeOff) -> str:
    """A set: what it is, its table and charts."""
    facts = each.facts
    zero = f"{100 * facts['zero_pages'] / facts['versions']:.0f} % of them zero"
    size = f"{format_size(facts['pages'] * 4096)}, {zero}"
    return (
        f"### {name}\n\n{WHAT[name][0].upper()}{WHAT[name][1:]} ({size}).\n\n{details(each)}\n\n{chart(name, each)}\n"
    )


def processor() -> str:
    """The machine's processor."""
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def main() -> int:
    """Measures and writes."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--size", default="32MiB")
    options.add_argument("--passes", type=int, default=7)
    options.add_argument("--no-linux", action="store_true")
    given = options.parse_args()
    sets = {name: make(parse_size(given.size)) for name, make in page_sets.SETS.items()}
    if not given.no_linux:
        sets["linux"] = page_sets.linux_guest()
    found = {}
    for name, versions in sets.items():
        sys.stderr.write(f"{name}\n")
        found[name] = sw.codecs.bakeoff(versions, memory=given.size, passes=given.passes)
    where = (
        f"{processor()}, {os.cpu_count()} CPUs, {platform.system()} {platform.release()}, switchover {sw.__version__}"
    )
    said = [f"Measured on {where}, one channel.", winners(found), *(section(*each) for each in found.items())]
    text = PAGE.read_text()
    before, _, rest = text.partition("<!-- measured -->")
    _, _, after = rest.partition("<!-- /measured -->")
    PAGE.write_text("\n".join([f"{before}<!-- measured -->", "\n\n".join(said), f"<!-- /measured -->{after}"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
