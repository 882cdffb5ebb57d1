"""When the dirty bit is cleared: the least blackout of each discipline, on real guests and by its closed form.

``python benches/studies/clear_disciplines.py [--quick|--table]`` writes docs/studies/clear-disciplines.md and its data.

``--table`` writes the tables of the data that are there.
"""

from __future__ import annotations

import itertools
import sys
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import switchover as sw
from guests import NAMES, dirty_rate, recorded, working_set
from page import interval, load, publish, save, table

CLEAR = ("early", "skip", "late")
LOADS = (0.8, 1.25, 2.0, 4.0)
"""Dirty rate over the link's bandwidth."""
ROUNDS, SETTLED = 30, 10
"""Rounds of a run, and how many of the last ones are looked at."""


def closed_form(shares: np.ndarray, pages: float, interval_: float, clear: str) -> float:
    """Pages that remain at the fixed point, of a guest whose pages are written independently, at random.

    `shares` are those of intervals in which a page is written, `pages` what the link carries in a second. A page that
    is written in every interval is taken to have been left out of half an interval.
    """
    seen = np.minimum(shares, 1 - 0.5 / (1 / shares.min() + 1))
    rate = -np.log1p(-seen) / interval_
    dirty = np.ones_like(rate)
    for _ in range(400):
        time = round_time(dirty, rate, pages, clear)
        again = -np.expm1(-rate * time)
        if clear == "late":
            kept = 1 - again / np.maximum(rate * time, 1e-12)
            dirty = dirty * kept + (1 - dirty) * again
        else:
            dirty = again
    return float(dirty.sum())


def round_time(dirty: np.ndarray, rate: np.ndarray, pages: float, clear: str) -> float:
    """Seconds: all dirty pages are sent, or with `skip` those that are not dirty again when their turn comes."""
    whole = max(float(dirty.sum()) / pages, 1e-9)
    if clear != "skip":
        return whole
    # The turn comes to page after page; where most are dirty again it goes on the faster.
    at, share, step = 0.0, 0.0, whole / 400
    while share < 1.0 and at < whole:
        share += step * pages / max(float((dirty * np.exp(-rate * at)).sum()), 1e-9)
        at += step
    return at


def measured(trace: sw.Trace, bandwidth: float, clear: str, starts: int) -> list[float]:
    """Remaining pages of the last rounds, in the mean, from several moments of the trace."""
    found = []
    for number in range(starts):
        report = sw.simulate(
            trace, sw.PreCopy(clear=clear, chunk_pages=16), f"max-rounds:{ROUNDS}", sw.Link(bandwidth),
            start=trace.duration * number / starts,
        )  # fmt: skip
        live = report.rounds[report.rounds["live"]]
        found.append(float(live["remaining_pages"][-SETTLED:].mean()))
    return found


def runs(guests: dict[str, sw.Trace], loads: Sequence[float], starts: int) -> list[dict[str, object]]:
    """Every guest at every load, by each discipline."""
    rows: list[dict[str, object]] = []
    for name, trace in guests.items():
        shares, rate = working_set(trace), dirty_rate(trace)
        for ratio, clear in itertools.product(loads, CLEAR):
            bandwidth = rate / ratio
            told = closed_form(shares, bandwidth / 4096, trace.interval, clear)
            for start, pages in enumerate(measured(trace, bandwidth, clear, starts)):
                row = {"guest": name, "load": ratio, "clear": clear, "start": start, "pages": pages}
                times = {"blackout": pages * 4096 / bandwidth, "closed_form": told * 4096 / bandwidth}
                rows.append(row | times)
        sys.stderr.write(f"{name}\n")
    return rows


def floors(rows: list[dict[str, object]], guest: object, ratio: object, clear: str) -> tuple[list[float], float]:
    """Blackouts that were measured, and the closed form's."""
    own = [r for r in rows if (r["guest"], r["load"], r["clear"]) == (guest, ratio, clear)]
    return [float(str(row["blackout"])) for row in own], float(str(own[0]["closed_form"]))


def tables(rows: list[dict[str, object]]) -> str:
    """The least blackout for each guest and load, and what `late` saves; then in short."""
    lines, saved, off = [], defaultdict(list), defaultdict(list)
    for guest, ratio in dict.fromkeys((row["guest"], row["load"]) for row in rows):
        found = {clear: floors(rows, guest, ratio, clear) for clear in CLEAR}
        cells = [f"{interval(real, milliseconds)} / {milliseconds(told)}" for real, told in found.values()]
        middle = {clear: float(np.median(real)) for clear, (real, _) in found.items()}
        saved[ratio].append(1 - middle["late"] / middle["early"])
        off[guest] += [abs(middle[clear] / told - 1) for clear, (_, told) in found.items()]
        lines.append([guest, ratio, *cells, f"{saved[ratio][-1]:.0%} / {1 - found['late'][1] / found['early'][1]:.0%}"])
    head = ["guest", "dirty rate / link", *(f"{clear}: measured / closed form" for clear in CLEAR), "late saves"]
    short = [(ratio, f"{np.median(each):.0%} ({min(each):.0%} to {max(each):.0%})") for ratio, each in saved.items()]
    distance = [(guest, f"{np.median(each):.1%}", f"{max(each):.1%}") for guest, each in off.items()]
    return "\n\n".join([
        table(head, lines),
        "### What late saves, over guests", table(("dirty rate / link", "median (least to most)"), short),
        "### How far the closed form is from what was measured", table(("guest", "median", "most"), distance),
    ])  # fmt: skip


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms" if seconds < 9.9995 else f"{seconds:.1f} s"


def main(option: str = "") -> None:
    quick = option == "--quick"
    if option == "--table":
        rows = load("clear-disciplines")
    else:
        rows = runs(recorded(("postgres",) if quick else NAMES), LOADS[1:2] if quick else LOADS, 2 if quick else 6)
    if quick:
        print(tables(rows))
        return
    save("clear-disciplines", rows)
    publish("clear-disciplines", tables(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
