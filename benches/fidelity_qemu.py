"""How far the simulator is from what happens to real VMs: rehearsed, predicted, and only then migrated.

``python benches/fidelity_qemu.py [--quick] [--seed N] [--out FOLDER] [--qemu BINARY]``

Writes `fidelity-qemu.csv`, a row a run, and `fidelity-qemu.json`, the costs that were fitted, into docs/data, and the
tables into docs/fidelity.md. Each run starts a pair of QEMUs with a guest of ours. The prediction is the median of
simulations from several moments of the trace that a rehearsal made. A bench that was ended goes on where it was;
``--table`` runs nothing. QEMU 8.1 or later.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
from pathlib import Path

import fidelity
import switchover as sw
from fidelity import POLICIES, Row

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


def rehearsed(pair: sw.qemu.Pair, link: str) -> tuple[sw.Trace, float]:
    """The trace of a rehearsal at half the link's speed without its first pass, and the share of zero pages."""
    cap = sw.Link.of(link).spec()["bandwidth"] / 2
    first = int(MEMORY.removesuffix("MiB")) * 2**20 / cap
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "pages"
        found = sw.qemu.rehearse(pair.source.monitor, first + WATCHED, bandwidth=cap, log=log)
        trace = sw.Trace.from_stream(log, interval=fidelity.INTERVAL)
    begins = found.report.rounds[0]
    start = min(float(begins["duration"]), trace.duration / 2)
    return trace.cut(start), float(begins["zero_pages"]) / float(begins["sent_pages"])


def one(case: tuple[str, float, str, str, str], seed: int, costs: sw.Costs, binary: str) -> Row:
    """Rehearses a VM, migrates it, and predicts that from the rehearsal."""
    workload, rate, link, policy, clear = case
    plan, judge = sw.PreCopy(clear=clear), POLICIES[policy]
    pattern = WORKLOADS[workload](rate)
    with sw.qemu.Pair(pattern, MEMORY, link=link, binary=binary, accelerator="tcg", seed=seed) as pair:
        trace, zeros = rehearsed(pair, link)
        real = pair.migrate("pre-copy", judge, warm_up="500ms", cool_down="0s")
    starts = [trace.duration * number / 5 for number in range(5)]
    predicted = fidelity.predict(trace, starts, strategy=plan, policy=judge, link=link, costs=costs, zero_share=zeros)
    return fidelity.row(case, seed, zeros, predicted, real=real, trace=trace)


def fitted(quick: bool, binary: str) -> sw.Costs:
    """What migrations of QEMU cost here beside sending, by runs of their own."""
    reports = []
    for seed, (size, link) in enumerate(itertools.product(("32MiB", "128MiB"), (*LINKS, "200Mbit/s"))):
        if quick and size == "128MiB":
            break
        guest = W.HotCold(rate="10MB/s")
        with sw.qemu.Pair(guest, size, link=link, binary=binary, accelerator="tcg", seed=seed) as pair:
            reports.append(pair.migrate("pre-copy", "max-rounds:4", warm_up="200ms", cool_down="0s"))
    return sw.Costs.fit(reports)


def tables(rows: list[Row]) -> str:
    """The tables of docs/fidelity.md."""
    return fidelity.table(rows, KINDS)


def run(given: argparse.Namespace) -> None:
    """All that is not there yet."""
    given.out.mkdir(parents=True, exist_ok=True)
    kept, data = given.out / "fidelity-qemu.json", given.out / "fidelity-qemu.csv"
    if not kept.exists():
        fitted(given.quick, given.qemu).save(kept)
    costs = sw.Costs.load_file(kept)
    rows = fidelity.load(data) if data.exists() else []
    chosen = cases(given.quick, given.seed)
    for number in range(len(rows), len(chosen)):
        rows.append(one(chosen[number], given.seed * 1000 + number, costs, given.qemu))
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
