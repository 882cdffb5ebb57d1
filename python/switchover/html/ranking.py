"""The page of a comparison: tables, Pareto plots, the typical run of each case, definitions."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, Any

from switchover import pareto, units
from switchover.comparison.metric import GATED, METRICS
from switchover.html.chart import Chart
from switchover.html.document import Document, Grid, Section
from switchover.html.timeline import of_report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from switchover.comparison.table import Row, Table

OPEN = 1
"""Runs that are unfolded at first."""


def of_table(table: Table, title: str = "A comparison", metrics: Sequence[str] = GATED) -> Document:
    """A section for each guest, link and world; then the runs; then what the words mean."""
    groups = [_group(table, group, metrics) for group in table.groups]
    runs = [of_report(row.report, f"Run: {row.label}", is_open=number < OPEN) for number, row in enumerate(table.rows)]
    words = [
        f"{len(table.rows)} cases, {len(table.runs)} runs. Median (95 % interval) and rank; = marks a rank that is "
        "shared, because neither case is surely better: intervals overlap, or the difference is below the noise floor."
    ]
    return Document(title, [*groups, *runs, definitions()], words)


def _group(table: Table, group: tuple[str, ...], metrics: Sequence[str]) -> Section:
    rows = table.groups[group]
    head, cells = table.cells(metrics, rows)
    best = frozenset(number for number, row in enumerate(rows) if table.rank(row, metrics[0])[0] == 1)
    floors = {METRICS[name].title: table.noise(group, name) for name in metrics}
    told = [f"{name} {_share(floor)}" for name, floor in floors.items()]
    words = [f"Noise floor: {', '.join(told)}. Marked: nobody is surely better in {METRICS[metrics[0]].title}."]
    return Section(", ".join(group), [pareto_plot(rows)], words, grid=Grid(head, cells, best))


def _share(value: float | None) -> str:
    if value is None:
        return "not measured"
    return "unbounded" if math.isinf(value) else f"{100 * value:.2g} %"


def pareto_plot(rows: Sequence[Row], x: str = "total_time", y: str = "effective_downtime") -> Chart:
    """Two metrics against each other, with intervals; the front joined."""
    known = [row for row in rows if all(math.isfinite(row.estimates[name].median) for name in (x, y))]
    if not known:
        y = "blackout"
        known = [row for row in rows if all(math.isfinite(row.estimates[name].median) for name in (x, y))]
    points = [(row.estimates[x].median, row.estimates[y].median) for row in known]
    best = pareto.front(points)
    steps = sorted(point for point, kept in zip(points, best, strict=True) if kept)
    label = [html.escape(f"{row.names.get('strategy', '')}, {row.names.get('policy', '')}") for row in known]
    cases: dict[str, Any] = {
        "type": "scatter",
        "mode": "markers",
        "name": "cases",
        "x": [point[0] for point in points],
        "y": [point[1] for point in points],
        "error_x": _ends(known, x),
        "error_y": _ends(known, y),
        "text": label,
        "hovertemplate": "%{text}<br>%{x:.4s}, %{y:.4s}",
        "marker": {"size": 11, "color": ["--guest" if kept else "--link" for kept in best]},
    }
    joined = {
        "type": "scatter",
        "mode": "lines",
        "name": "Pareto front",
        "x": [point[0] for point in steps],
        "y": [point[1] for point in steps],
        "line": {"shape": "hv", "color": "--guest", "dash": "dot"},
        "hoverinfo": "skip",
    }
    layout = {
        "xaxis": {"title": {"text": f"{METRICS[x].title}, s"}},
        "yaxis": {"title": {"text": f"{METRICS[y].title}, s"}, "rangemode": "tozero"},
        "hovermode": "closest",
    }
    names = "; ".join(
        f"{text} ({units.format_time(px)}, {units.format_time(py)})"
        for text, (px, py), kept in zip(label, points, best, strict=True)
        if kept
    )
    told = f"Left and low is good. On the front: {names or 'none'}."
    return Chart(f"{METRICS[y].title} against {METRICS[x].title}", html.unescape(told), [joined, cases], layout, 380)


def _ends(rows: Sequence[Row], metric: str) -> dict[str, Any]:
    found = [row.estimates[metric] for row in rows]
    return {
        "type": "data",
        "symmetric": False,
        "array": [e.high - e.median for e in found],
        "arrayminus": [e.median - e.low for e in found],
        "color": "--faint",
        "thickness": 1,
    }


def definitions() -> Section:
    """What each metric is."""
    return Section("What the figures mean", facts=[(metric.title, metric.doc) for metric in METRICS.values()])
