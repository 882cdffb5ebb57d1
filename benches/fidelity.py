"""How far the simulator is from what happens: migrations of memory, each predicted from a trace recorded before.

``python benches/fidelity.py [--quick] [--seed N] [--out FOLDER]``

Writes `fidelity.csv`, a row a run, and `fidelity.json`, the costs that were fitted, into docs/data, and the tables into
docs/fidelity.md. Each run makes a guest, records it, and only then migrates it. The prediction is the median
of simulations from several moments of the trace. ``--table`` runs nothing.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import random
import statistics
import sys
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import switchover as sw
from switchover import calibration

if TYPE_CHECKING:
    from collections.abc import Sequence

DOCS = Path(__file__).resolve().parent.parent / "docs"
FOLDER, PAGE = DOCS / "data", DOCS / "fidelity.md"
MARKS = ("<!-- tables: written by benches/fidelity.py -->", "<!-- end of tables -->")
MEMORY = 32 << 20
STARTS = ("0s", "0.15s", "0.3s", "0.45s", "0.6s")
RECORDED, INTERVAL = "1s", "20ms"

W = sw.workloads
WORKLOADS = {
    "uniform": lambda rate: W.Uniform(rate=rate, share=0.5),
    "zipf": lambda rate: W.Zipf(rate=rate),
    "hot-cold": lambda rate: W.HotCold(rate=rate),
    "sliding": lambda rate: W.Sliding(rate=rate, window=0.2, period=8),
    "kv": lambda rate: W.Kv(rate=rate / 2),
    "btree": lambda rate: W.Btree(rate=rate / 2),
    "stencil": lambda rate: W.Stencil(rate=rate / 2),
    "gc": lambda rate: W.Gc(rate=rate / 2),
    "sweep": lambda rate: W.Sweep(rate=rate, share=0.6),
}
RATES = (10e6, 30e6, 90e6)
LINKS = ("400Mbit/s,0.5ms", "800Mbit/s")
TOO_LONG = sw.policies.MaxRounds(8, then="abort")
POLICIES = {
    "limit-60ms": sw.policies.AnyOf([sw.policies.DowntimeLimit("60ms"), TOO_LONG]),
    "limit-200ms": sw.policies.AnyOf([sw.policies.DowntimeLimit("200ms"), TOO_LONG]),
    "max-rounds-3": sw.policies.MaxRounds(3),
    "xen": sw.policies.get("xen", rounds=4),
}
CLEAR = ("early", "late")


@dataclass
class Row:
    """A run: what it was, what was predicted (`p_`), what came of it (`r_`)."""

    workload: str
    rate: float
    link: str
    policy: str
    clear: str
    seed: int
    zero_share: float
    p_outcome: str
    r_outcome: str
    p_total: float
    r_total: float
    p_blackout: float
    r_blackout: float
    p_bytes: float
    r_bytes: float
    p_rounds: float
    r_rounds: int
    d_writes: float
    d_window: float
    d_naive: float
    d_rounds: float
    d_work: float
    source: str = "recording"


def cases(quick: bool, seed: int) -> list[tuple[str, float, str, str, str]]:
    """What is run: every workload at every rate, twice, with links, policies and disciplines dealt out in turns."""
    random_ = random.Random(seed)
    pairs = list(itertools.product(WORKLOADS, RATES))
    deals = list(itertools.product(LINKS, POLICIES, CLEAR))
    random_.shuffle(deals)
    dealt = itertools.cycle(deals)
    chosen = [(*pair, *next(dealt)) for _ in range(4) for pair in pairs]
    random_.shuffle(chosen)
    return [case for case in chosen if case[0] in ("hot-cold", "uniform")][:4] if quick else chosen


def zero_share(guest: sw.Guest) -> float:
    """Of its pages, at present."""
    pages = guest.memory.reshape(-1, 4096)
    return float(1 - np.count_nonzero(pages.any(axis=1)) / len(pages))


def one(case: tuple[str, float, str, str, str], seed: int, costs: sw.Costs) -> Row:
    """Records a guest, migrates it, and predicts that from the recording."""
    workload, rate, link, policy, clear = case
    plan, judge = sw.PreCopy(clear=clear), POLICIES[policy]
    with sw.Guest(MEMORY, WORKLOADS[workload](rate), seed=seed, fill="mix") as guest:
        guest.start()
        time.sleep(0.1)
        before = guest.progress
        trace = sw.Trace.record(guest=guest, duration=RECORDED, interval=INTERVAL, samples=0)
        after, zeros = guest.progress, zero_share(guest)
        guest.pause()
        real = sw.migrate(guest, plan, judge, link=link, warm_up="20ms", cool_down="0s")
    predicted = predict(trace, STARTS, strategy=plan, policy=judge, link=link, costs=costs, zero_share=zeros)
    speed = (after.operations - before.operations) / (after.seconds - before.seconds)
    return row(case, seed, zeros, predicted, real=real, trace=trace, speed=speed)


def predict(trace: sw.Trace, starts: Sequence[float | str], **run: Any) -> dict[str, Any]:
    """The median of simulations from several moments, of those that end as most do."""
    rows = sw.simulate_many(trace, [run | {"start": at} for at in starts])
    outcome = statistics.mode(rows["outcome"].tolist())
    rows = rows[rows["outcome"] == outcome]
    figures = {name: float(np.median(rows[name])) for name in ("total_time", "blackout", "sent_bytes", "rounds")}
    return {"outcome": str(outcome), **figures}


def row(
    case: tuple[str, float, str, str, str],
    seed: int,
    zeros: float,
    predicted: dict[str, Any],
    *,
    real: sw.Report,
    trace: sw.Trace,
    speed: float | None = None,
) -> Row:
    """What was predicted and what came of it; `speed` are operations a second before, by default the report's."""
    costs = real.guest_cost
    speed = costs["before"] if speed is None else speed
    return Row(
        *case,
        *(seed, round(zeros, 4), predicted["outcome"], real.outcome, predicted["total_time"], real.total_time),
        *(predicted["blackout"], np.nan if real.blackout is None else real.blackout),
        *(predicted["sent_bytes"], real.sent_bytes, predicted["rounds"], len(real.rounds)),
        *rates(trace, real, case[-1]),
        d_work=(costs["during"] or np.nan) / (speed or np.nan),
    )


