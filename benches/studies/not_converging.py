"""A guest that does not converge: post-copy, hybrid, throttling or patience?

``python benches/studies/not_converging.py [--quick]`` writes docs/studies/not-converging.md and its data.
Recorded guests are simulated, page by page; one of them is then replayed in real memory and migrated, for comparison.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import switchover as sw
from guests import GIB, dirty_rate, machine, recorded
from page import interval, publish, save, table
from switchover.tuning.confirmation import replayed

P = sw.policies
GUESTS = ("redis", "sqlite", "postgres", "gcc", "stress-ng", "numpy")
LOADS = (0.5, 1.0, 2.0, 4.0)
"""Dirty rate over the link's bandwidth."""
RATE, MEMORY = 60e6, GIB
"""What the machines dirty in a second at least, and have."""
LIMIT, PATIENCE = "300ms", "150s"
"""What KubeVirt allows a GiB before it gives up."""
PLANS = {
    "stop and copy": (sw.StopAndCopy(), P.Qemu(LIMIT)),
    "patience: 20 rounds, then stop": (sw.PreCopy(), P.Qemu(LIMIT) | P.MaxRounds(20)),
    "local minimum": (sw.PreCopy(), P.LocalMinimum()),
    "patience, early clear": (sw.PreCopy(clear="early"), P.Qemu(LIMIT) | P.MaxRounds(20)),
    "auto-converge": (sw.PreCopy(), P.QemuAutoConverge(LIMIT)),
    "dirty-limit": (sw.PreCopy(), P.QemuDirtyLimit(LIMIT)),
    "post-copy": (sw.PostCopy(), P.Qemu(LIMIT)),
    "hybrid, after 1 round": (sw.Hybrid(rounds=1), P.Qemu(LIMIT)),
    "hybrid, after 3 rounds": (sw.Hybrid(rounds=3), P.Qemu(LIMIT)),
}
READS = ((0.0, 1.0), (1.0, 0.1), (1.0, 1.0), (4.0, 0.1), (4.0, 1.0))
"""Pages read for each page written, and in what share of memory: a trace has no reads."""
CHECKED = "stress-ng"
"""What is replayed in memory too."""


def simulated(guest: str, load: float, starts: int) -> list[dict[str, object]]:
    """Each plan from several moments of the guest's trace."""
    trace = machine(recorded((guest,))[guest], RATE, MEMORY)
    link, rows = sw.Link(dirty_rate(trace) / load, rtt="0.5ms"), []
    for name, (strategy, policy) in PLANS.items():
        for number in range(starts):
            report = sw.simulate(
                trace, strategy, policy | P.TimeLimit(PATIENCE, then="abort"), link,
                start=trace.duration * number / starts, longest="20min",
            )  # fmt: skip
            rows.append({"guest": guest, "load": load, "plan": name, "start": number, **figures(report)})
    sys.stderr.write(f"{guest} x{load:g}\n")
    return rows


def figures(report: sw.Report) -> dict[str, object]:
    done = report.outcome == "completed"
    lost = report.effective_downtime if done else None
    return {
        "outcome": report.outcome, "total_time": report.total_time,
        "blackout": float("nan") if report.blackout is None else report.blackout,
        "effective_downtime": float("nan") if lost is None else lost,
    }  # fmt: skip


def own(rows: list[dict[str, object]], what: str, **where: object) -> list[float]:
    """A figure of the runs that are so; of one that did not complete, infinity."""
    chosen = [row for row in rows if all(row[name] == value for name, value in where.items())]
    return [float(str(row[what])) if row["outcome"] == "completed" else np.inf for row in chosen]


def summary(rows: list[dict[str, object]]) -> str:
    """By load: the median over guests of what each plan costs, as a share of the time in which the link carries one."""
    parts = []
    for load in dict.fromkeys(row["load"] for row in rows):
        lines = []
        for name in PLANS:
            guests = list(dict.fromkeys(row["guest"] for row in rows))
            ended = np.mean([np.isfinite(own(rows, "total_time", plan=name, load=load)).mean()])
            cells = [name, f"{ended:.0%}"]
            for what in ("effective_downtime", "blackout", "total_time"):
                medians = [statistics.median(own(rows, what, plan=name, load=load, guest=guest)) for guest in guests]
                whole = [
                    statistics.median(own(rows, "total_time", plan="stop and copy", load=load, guest=g)) for g in guests
                ]
                cells.append(interval([a / b for a, b in zip(medians, whole, strict=True)], "{:.3g}".format))
            lines.append(cells)
        head = ("plan", "ends", "effective downtime", "blackout", "total time")
        parts += [f"Dirty rate {load:g} x the link:", table(head, lines)]
    return "\n\n".join(parts)


