"""How long a tune takes: candidates judged over many start times of a large guest's trace.

python benches/tune.py [CANDIDATES] [STARTS] [RUNS]
"""

from __future__ import annotations

import statistics
import sys
import time

import switchover as sw

SPACE = {"policy.limit": "20ms..2s:log", "strategy.clear": ["early", "skip", "late"]}


def main(candidates: int = 2000, starts: int = 20, runs: int = 3) -> None:
    """A guest of 16 GiB over 10 Gbit/s; half of its trace is held out."""
    workload = sw.workloads.HotCold(rate="600MB/s")
    trace = sw.Trace.generate("16GiB", workload, duration="60s", interval="100ms", seed=7)
    took = []
    for seed in range(runs):
        began = time.monotonic()
        sw.tune(
            trace,
            SPACE,
            "effective_downtime",
            ["completed"],
            "10Gbit/s,0.5ms",
            trials=candidates,
            starts=starts,
            seed=seed,
        )
        took.append(time.monotonic() - began)
    spread = f"{min(took):.1f} to {max(took):.1f}"
    print(f"{candidates} candidates x {starts} starts of 16 GiB: {statistics.median(took):.1f} s ({spread}); target 60")


if __name__ == "__main__":
    main(*(int(text) for text in sys.argv[1:]))