def rates(trace: sw.Trace, real: sw.Report, clear: str) -> tuple[float, float, float, float]:
    """Dirty rates under migration as ratios to before: medians of rounds as long as an interval or more.

    Distinct pages a second before; then the ratio to distinct pages before in windows as long as the round, and to
    those in a window as long as the trace; how many rounds. Only `early` rounds tell: what remains of them is what
    was written while they lasted.
    """
    live = [each for each in real.rounds if each["live"] and trace.interval <= each["duration"] <= trace.duration]
    if clear != "early" or not live:
        return np.nan, np.nan, np.nan, 0
    windows = [float(each["duration"]) for each in live]
    curve = [float(pages) for pages in trace.unique_pages([*windows, trace.duration])]
    seen = [each["remaining_pages"] for each in live]
    pairs = list(zip(windows, seen, curve, strict=False))
    if curve[-1] == 0 or not all(curve):
        return np.nan, np.nan, np.nan, 0
    window = statistics.median(pages / expected for _, pages, expected in pairs)
    before = curve[-1] / trace.duration
    naive = statistics.median(pages / seconds / before for seconds, pages, _ in pairs)
    return before, float(window), float(naive), len(live)


def errors(rows: list[Row], what: str) -> list[float]:
    """Relative errors of what was predicted, of the runs whose verdict was right and that have the figure."""
    pairs = [(getattr(row, f"p_{what}"), getattr(row, f"r_{what}")) for row in rows if row.p_outcome == row.r_outcome]
    return [abs(p / r - 1) for p, r in pairs if r and not math.isnan(p) and not math.isnan(r)]


def line(name: str, rows: list[Row]) -> str:
    """A row of the table."""
    cells = [name, str(len(rows))]
    for what in ("total", "bytes", "blackout", "rounds"):
        found = errors(rows, what)
        cells.append(f"{np.median(found):.1%} / {np.quantile(found, 0.9):.1%}" if found else "-")
    wrong = sum(row.p_outcome != row.r_outcome for row in rows)
    return "| " + " | ".join([*cells, f"{wrong} ({wrong / max(1, len(rows)):.1%})"]) + " |"


HEAD = "| {} | runs | total time | bytes | blackout | rounds | wrong verdicts |\n|---|---|---|---|---|---|---|"


def table(rows: list[Row], kinds: Sequence[str] = ("workload", "rate", "link", "policy", "clear")) -> str:
    """The tables of docs/fidelity.md; each error as median / p90."""
    parts = [HEAD.format("all"), line("all runs", rows), ""]
    for what in kinds:
        parts.append(HEAD.format(what))
        values = sorted({getattr(row, what) for row in rows})
        parts += [line(str(value), [row for row in rows if getattr(row, what) == value]) for value in values]
        parts.append("")
    return "\n".join([*parts, beyond(rows), "", *splits(rows), "", *dirty(rows)])