def winners(rows: list[dict[str, object]]) -> str:
    """For each guest and load the plan with the least effective downtime, and its nearest rival."""
    lines = []
    for guest, load in dict.fromkeys((row["guest"], row["load"]) for row in rows):
        cost = {
            name: statistics.median(own(rows, "effective_downtime", plan=name, guest=guest, load=load))
            for name in PLANS
        }
        first, second, *_ = sorted(cost, key=lambda name: cost[name])
        lines.append((guest, load, f"{first}: {cost[first]:.2f} s", f"{second}: {cost[second]:.2f} s"))
    return table(("guest", "dirty rate / link", "least effective downtime", "next"), lines)


def reading(load: float, starts: int, guests: Sequence[str]) -> str:
    """How much of post-copy's cost rests on what the guest is assumed to read."""
    lines = []
    for name in ("post-copy", "hybrid, after 1 round"):
        strategy, policy = PLANS[name]
        for reads in READS:
            cells = [name, reads[0], f"{reads[1]:.0%}" if reads[0] else "-"]
            shares = []
            for trace in (machine(trace, RATE, MEMORY) for trace in recorded(tuple(guests)).values()):
                link = sw.Link(dirty_rate(trace) / load, rtt="0.5ms")
                moments = [trace.duration * number / starts for number in range(starts)]
                found = [sw.simulate(trace, strategy, policy, link, start=at, reads=reads) for at in moments]
                whole = trace.memory_bytes / float(link.spec()["bandwidth"])
                shares.append(statistics.median(report.effective_downtime or np.inf for report in found) / whole)
            lines.append([*cells, interval(shares, "{:.3g}".format)])
    return table(("plan", "pages read for each written", "in so much of memory", "effective downtime"), lines)


def checked(load: float, repeats: int) -> str:
    """The guest replayed in real memory and migrated, beside what was simulated."""
    trace = machine(recorded((CHECKED,))[CHECKED], RATE, MEMORY // 4)
    link, lines = sw.Link(dirty_rate(trace) / load, rtt="0.5ms"), []
    for name, (strategy, rule) in PLANS.items():
        policy = rule | P.TimeLimit(PATIENCE, then="abort")
        told = [sw.simulate(trace, strategy, policy, link, start=trace.duration * n / 5) for n in range(5)]
        real = []
        for _ in range(repeats):
            with replayed(trace) as guest:
                real.append(sw.migrate(guest, strategy, policy, link, warm_up="1s", cool_down="2s"))
        cells = [name]
        for what in ("effective_downtime", "blackout", "total_time"):
            pair = [[getattr(report, what) or np.inf for report in side] for side in (told, real)]
            cells.append(" / ".join(f"{statistics.median(values):.2f} s" for values in pair))
        lines.append(cells)
    return table(("plan", "effective downtime: simulated / real", "blackout", "total time"), lines)


def main(quick: bool = False) -> None:
    guests, loads, starts = (("postgres",), (2.0,), 2) if quick else (GUESTS, LOADS, 6)
    cases = [(guest, load) for guest in guests for load in loads]
    with ProcessPoolExecutor() as pool:
        tasks = [pool.submit(simulated, guest, load, starts) for guest, load in cases]
        rows = [row for task in tasks for row in task.result()]
    parts = [summary(rows), "### Guest by guest", winners(rows)]
    parts += ["### What the guest reads, dirty rate 2 x the link", reading(2.0, 2 if quick else 4, guests)]
    if quick:
        print("\n\n".join(parts))
        return
    parts += [f"### {CHECKED} in real memory, dirty rate 2 x the link", checked(2.0, 2)]
    save("not-converging", rows)
    publish("not-converging", "\n\n".join(parts))


if __name__ == "__main__":
    main("--quick" in sys.argv)
