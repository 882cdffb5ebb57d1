"""How far the simulator is from what happens to real VMs: rehearsed, predicted, and only then migrated.

``python benches/fidelity_qemu.py [--quick] [--seed N] [--out FOLDER] [--qemu BINARY]``

Writes `fidelity-qemu.csv`, a row a run, and `fidelity-qemu.json`, the costs that were fitted, into docs/data, and the
tables into docs/fidelity.md. Each run starts a pair of QEMUs with a guest of ours, which is watched in three ways: two
rehearsals, and a recording of the process from outside. A prediction is the median of simulations from several moments
of such a trace. A bench that was ended goes on where it was;
``--table`` runs nothing. QEMU 8.1 or later.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import tempfile
from pathlib import Path

import fidelity
import numpy as np
import switchover as sw
from fidelity import POLICIES, Row
from switchover import units

MARKS = ("<!-- QEMU's tables: written by benches/fidelity_qemu.py -->", "<!-- end of QEMU's tables -->")
MEMORY = "64MiB"
# Of a rehearsal, after its first pass.
WATCHED = 4.0

W = sw.workloads
WORKLOADS = {
    "uniform": lambda rate: W.Uniform(rate=rate, share=0.5),
    "zipf": lambda rate: W.Zipf(rate=rate),
    "hot-cold": lambda rate: W.HotCold(rate=rate),
    "sliding": lambda rate: W.Sliding(rate=rate, window=0.2, period=8),
    "sweep": lambda rate: W.Sweep(rate=rate, share=0.6),
}
RATES = (10e6, 25e6, 60e6)
LINKS = ("400Mbit/s,0.5ms", "800Mbit/s")
SOURCES = ("a rehearsal at the link's speed", "a rehearsal at half of it", "a recording from outside")
KINDS = ("workload", "rate", "link", "policy")


def cases(quick: bool, seed: int) -> list[tuple[str, float, str, str, str]]:
    """What is run: every workload at every rate, three times, with links and policies dealt out in turns."""
    random_ = random.Random(seed)
    deals = list(itertools.product(LINKS, POLICIES))
    random_.shuffle(deals)
    dealt = itertools.cycle(deals)
    chosen = [(*pair, *next(dealt), "early") for _ in range(3) for pair in itertools.product(WORKLOADS, RATES)]
    random_.shuffle(chosen)
    return chosen[:2] if quick else chosen


def rehearsed(pair: sw.qemu.Pair, bandwidth: float) -> tuple[sw.Trace, float]:
    """The trace of a rehearsal at that speed, without its first pass, and the share of zero pages."""
    first = units.parse_size(MEMORY) / bandwidth
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "pages"
        found = sw.qemu.rehearse(pair.source.monitor, first + WATCHED, bandwidth=bandwidth, log=log)
        trace = sw.Trace.from_stream(log, interval=fidelity.INTERVAL)
    begins = found.report.rounds[0]
    start = min(float(begins["duration"]), trace.duration / 2)
    return trace.cut(start), float(begins["zero_pages"]) / float(begins["sent_pages"])


def recorded(pair: sw.qemu.Pair) -> sw.Trace:
    """The guest's memory in a trace of the whole process, recorded from outside."""
    trace = sw.Trace.record(pid=pair.source.process.pid, duration=WATCHED, interval=fidelity.INTERVAL, samples=0)
    with sw.qemu.Qmp(pair.source.monitor) as qmp:
        listed = qmp.execute("human-monitor-command", {"command-line": "info ramblock"})
    used, begin = next(
        (int(line.split()[4], 0), int(line.split()[6], 0)) for line in listed.splitlines() if "pc.ram" in line
    )
    addresses = json.loads(trace.metadata["addresses"])
    offsets = np.array([(int(str(addresses[name]), 0) - begin) // 4096 for name in trace.blocks])
    rows = trace.rows.copy()
    first = rows["first_page"].astype(np.int64) + offsets[rows["block"]]
    inside = (first >= 0) & (first < used // 4096)
    rows = rows[inside]
    rows["first_page"], rows["block"] = first[inside], 0
    return sw.Trace(rows, {"pc.ram": used // 4096}, trace.interval, trace.intervals)


def one(case: tuple[str, float, str, str, str], seed: int, costs: sw.Costs, binary: str) -> list[Row]:
    """Watches a VM in three ways, migrates it, and predicts that from each."""
    workload, rate, link, policy, clear = case
    plan, judge, speed = sw.PreCopy(clear=clear), POLICIES[policy], sw.Link.of(link).spec()["bandwidth"]
    pattern = WORKLOADS[workload](rate)
    with sw.qemu.Pair(pattern, MEMORY, link=link, binary=binary, accelerator="tcg", seed=seed) as pair:
        outside = recorded(pair)
        half, _ = rehearsed(pair, speed / 2)
        whole, zeros = rehearsed(pair, speed)
        real = pair.migrate("pre-copy", judge, warm_up="500ms", cool_down="0s")
    rows = []
    for source, trace in zip(SOURCES, (whole, half, outside), strict=True):
        starts = [trace.duration * number / 5 for number in range(5)]
        told = fidelity.predict(trace, starts, strategy=plan, policy=judge, link=link, costs=costs, zero_share=zeros)
        rows.append(fidelity.row(case, seed, zeros, told, real=real, trace=trace))
        rows[-1].source = source
    return rows


def fitted(quick: bool, binary: str) -> sw.Costs:
    """What migrations of QEMU cost here beside sending, by runs of their own, of VMs that were rehearsed as the others.

    The first migration of a VM takes longer to set up than the next.
    """
    reports = []
    sizes = ("32MiB",) if quick else ("32MiB", "128MiB") * 2
    for seed, (size, link) in enumerate(itertools.product(sizes, (*LINKS, "200Mbit/s"))):
        guest = W.HotCold(rate="10MB/s")
        with sw.qemu.Pair(guest, size, link=link, binary=binary, accelerator="tcg", seed=seed) as pair:
            sw.qemu.rehearse(pair.source.monitor, "1s", bandwidth="100MB/s")
            reports.append(pair.migrate("pre-copy", "max-rounds:4", warm_up="200ms", cool_down="0s"))
    return sw.Costs.fit(reports)


def tables(rows: list[Row]) -> str:
    """The tables of docs/fidelity.md: all by source, and those of the first source in detail."""
    parts = [fidelity.HEAD.format("predicted from")]
    parts += [fidelity.line(source, [row for row in rows if row.source == source]) for source in SOURCES]
    best = [row for row in rows if row.source == SOURCES[0]]
    return "\n".join([*parts, "", f"From {SOURCES[0]}:", "", fidelity.table(best, KINDS)])


def run(given: argparse.Namespace) -> None:
    """All that is not there yet."""
    given.out.mkdir(parents=True, exist_ok=True)
    kept, data = given.out / "fidelity-qemu.json", given.out / "fidelity-qemu.csv"
    if not kept.exists():
        fitted(given.quick, given.qemu).save(kept)
    costs = sw.Costs.load_file(kept)
    rows = fidelity.load(data) if data.exists() else []
    chosen = cases(given.quick, given.seed)
    for number in range(len(rows) // len(SOURCES), len(chosen)):
        rows.extend(one(chosen[number], given.seed * 1000 + number, costs, given.qemu))
        fidelity.save(data, rows)
        sys.stderr.write(f"\r{number + 1} of {len(chosen)} runs")


def main() -> int:
    """Runs, writes, prints."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="two runs")
    options.add_argument("--table", action="store_true", help="run nothing")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--out", type=Path, default=fidelity.FOLDER)
    options.add_argument("--qemu", default="qemu-system-x86_64", help="of 8.1 or later")
    given = options.parse_args()
    if not given.table:
        run(given)
    text = tables(fidelity.load(given.out / "fidelity-qemu.csv"))
    print(text)
    if given.out == fidelity.FOLDER:
        fidelity.publish(text, MARKS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
