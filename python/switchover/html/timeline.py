"""The charts of one run: its rounds and its guest over time, bytes by kind, remote faults."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from switchover import units
from switchover.html.chart import Chart, bars, line
from switchover.html.document import Section
from switchover.report import speeds

if TYPE_CHECKING:
    from switchover.report import Report

PAGE = 4096
MOST_POINTS = 300
MOST_BANDS = 40
MOST_NOTES = 8

MOST_SPEED = 1.3
"""Of a guest's speed that the axis shows: what it catches up at once after a pause is no speed."""


def of_report(report: Report, name: str, is_open: bool = True) -> Section:
    """A run's figures and charts."""
    charts = [over_time(report), by_kind(report), *page_map(report), *faults(report)]
    lines = [text.split(maxsplit=1) for text in report.summary().replace("total time", "time").splitlines()]
    return Section(name, charts, facts=[(key, told) for key, told in lines], is_open=is_open, folded=True)


def over_time(report: Report) -> Chart:
    """Remaining bytes; dirty rate and bandwidth; the guest's speed and throttle: over one axis of time."""
    shapes, notes = _bands(report), []
    marks = [event for event in report.events if event["event"] == "decided"]
    for mark in marks[:: max(1, len(marks) // MOST_NOTES)]:
        shapes.append(_upright(mark["time"]))
        notes.append(_note(mark["time"], mark["decision"]["kind"].replace("_", " ")))
    gap = blackout(report)
    if gap is not None:
        shapes.append(_band(*gap, "--blackout", 0.35))
        notes.append(_note(gap[0], f"switchover, blackout {units.format_time(gap[1] - gap[0])}", below=True))
    layout = {
        "shapes": shapes,
        "annotations": notes,
        "xaxis": {"title": {"text": "time since the start, s"}, "anchor": "y3", "range": [0, report.total_time * 1.02]},
        "yaxis": {"domain": [0.62, 1], "title": {"text": "bytes"}, "rangemode": "tozero", "tickformat": ".3s"},
        "yaxis2": {"domain": [0.33, 0.56], "title": {"text": "bytes/s"}, "rangemode": "tozero", "tickformat": ".3s"},
        "yaxis3": {"domain": [0, 0.27], "title": {"text": "share"}, "tickformat": ".0%", "range": [0, MOST_SPEED]},
        "hovermode": "x",
    }
    traces = [*_remaining(report), *([_decided(marks, report)] if marks else []), *_rates(report), *_guest(report)]
    told = (
        "Top: bytes still dirty at each round's end (bands are rounds, dashed lines decisions, the filled band the "
        "blackout). Middle: how fast the guest made pages dirty, and the link carried them. Bottom: the guest's speed "
        "as a share of that before, and its throttle."
    )
    return Chart("The migration over time", told, traces, layout, height=620)


def blackout(report: Report) -> tuple[float, float] | None:
    """From when to when the guest ran nowhere."""
    paused = next((event["time"] for event in report.events if event["event"] == "paused"), None)
    return None if paused is None or report.blackout is None else (paused, paused + report.blackout)


def _remaining(report: Report) -> list[dict[str, Any]]:
    rounds = report.rounds[:: max(1, len(report.rounds) // MOST_POINTS)]
    times = [report.data.get("setup_time", 0.0), *rounds["elapsed"]]
    left = [report.memory_bytes, *rounds["remaining_bytes"]]
    found = [line("remaining", times, left, "remaining", mode="lines+markers", hovertemplate="%{y:.4s}B")]
    if report.faults is not None:
        dotted = {"dash": "dot"}
        after = [times[-1], times[-1] + report.faults.get("duration", 0.0)]
        found.append(line("pages that followed", after, [left[-1], 0], "remaining", line=dotted))
    return found


def _decided(marks: list[dict[str, Any]], report: Report) -> dict[str, Any]:
    left = {int(row["index"]): int(row["remaining_bytes"]) for row in report.rounds}
    texts = [html.escape(f"{m['decision']['kind']}: {m['decision']['reason'].get('text', '')}") for m in marks]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "decisions",
        "x": [mark["time"] for mark in marks],
        "y": [left.get(mark["round"], 0) for mark in marks],
        "text": texts,
        "hovertemplate": "%{text}",
        "marker": {"color": "--decision", "size": 11, "symbol": "diamond"},
    }


def _rates(report: Report) -> list[dict[str, Any]]:
    rounds = report.rounds[report.rounds["live"]][:: max(1, len(report.rounds) // MOST_POINTS)]
    more: dict[str, Any] = {"yaxis": "y2", "line": {"shape": "vh"}, "hovertemplate": "%{y:.4s}B/s"}
    # A round's rates are those of the time before its end: the first reach back to its start.
    times = [*rounds["start"][:1], *rounds["elapsed"]]
    return [
        line(name, times, [*rounds[field][:1], *rounds[field]], colour, **more)
        for name, field, colour in (("dirty rate", "dirty_rate", "dirty"), ("bandwidth", "bandwidth", "link"))
    ]


def _guest(report: Report) -> list[dict[str, Any]]:
    found = list(speeds(report.progress, report.guest_cost.get("before"), MOST_POINTS))
    points = [(time, speed) for time, speed, _, _ in found]
    gap = blackout(report)
    if gap is not None and points:
        points = sorted([*(point for point in points if not gap[0] <= point[0] < gap[1]), (gap[0], 0.0)])
        after = next((speed for time, speed, _, there in found if there), None)
        points = sorted([*points, *([] if after is None else [(gap[1], after)])], key=lambda point: point[0])
    step: dict[str, Any] = {"yaxis": "y3", "line": {"shape": "hv"}, "hovertemplate": "%{y:.0%}"}
    traces = [line("guest's speed", *_columns(points), "guest", **step)] if points else []
    pace = report.progress[:: max(1, len(report.progress) // MOST_POINTS)]
    if len(pace):
        traces.append(line("throttle", pace["time"], pace["throttle"] / 100, "throttle", **step))
    else:
        rounds = report.rounds
        traces.append(line("throttle", rounds["elapsed"], rounds["throttle"] / 100, "throttle", **step))
    return traces


def _columns(points: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _bands(report: Report) -> list[dict[str, Any]]:
    """Every second round; none where there are so many that they would be a grey."""
    rounds = report.rounds
    if len(rounds) > MOST_BANDS:
        return []
    return [_band(row["start"], row["elapsed"], "--band", 1.0) for row in rounds[::2] if row["live"]]


def _band(start: float, end: float, colour: str, opacity: float) -> dict[str, Any]:
    place = {"xref": "x", "yref": "paper", "x0": start, "x1": end, "y0": 0, "y1": 1}
    # A blackout of a millisecond must be seen in a run of a minute: its edge is a line.
    edge = {"width": 1 if colour == "--blackout" else 0, "color": colour}
    return {"type": "rect", "layer": "below", "fillcolor": colour, "opacity": opacity, "line": edge, **place}


def _upright(time: float) -> dict[str, Any]:
    place = {"xref": "x", "yref": "paper", "x0": time, "x1": time, "y0": 0, "y1": 1}
    return {"type": "line", "line": {"color": "--decision", "width": 1, "dash": "dash"}, **place}


def _note(time: float, text: str, below: bool = False) -> dict[str, Any]:
    place = {"x": time, "xref": "x", "y": 0.6 if below else 1.0, "yref": "paper", "xanchor": "right"}
    return {**place, "yanchor": "top" if below else "bottom", "text": html.escape(text), "showarrow": False}


def by_kind(report: Report) -> Chart:
    """Bytes put on the link in each round, by kind."""
    rounds = report.rounds
    coded = (report.coding or {}).get("rounds", [])
    if coded and len(coded) >= len(rounds):
        encoded = [row["encoded_bytes"] for row in coded[: len(rounds)]]
        raw = [row["raw_bytes"] for row in coded[: len(rounds)]]
    else:
        encoded = [0] * len(rounds)
        raw = ((rounds["sent_pages"] - rounds["zero_pages"] - rounds["encoded_pages"]) * PAGE).tolist()
    rest = [max(0, int(all_) - one - two) for all_, one, two in zip(rounds["sent_bytes"], raw, encoded, strict=True)]
    names = [f"round {row['index']}" if row["live"] else "blackout" for row in rounds]
    size: dict[str, Any] = {"hovertemplate": "%{y:.4s}B"}
    traces = [
        bars("pages as they are", names, raw, "link", **size),
        bars("encoded pages", names, encoded, "guest", **size),
        bars("headers and zero pages", names, rest, "dirty", **size),
    ]
    if report.faults is not None:
        pushed, asked = (
            report.faults[f"{kind}_bytes"] or report.faults[f"{kind}_pages"] * PAGE for kind in ("pushed", "asked")
        )
        traces.append(bars("pushed", ["post-copy"], [pushed], "remaining", **size))
        traces.append(bars("asked for", ["post-copy"], [asked], "blackout", **size))
    traces = [trace for trace in traces if any(trace["y"])]
    layout = {"barmode": "stack", "yaxis": {"title": {"text": "bytes"}, "tickformat": ".3s"}}
    told = f"{units.format_size(report.sent_bytes)} in all; {units.format_size(report.memory_bytes)} of memory."
    return Chart("Bytes by kind", told, traces, layout, height=320)


def page_map(report: Report) -> list[Chart]:
    """Memory from its first page to its last over time, where it is known: what was sent first, and again."""
    found = report.page_map
    if not found or not found["rows"]:
        return []
    rows, size = found["rows"], found["region_pages"]
    cells = zip(
        *([_shade(*pair, size) for pair in zip(row["first"], row["again"], strict=True)] for row in rows), strict=True
    )
    heat = {
        "type": "heatmap",
        "name": "pages",
        "x": [rows[0]["start"], *(row["end"] for row in rows)],
        "y": [number * size * PAGE for number in range(len(rows[0]["first"]) + 1)],
        "z": [list(line) for line in cells],
        "zmin": -1,
        "zmax": 1,
        "colorscale": [[0, "--remaining"], [0.5, "--band"], [1, "--dirty"]],
        "colorbar": {"tickvals": [-1, 0, 1], "ticktext": ["first copy", "nothing", "sent again"], "thickness": 12},
        "hovertemplate": "%{x:.3s}s, at %{y:.3s}B: %{z:.0%}<extra></extra>",
    }
    layout = {
        "xaxis": {"title": {"text": "time since the start, s"}},
        "yaxis": {"title": {"text": "place in memory, bytes"}, "tickformat": ".3s"},
    }
    told = (
        "Which part of memory was sent in which round: the first copy of pages in one colour, pages sent again in the "
        "other; the fainter, the fewer of a region."
    )
    return [Chart("Page map", told, [heat], layout, height=340)]


def _shade(first: int, again: int, size: int) -> float:
    """Of a region: the share of pages that were sent for the first time, below zero, or again."""
    return min(again / size, 1.0) if again else -min(first / size, 1.0)


def faults(report: Report) -> list[Chart]:
    """The latency of remote faults in QEMU's buckets, if there were any."""
    buckets = (report.faults or {}).get("total", {}).get("buckets", [])
    if not any(buckets):
        return []
    first = next(number for number, count in enumerate(buckets) if count)
    labels = [units.format_time((1 << number) / 1e6) for number in range(len(buckets))]
    layout = {
        "xaxis": {"title": {"text": "latency from; each bar reaches to the next"}, "type": "category"},
        "yaxis": {"title": {"text": "remote faults"}},
    }
    told = "How long the guest waited for each page that it asked for, in buckets of powers of two."
    return [Chart("Remote faults", told, [bars("faults", labels[first:], buckets[first:], "blackout")], layout, 300)]
