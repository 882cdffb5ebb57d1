"""Charts as SVG: text that every browser draws, and that a difference of two versions shows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from switchover import units

if TYPE_CHECKING:
    from switchover.bakeoff import BakeOff

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 190, 40, 48
COLOURS = (
    "#888888",
    "#444444",
    "#d55e00",
    "#0072b2",
    "#009e73",
    "#006b4f",
    "#56b4e9",
    "#cc79a7",
    "#e69f00",
    "#7a4fa3",
    "#000000",
)
"""Colours that are told apart by the colour-blind too, as far as eleven can be."""
SLOWEST, FASTEST = 1.25e6, 12.5e9
"""The links at the edges: 10 Mbit/s and 100 Gbit/s."""


def speed_chart(found: BakeOff, part: str, title: str = "") -> str:
    """How many times as fast as raw each codec gets pages through, over the link's speed; both axes logarithmic."""
    links = [SLOWEST * (FASTEST / SLOWEST) ** (step / 120) for step in range(121)]
    curves: dict[str, list[float]] = {}
    for link in links:
        for codec, rate in found.rates(link, part).items():
            curves.setdefault(codec, []).append(min(rate / link, 1e3))
    values = [value for curve in curves.values() for value in curve]
    low, high = 10 ** math.floor(math.log10(max(min(values), 0.01))), 10 ** math.ceil(math.log10(max(*values, 2.0)))
    parts = [_frame(title or f"pages sent {part}: times as fast as raw, by link", low, high)]
    ends = _labels({codec: _y(max(curve[0], low), low, high) for codec, curve in curves.items()})
    for index, (codec, curve) in enumerate(curves.items()):
        colour = COLOURS[index % len(COLOURS)]
        points = " ".join(
            f"{_x(link):.1f},{_y(max(value, low), low, high):.1f}" for link, value in zip(links, curve, strict=True)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        at = WIDTH - RIGHT + 10
        parts.append(f'<text x="{at}" y="{ends[codec] + 4:.1f}" fill="{colour}">{escape(codec)} {curve[0]:.3g}x</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif"'
    return "\n".join([f'{head} font-size="12">', *parts, "</svg>"]) + "\n"


def _x(link: float) -> float:
    share = math.log(link / SLOWEST) / math.log(FASTEST / SLOWEST)
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _y(value: float, low: float, high: float) -> float:
    share = math.log(value / low) / math.log(high / low)
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _frame(title: str, low: float, high: float) -> str:
    """Ground, axes and what they say; the line of raw pages is heavier."""
    lines = [
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-size="14">{escape(title)}</text>',
    ]
    for power in range(round(math.log10(low)), round(math.log10(high)) + 1):
        for step in (1, 2, 5):
            value = step * 10.0**power
            if low <= value <= high:
                y, stroke = _y(value, low, high), "#666" if value == 1 else "#ddd"
                lines.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{stroke}"/>')
                lines.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}x</text>')
    for link in (1.25e6, 1.25e7, 1.25e8, 1.25e9, 1.25e10):
        x, text = _x(link), units.format_bits(link)
        lines.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#ddd"/>')
        lines.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{text}</text>')
    return "\n".join(lines)


def _labels(wanted: dict[str, float]) -> dict[str, float]:
    """Places for labels, as near as may be to where they are wanted, and not over each other."""
    placed: dict[str, float] = {}
    last = -math.inf
    for codec, y in sorted(wanted.items(), key=lambda item: item[1]):
        last = placed[codec] = max(y, last + 15)
    beyond = max(0.0, last - (HEIGHT - BOTTOM))
    return {codec: y - beyond for codec, y in placed.items()}