def beyond(rows: list[Row]) -> str:
    """What runs took beyond their bytes at the link's bandwidth, really and as predicted."""
    rates_ = {link: sw.Link.of(link).spec()["bandwidth"] for link in {row.link for row in rows}}
    real, told = (
        [getattr(row, f"{kind}_total") - getattr(row, f"{kind}_bytes") / rates_[row.link] for row in rows]
        for kind in ("r", "p")
    )
    longer = sum(row.r_total > row.p_total for row in rows)
    return (
        f"Beyond their bytes at the link's bandwidth, runs took {np.median(real):.3f} s in the median, and "
        f"{np.median(told):.3f} s as predicted; {longer} of {len(rows)} took longer than predicted."
    )


def corrected(train: list[Row], test: list[Row]) -> list[Row]:
    """The runs of `test` with a constant factor for each figure that was learnt from `train`."""
    same = [row for row in train if row.p_outcome == row.r_outcome]
    changed = []
    for row in test:
        values = asdict(row)
        for what in ("total", "bytes", "blackout"):
            ratios = [getattr(r, f"r_{what}") / getattr(r, f"p_{what}") for r in same if getattr(r, f"p_{what}")]
            ratios = [ratio for ratio in ratios if not math.isnan(ratio)]
            values[f"p_{what}"] *= statistics.median(ratios) if ratios else 1.0
        changed.append(Row(**values))
    return changed


def splits(rows: list[Row]) -> list[str]:
    """Errors when a factor for each figure is learnt from the others: random halves, and each workload left out."""
    shuffled = rows[:]
    random.Random(1).shuffle(shuffled)
    half = len(rows) // 2
    first, second = shuffled[:half], shuffled[half:]
    mixed = corrected(first, second) + corrected(second, first)
    unseen = [
        changed
        for name in sorted({row.workload for row in rows})
        for changed in corrected([r for r in rows if r.workload != name], [r for r in rows if r.workload == name])
    ]
    return [
        HEAD.format("with a learnt factor"),
        line("random halves", mixed),
        line("workloads never seen", unseen),
        line("no factor", rows),
    ]


def dirty(rows: list[Row]) -> list[str]:
    """Whether dirty rates under migration are those before."""
    out = ["| workload | runs | same window | window of 1 s before | work done a second |", "|---|---|---|---|---|"]

    def span(values: list[float]) -> str:
        return f"{np.median(values):.2f} ({np.quantile(values, 0.1):.2f} to {np.quantile(values, 0.9):.2f})"

    told = [row for row in rows if row.d_rounds]
    for name in [*sorted({row.workload for row in told}), "all"]:
        own = [row for row in told if name in ("all", row.workload)]
        cells = [span([getattr(row, what) for row in own]) for what in ("d_window", "d_naive", "d_work")]
        out.append("| " + " | ".join([name, str(len(own)), *cells]) + " |")
    return out


def load(path: Path) -> list[Row]:
    """The runs in a file."""
    kinds = {item.name: {"str": str, "float": float, "int": int}[str(item.type)] for item in fields(Row)}
    with path.open() as file:
        return [Row(**{name: kinds[name](value) for name, value in line.items()}) for line in csv.DictReader(file)]


def save(path: Path, rows: list[Row]) -> None:
    """Writes the runs."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([item.name for item in fields(Row)])
        for row in rows:
            writer.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in asdict(row).values()])


def publish(tables: str, marks: tuple[str, str] = MARKS) -> None:
    """Writes them into the page."""
    before, rest = PAGE.read_text().split(marks[0])
    PAGE.write_text(f"{before}{marks[0]}\n\n{tables}\n\n{marks[1]}{rest.split(marks[1])[1]}")


def main() -> int:
    """Runs, writes, prints."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="four runs")
    options.add_argument("--table", action="store_true", help="run nothing")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--out", type=Path, default=FOLDER)
    given = options.parse_args()
    if not given.table:
        given.out.mkdir(parents=True, exist_ok=True)
        costs = sw.Costs.fit(calibration.measure(1 if given.quick else 2))
        costs.save(given.out / "fidelity.json")
        rows = []
        for number, case in enumerate(cases(given.quick, given.seed)):
            rows.append(one(case, given.seed * 1000 + number, costs))
            save(given.out / "fidelity.csv", rows)
            sys.stderr.write(f"\r{number + 1} runs")
    tables = table(load(given.out / "fidelity.csv"))
    print(tables)
    if given.out == FOLDER:
        publish(tables)
    return 0


if __name__ == "__main__":
    sys.exit(main())
