"""A run's chart as a Plotly figure: for notebooks, and as an image for papers."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from switchover import extra
from switchover.errors import UsageError
from switchover.html.chart import plain
from switchover.html.timeline import over_time

if TYPE_CHECKING:
    from os import PathLike

    from switchover.report import Report

IMAGES = (".svg", ".png", ".pdf")


def of_report(report: Report) -> Any:
    """The run over time: remaining bytes with rounds, decisions and the blackout; rates; the guest's speed.

    Raises:
        UsageError: Plotly is not installed.
    """
    figure = extra.load("plotly.graph_objects", "report").Figure
    chart = over_time(report)
    layout = {
        "template": "plotly_white",
        "height": chart.height,
        "width": 960,
        "margin": {"l": 70, "r": 20, "t": 40, "b": 60},
        "legend": {"orientation": "h", "y": -0.12, "yanchor": "top"},
        **chart.layout,
    }
    traces = [trace for trace in chart.traces if len(trace["x"])]
    return figure(data=coloured(plain(traces)), layout=coloured(plain(layout)))


def write(report: Report, path: str | PathLike[str]) -> None:
    """Writes the figure as an image, by the ending of `path`.

    Raises:
        UsageError: An ending that is none of `IMAGES`, or what draws images is not installed.
    """
    name = str(path)
    if not name.endswith(IMAGES):
        raise UsageError(f"{name}: images end in {', '.join(IMAGES)}")
    extra.load("kaleido", "image")
    try:
        of_report(report).write_image(name)
    except (RuntimeError, OSError) as error:
        raise UsageError(f"{name}: not drawn: {error}; images need a Chrome or Chromium on this machine") from error


def coloured(value: Any) -> Any:
    """With the light theme's colours for their names."""
    if isinstance(value, str):
        return colours().get(value, value)
    if isinstance(value, dict):
        return {key: coloured(item) for key, item in value.items()}
    return [coloured(item) for item in value] if isinstance(value, list) else value


@cache
def colours() -> dict[str, str]:
    """Those of the page, by name."""
    style = resources.files("switchover.html").joinpath("page.css").read_text(encoding="utf-8")
    light = style[: style.index("}")]
    return {f"--{name}": value for name, value in re.findall(r"--([a-z-]+): (#[0-9a-f]+)", light)}
