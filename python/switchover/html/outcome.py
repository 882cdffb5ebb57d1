"""The page of a tuning: the recommendation, the front, what each knob does, settings to paste."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from switchover import units
from switchover.comparison.metric import METRICS
from switchover.html.chart import Chart, bars
from switchover.html.document import Document, Grid, Section
from switchover.html.ranking import definitions

if TYPE_CHECKING:
    from switchover.comparison.estimate import Estimate
    from switchover.tuning.goal import Objective
    from switchover.tuning.result import Candidate, Tuning

MOST_POINTS = 2000


def of_tuning(tuning: Tuning, title: str, samples: int) -> Document:
    """All of it; `samples` is for the sensitivities, and 0 leaves them out."""
    sections = [_recommendation(tuning), _front(tuning)]
    if samples:
        sections.append(_sensitivity(tuning, samples))
    pasted = Section("Settings to paste", pasted=tuning.settings(), folded=True)
    words = [f"{len(tuning.candidates)} candidates, each simulated from many moments of every trace."]
    return Document(title, [*sections, pasted, definitions()], words)


def _recommendation(tuning: Tuning) -> Section:
    one = tuning.recommended
    facts = [(name, _value(tuning, name, value)) for name, value in one.values.items()]
    for promise, met in zip(tuning.constraints, one.met, strict=True):
        facts.append((str(promise), f"kept in {100 * met:.3g} %"))
    facts += [(f"held out: {promise}", f"kept in {100 * met:.3g} %") for promise, met in tuning.held_out_met]
    head = ["objective", "traces tuned on", "traces held out", "of the first plan's", "held out"]
    rows = [
        [
            str(found.objective),
            _told(found.tuned, found.objective),
            _told(found.held_out, found.objective),
            _times(found.gain),
            _times(found.held_out_gain),
        ]
        for found in tuning.evidence
    ]
    words = [f"Warning: {text}" for text in tuning.warnings]
    return Section("Recommendation", words=[str(one.plan), *words], facts=facts, grid=Grid(head, rows))


def _value(tuning: Tuning, name: str, value: Any) -> str:
    kind, _, knob = name.partition(".")
    if kind == "link":
        return units.format_rate(value) if knob == "bandwidth" else units.format_time(value)
    part = getattr(tuning.recommended.plan, kind)
    known = {one.name: one for one in getattr(part, "knobs", ())}
    return known[knob].show(value) if knob in known else str(value)


def _told(found: Estimate | None, goal: Objective) -> str:
    if found is None:
        return "-"
    return f"{goal.show(found.median)} ({goal.show(found.low)} .. {goal.show(found.high)})"


def _times(found: Estimate | None) -> str:
    return "-" if found is None else f"{found.median:.2f} ({found.low:.2f} .. {found.high:.2f})"


def _front(tuning: Tuning) -> Section:
    goals = [str(goal) for goal in tuning.objectives]
    rows = [
        [*(_value(tuning, n, v) for n, v in one.values.items()), *map(_shown, tuning.objectives, one.scores)]
        for one in tuning.front
    ]
    marked = frozenset(number for number, one in enumerate(tuning.front) if one is tuning.recommended)
    grid = Grid([*tuning.front[0].values, *goals], rows, marked)
    return Section("Pareto front", [_scatter(tuning)], ["Marked: the recommendation."], grid=grid)


def _shown(goal: Objective, score: float) -> str:
    return goal.show(score)


def _scatter(tuning: Tuning) -> Chart:
    """Two objectives against each other; of a single one its value against the first knob."""
    tried = tuning.candidates[-MOST_POINTS:]
    single = len(tuning.objectives) == 1
    first = next(iter(tuning.recommended.values))
    groups: dict[str, tuple[list[Candidate], str, str, int]] = {
        "keeps the constraints": ([one for one in tried if one.feasible], "--link", "circle", 7),
        "breaks one": ([one for one in tried if not one.feasible], "--rule", "circle-open", 7),
        "front": (tuning.front, "--guest", "circle", 10),
        "recommended": ([tuning.recommended], "--blackout", "star", 16),
    }
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": [one.values[first] if single else one.scores[0] for one in group],
            "y": [one.scores[0] if single else one.scores[1] for one in group],
            "text": [
                html.escape(", ".join(f"{n} {_value(tuning, n, v)}" for n, v in one.values.items())) for one in group
            ],
            "hovertemplate": "%{text}<br>%{x:.4s}, %{y:.4s}",
            "marker": {"color": colour, "symbol": symbol, "size": size},
        }
        for name, (group, colour, symbol, size) in groups.items()
    ]
    x, y = (first, _title(tuning.objectives[0])) if single else map(_title, tuning.objectives[:2])
    axes = {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}, "hovermode": "closest"}
    return Chart(f"{y} against {x}", "Every candidate; low is good.", traces, axes, 420)


def _title(goal: Objective) -> str:
    unit = METRICS[goal.metric].unit
    return str(goal) + (f" ({unit})" if unit else "")


def _sensitivity(tuning: Tuning, samples: int) -> Section:
    found = tuning.sensitivity(samples=samples)[::-1]
    names = [effect.name for effect in found]
    error = {"type": "data", "array": [effect.error for effect in found], "color": "--faint"}
    traces = [
        {**bars("alone", [effect.alone for effect in found], [], "link"), "y": names, "orientation": "h"},
        {
            **bars("with all its interplay", [effect.total for effect in found], [], "guest"),
            "y": names,
            "orientation": "h",
            "error_x": error,
        },
    ]
    layout = {"barmode": "group", "xaxis": {"title": {"text": "share of the variance"}, "rangemode": "tozero"}}
    told = f"Sobol indices of {tuning.objectives[0]} over the whole space: which knobs matter, and which do not."
    return Section("What each knob does", [Chart("Sensitivity", told, traces, layout, 160 + 60 * len(found))])
