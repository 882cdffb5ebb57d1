"""Two Dask workers against one, of one core each, on the same candidates: ``python benches/executors.py [PAIRS]``.

In turns, after a first pass in which the workers start and are sent the traces. The target is 1.7 times.
"""

from __future__ import annotations

import statistics
import sys
import time

import distributed
import switchover as sw
from switchover.tuning import Evaluator, Plan

RATES = ("20MB/s", "30MB/s", "40MB/s")


def main(pairs: int = 7) -> None:
    traces = {
        rate: sw.Trace.generate("64MiB", sw.workloads.HotCold(rate=rate), duration="4s", interval="50ms", seed=7)
        for rate in RATES
    }
    limits = [0.01 * 1.03**number for number in range(128)]
    plans = [Plan(sw.PreCopy(), sw.policies.DowntimeLimit(limit), sw.Link("500Mbit/s")) for limit in limits]
    with worked(1) as one, worked(2) as two:
        crews = [Evaluator(traces, 20, client.get_executor()) for client in (one, two)]
        ratios = []
        for number in range(pairs + 1):
            slow, fast = (took(crew, plans) for crew in crews)
            if number:
                ratios.append(slow / fast)
    ratios.sort()
    print(
        f"two Dask workers against one, {pairs} pairs: {statistics.median(ratios):.2f} x "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f}); target 1.7"
    )


def worked(workers: int) -> distributed.Client:
    return distributed.Client(
        n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
    )


def took(crew: Evaluator, plans: list[Plan]) -> float:
    """Seconds."""
    began = time.monotonic()
    crew.run(plans)
    return time.monotonic() - began


if __name__ == "__main__":
    main(*(int(text) for text in sys.argv[1:]))
