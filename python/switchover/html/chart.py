"""Charts as Plotly's JavaScript takes them: plain dicts, whose colours are names of the style sheet."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

DIGITS = 6
"""Significant digits of what is drawn: more than a screen shows, and far less than JSON would take."""


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        title: Above it.
        told: What it shows, in words: for those who do not see it, and under it for all.
        traces: Plotly's traces. A text that begins with `--` is a colour of the style sheet.
        layout: Plotly's layout, laid over that of the page.
        height: In pixels.
    """

    title: str
    told: str
    traces: list[dict[str, Any]]
    layout: dict[str, Any] = field(default_factory=dict)
    height: int = 360

    def data(self) -> dict[str, Any]:
        """As JSON has it; what has no points is left out of the legend too."""
        return {
            "traces": plain([trace for trace in self.traces if len(trace["x"])]),
            "layout": plain({"height": self.height, **self.layout}),
        }


def plain(value: Any) -> Any:
    """JSON without infinities, NumPy's types, or digits that nobody sees.

    >>> plain({"x": [0.123456789, float("inf"), 3]})
    {'x': [0.123457, None, 3]}
    """
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def line(name: str, x: Iterable[float], y: Iterable[float | None], colour: str, **more: Any) -> dict[str, Any]:
    """A line of a chart."""
    style = {"color": f"--{colour}", "width": 2, **more.pop("line", {})}
    return {"type": "scatter", "mode": "lines", "name": name, "x": list(x), "y": list(y), "line": style, **more}


def bars(name: str, x: Iterable[Any], y: Iterable[float], colour: str, **more: Any) -> dict[str, Any]:
    """Bars of a chart."""
    return {"type": "bar", "name": name, "x": list(x), "y": list(y), "marker": {"color": f"--{colour}"}, **more}
