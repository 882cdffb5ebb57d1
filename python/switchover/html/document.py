"""The file: style, script, charts and tables in one."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from switchover import _native, extra

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from os import PathLike

    from switchover.html.chart import Chart

# Nothing is loaded from anywhere, even if a text in the report should say so.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


@dataclass(frozen=True)
class Grid:
    """A table: heads, and rows of texts; rows named in `marked` stand out."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: frozenset[int] = frozenset()

    def markup(self) -> str:
        """As HTML."""
        head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in self.head)
        rows = "".join(
            f"<tr{' class=marked' if number in self.marked else ''}>"
            + "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
            + "</tr>"
            for number, row in enumerate(self.rows)
        )
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        return f'<div class="wide" tabindex="0" role="region" aria-label="table">{table}</div>'


@dataclass(frozen=True)
class Section:
    """A part of the page: words, facts, a table, charts, texts to copy.

    Attributes:
        title: Its heading.
        charts: In order.
        words: Paragraphs before all else.
        facts: Names and what is said of them.
        grid: A table.
        pasted: Texts to copy, by what they are.
        folded: Whether it can be folded.
        is_open: Whether it is unfolded at first.
    """

    title: str
    charts: Sequence[Chart] = ()
    words: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()
    grid: Grid | None = None
    pasted: dict[str, str] = field(default_factory=dict)
    folded: bool = False
    is_open: bool = True


class Document:
    """A page of sections.

    Args:
        title: Its title.
        sections: In order.
        words: Under the title.
    """

    def __init__(self, title: str, sections: Sequence[Section], words: Sequence[str] = ()) -> None:
        self.title, self.sections, self.words = title, sections, words
        self._charts: list[Chart] = []

    def write(self, path: str | PathLike[str]) -> None:
        """Writes the file.

        Raises:
            UsageError: Plotly, whose script goes into it, is not installed.
        """
        Path(path).write_text(self.render(), encoding="utf-8")

    def render(self) -> str:
        """The whole file as a text."""
        self._charts = []
        body = "\n".join(self._section(section) for section in self.sections)
        words = "".join(f"<p>{html.escape(text)}</p>" for text in self.words)
        charts = json.dumps([chart.data() for chart in self._charts], separators=(",", ":")).replace("<", "\\u003c")
        return "\n".join(
            [
                '<!doctype html><html lang="en"><head><meta charset="utf-8">',
                f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
                '<meta name="viewport" content="width=device-width, initial-scale=1">',
                f'<meta name="generator" content="Switchover {_native.VERSION}">',
                f"<title>{html.escape(self.title)}</title><style>{_asset('page.css')}</style></head>",
                f'<body><header><h1>{html.escape(self.title)}</h1><button id="theme" type="button">Dark or light'
                f"</button></header><main>{words}{body}</main>",
                "<noscript><p>The charts need JavaScript; tables and figures do not.</p></noscript>",
                f"<footer>Made by Switchover {_native.VERSION}.</footer>",
                f'<script id="charts" type="application/json">{charts}</script>',
                f"<script>{_plotly()}</script>" if self._charts else "",
                f"<script>{_asset('page.js')}</script></body></html>",
            ]
        )

    def _section(self, section: Section) -> str:
        inner = "".join(self._parts(section))
        heading = f"<h2>{html.escape(section.title)}</h2>"
        if not section.folded:
            return f"<section>{heading}{inner}</section>"
        return f"<details{' open' if section.is_open else ''}><summary>{heading}</summary>{inner}</details>"

    def _parts(self, section: Section) -> Iterator[str]:
        yield from (f"<p>{html.escape(text)}</p>" for text in section.words)
        if section.facts:
            facts = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(told)}</dd>" for name, told in section.facts)
            yield f"<dl>{facts}</dl>"
        if section.grid is not None:
            yield section.grid.markup()
        for name, text in section.pasted.items():
            yield f"<h3>{html.escape(name)}</h3><pre tabindex=0>{html.escape(text)}</pre>"
        yield from map(self._figure, section.charts)

    def _figure(self, chart: Chart) -> str:
        self._charts.append(chart)
        title, told = html.escape(chart.title), html.escape(chart.told)
        place = f'class="chart" role="img" data-chart="{len(self._charts) - 1}" style="height:{chart.height}px"'
        return (
            f'<figure><h3>{title}</h3><div {place} aria-label="{title}. {told}"></div>'
            f"<figcaption>{told}</figcaption></figure>"
        )


def _asset(name: str) -> str:
    return resources.files("switchover.html").joinpath(name).read_text(encoding="utf-8")


def _plotly() -> str:
    extra.load("plotly", "report")
    script = resources.files("plotly").joinpath("package_data/plotly.min.js").read_text(encoding="utf-8")
    return script.replace("</script", "<\\/script")
