"""KubeVirt's stall detector: which of its seven knobs matter, and what their defaults should be, on recorded guests.

``python benches/studies/kubevirt_stall.py [--quick]`` writes docs/studies/kubevirt-stall.md and its data.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import switchover as sw
from guests import GIB, machine, recorded
from page import interval, publish, save, table
from switchover.tuning import Evaluator, Plan

MEMORY, LINK = 16 * GIB, sw.Link.of("10Gbit/s,0.5ms")
GUESTS = ("redis", "sqlite", "postgres", "gcc", "stress-ng")
LOADS = (0.7, 1.2, 2.0)
"""Dirty rate over the link's bandwidth."""
DEFAULT = sw.policies.KubevirtStall()
KNOBS = next(part["knobs"] for part in sw.policies.describe() if part["name"] == "kubevirt-stall")
DEFAULTS = {knob["name"]: knob["default"] for knob in KNOBS}
VALUES = {
    "margin": (0.02, 0.04, 0.08, 0.12),
    "progress_timeout": (5.0, 15.0, 30.0, 60.0, 120.0),
    "alpha": (0.1, 0.4, 0.8),
    "precopy_possible_factor": (1.0, 1.5, 3.0),
    "decay": (0.25, 0.5, 0.75),
    "search_local_minima": (True, False),
    "max_downtime": (0.3, 0.9, 1.05, 2.0),
}
SPACE = {
    "policy.margin": "0.02..0.12",
    "policy.progress_timeout": "2s..120s:log",
    "policy.alpha": "0.1..0.9",
    "policy.precopy_possible_factor": "1..4",
    "policy.decay": "0.1..0.9",
    "policy.search_local_minima": [True, False],
    "policy.max_downtime": "0.3s..2s:log",
}
SIX = {name: values for name, values in SPACE.items() if name != "policy.max_downtime"}
OPTIONS = {"longest": 600.0}


def machines(names: Sequence[str]) -> dict[str, sw.Trace]:
    """Each guest in a machine, at every load."""
    traces = recorded(tuple(names))
    rate = float(LINK.spec()["bandwidth"])
    return {f"{name} x{load:g}": machine(traces[name], load * rate, MEMORY) for name in names for load in LOADS}


def plan(**knobs: object) -> Plan:
    return Plan(sw.PreCopy(), DEFAULT.replace(**knobs), LINK)


def alone(vms: dict[str, sw.Trace], starts: int) -> list[dict[str, object]]:
    """Each knob at each of its values, the others as they are by default."""
    settings = [(knob, value) for knob, values in VALUES.items() for value in values]
    verdicts = Evaluator(vms, starts, options=OPTIONS, fast=True).run(
        [plan(**{knob: value}) for knob, value in settings]
    )
    rows = []
    for (knob, value), found in zip(settings, verdicts, strict=True):
        for vm, part in zip(vms, found.reshape(len(vms), starts), strict=True):
            done = part["outcome"] == "completed"
            rows.append({
                "knob": knob, "value": value, "vm": vm, "completed": float(done.mean()),
                "total_time": float(part["total_time"].mean()),
                "blackout": float(part["blackout"][done].mean()) if done.any() else float("nan"),
            })  # fmt: skip
    return rows


def one_by_one(rows: list[dict[str, object]]) -> str:
    """A line for each value: means over the machines, with intervals by bootstrap over the machines."""
    lines = []
    for knob, values in VALUES.items():
        for value in values:
            own = [row for row in rows if (row["knob"], row["value"]) == (knob, value)]
            default = " (default)" if DEFAULTS[knob] == value else ""
            blackouts = [float(str(row["blackout"])) for row in own if not np.isnan(float(str(row["blackout"])))]
            lines.append([
                f"`{knob}`", f"{value}{default}",
                interval([float(str(row["completed"])) for row in own], "{:.0%}".format, np.mean),
                interval([float(str(row["total_time"])) for row in own], "{:.1f} s".format, np.mean),
                interval(blackouts, "{:.2f} s".format, np.mean),
            ])  # fmt: skip
    return table(("knob", "value", "completed", "total time", "blackout of those"), lines)


def sensitivities(vms: dict[str, sw.Trace], samples: int, starts: int) -> str:
    """Sobol's total indices of each knob over the whole space, with and without the longest blackout among them."""
    columns = {
        "total time, all seven": ("total_time", SPACE),
        "total time, six": ("total_time", SIX),
        "effective downtime, six": ("effective_downtime", SIX),
    }
    effects = {}
    for column, (goal, space) in columns.items():
        found = sw.tune(
            vms, space, goal, link=LINK, policy=DEFAULT, trials=2, starts=starts, test=[], longest=OPTIONS["longest"]
        )
        effects[column] = {
            each.name: f"{each.total:.2f} ± {each.error:.2f}" for each in found.sensitivity(samples=samples)
        }
    lines = [
        [f"`{name.removeprefix('policy.')}`", *(effects[column].get(name, "-") for column in columns)] for name in SPACE
    ]
    return table(("knob", *columns), lines)


def held_out(vms: dict[str, sw.Trace], trials: int, starts: int) -> str:
    """Thresholds tuned on the other guests, on the one that was left out; the longest blackout stays 900 ms."""
    guests, lines = sorted({name.split()[0] for name in vms}), []
    for guest in guests:
        test = [name for name in vms if name.startswith(f"{guest} ")]
        found = sw.tune(
            vms, SIX, "total_time", link=LINK, policy=DEFAULT, trials=trials, starts=starts, test=test, seed=7,
            longest=OPTIONS["longest"],
        )  # fmt: skip
        plans = [plan(), found.recommended.plan]
        there = Evaluator({name: vms[name] for name in test}, starts, options=OPTIONS, fast=True).run(plans)
        cells = [guest]
        for row in there:
            done = row["outcome"] == "completed"
            cells.append(f"{done.mean():.0%}, {row['total_time'].mean():.1f} s")
        best = DEFAULTS | found.recommended.plan.policy.spec()
        cells.append(f"{best['progress_timeout']:g} s, {best['margin']:g}, {best['search_local_minima']}")
        lines.append(cells)
    head = (
        "left out",
        "defaults: completed, total time",
        "tuned on the others",
        "progress_timeout, margin, local minima",
    )
    return table(head, lines)


def main(quick: bool = False) -> None:
    vms = machines(("postgres", "sqlite") if quick else GUESTS)
    starts = 2 if quick else 10
    rows = alone(vms, starts)
    parts = ["### Each knob alone", one_by_one(rows)]
    parts += ["### All knobs together", sensitivities(vms, 2 if quick else 64, 2 if quick else 4)]
    parts += ["### Tuned on other guests", held_out(vms, 8 if quick else 150, 2 if quick else 6)]
    text = "\n\n".join(parts)
    if quick:
        print(text)
        return
    save("kubevirt-stall", rows)
    publish("kubevirt-stall", text)


if __name__ == "__main__":
    main("--quick" in sys.argv)
