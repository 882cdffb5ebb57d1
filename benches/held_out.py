"""How good tuned thresholds are for guests that were not looked at: ``python benches/held_out.py [TRIALS] [STARTS]``.

Six recorded programs, each in machines that dirty 0.4 to 2 times what the link carries. One program at a time is left
out, thresholds are tuned on the others, and on each machine of the one that was left out they are held against the
clairvoyant choice: the best of all candidates for that very machine. Then each machine's thresholds are tuned on the
first half of its own trace, and held against the clairvoyant choice for the second. The aim: within 10 % for 95 %.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import switchover as sw

sys.path.append(str(Path(__file__).resolve().parent / "studies"))
from guests import NAMES, machine, recorded
from switchover.tuning import Evaluator, Plan
from switchover.tuning.goal import figures

GOAL, SMALL = "effective_downtime:geomean", 0.05
"""Machines are alike to it whether they pay milliseconds or seconds; a difference that nobody notices, seconds."""
LINK, MEMORY = sw.Link("4Gbit/s", rtt="0.5ms"), 8 << 30
LOADS = (0.4, 0.8, 1.2, 2.0)
SPACE = {
    "policy": ["no-progress", "local-minimum", "max-rounds"],
    "policy.rounds": (1, 40),
    "policy.window": (2, 20),
    "policy.times": (1, 5),
    "policy.margin": (0.0, 0.3),
    "strategy.clear": ["early", "skip", "late"],
}


def main(trials: int = 150, starts: int = 8) -> None:
    rate = float(LINK.spec()["bandwidth"])
    vms = {
        f"{name} x{load:g}": machine(trace, load * rate, MEMORY) for name, trace in recorded().items() for load in LOADS
    }
    chosen, tried = [], []
    for name in NAMES:
        test = [vm for vm in vms if vm.startswith(f"{name} ")]
        found = sw.tune(vms, SPACE, GOAL, ["completed"], LINK, trials=trials, starts=starts, test=test, seed=7)
        chosen.append(found.recommended.plan)
        tried += [one.plan for one in found.candidates]
        print(f"{name} left out: {found.recommended.values}", flush=True)
    costs = effective_downtimes([*chosen, *tried], vms, starts)
    # Each machine under what was tuned without its program.
    tuned = np.array([costs[NAMES.index(vm.split()[0]), column] for column, vm in enumerate(vms)])
    everywhere, best = costs[len(chosen) :], costs[len(chosen) :].min(axis=0)
    print(f"{len(vms)} machines held out, against the clairvoyant choice for each (aim: within 10 % for 95 %):")
    print(f"tuned on the other programs: {told(tuned, best)}\n{missed(vms, tuned, best)}")
    score = np.log(everywhere / best).mean(axis=1)
    print(f"the best choice for all, known afterwards: {told(everywhere[score.argmin()], best)}")
    own = np.array([half(vm, trials, starts) for vm in vms.values()]).T
    print(f"tuned on the first half of its own trace: {told(*own)}\n{missed(vms, *own)}")


def half(vm: sw.Trace, trials: int, starts: int) -> tuple[float, float]:
    """Of the second half: what was chosen for the first costs, and what the clairvoyant's choice does."""
    found = sw.tune(vm, SPACE, GOAL, ["completed"], LINK, trials=trials, starts=starts, seed=7)
    plans = [found.recommended.plan, *(one.plan for one in found.candidates)]
    costs = effective_downtimes(plans, {"second half": vm.cut(vm.intervals // 2 * vm.interval)}, starts)[:, 0]
    return costs[0], costs.min()


def effective_downtimes(plans: list[Plan], vms: dict[str, sw.Trace], starts: int) -> np.ndarray:
    """Means over start times, a row for each plan and a column for each machine; infinite if one does not complete."""
    verdicts = Evaluator(vms, starts, options={"longest": "10min"}, fast=True).run(plans)
    return figures(verdicts)["effective_downtime"].reshape(len(plans), len(vms), starts).mean(axis=2)


def missed(vms: dict[str, sw.Trace], costs: np.ndarray, best: np.ndarray) -> str:
    """The machines that are further off."""
    far = [
        f"{vm} {cost:.3g} s for {least:.3g} s"
        for vm, cost, least in zip(vms, costs, best, strict=True)
        if cost > 1.1 * least
    ]
    return f"  further off: {', '.join(far)}"


def told(costs: np.ndarray, best: np.ndarray) -> str:
    times, near = costs / best, costs - best <= SMALL
    return (
        f"within 10 % {np.mean(times <= 1.1):.0%}; or within {SMALL * 1e3:g} ms {np.mean((times <= 1.1) | near):.0%}; "
        f"median {np.median(times):.2f} times as much, 95th percentile {np.quantile(times, 0.95):.2f}"
    )


if __name__ == "__main__":
    main(*(int(text) for text in sys.argv[1:]))
