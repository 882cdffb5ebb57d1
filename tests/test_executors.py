"""Searches on workers of others: a worker that dies loses nothing, and nothing counts twice."""

import os
import signal
from concurrent.futures import Executor, ProcessPoolExecutor

import pytest
import switchover as sw

distributed = pytest.importorskip("distributed", reason="no Dask here: pip install distributed")

SPACE = {"policy.limit": "5ms..2s:log", "strategy.clear": ["early", "late"]}
GIVEN = {"objectives": ["effective_downtime", "total_time"], "link": "200Mbit/s", "trials": 128, "starts": 6, "seed": 7}


@pytest.fixture(scope="module")
def traces():
    return {
        name: sw.Trace.generate("16MiB", sw.workloads.HotCold(rate=rate), duration="2s", interval="50ms", seed=1)
        for name, rate in (("a", "8MB/s"), ("b", "16MB/s"), ("c", "12MB/s"))
    }


@pytest.fixture
def cluster():
    """Two processes of one thread each, which are started again when they die."""
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": ":0"}
    with distributed.LocalCluster(**options, silence_logs=50) as found, distributed.Client(found) as client:
        yield client


class Killing(Executor):
    """Kills a worker once it was given so many tasks, while there are more to do."""

    def __init__(self, inner: Executor, victim: int, after: int) -> None:
        self.inner, self.victim, self.left = inner, victim, after

    def submit(self, function, /, *args, **kwargs):
        self.left -= 1
        if self.left == 0:
            os.kill(self.victim, signal.SIGKILL)
        return self.inner.submit(function, *args, **kwargs)


def verdicts(found):
    return [(one.values, one.scores, one.met) for one in found.candidates]


def test_a_search_goes_on_when_a_worker_of_dask_is_killed(traces, cluster):
    pids = cluster.run(os.getpid)
    executor = Killing(cluster.get_executor(), next(iter(pids.values())), after=20)
    found = sw.tune(traces, SPACE, executor=executor, **GIVEN)
    assert executor.left < 0
    here = sw.tune(traces, SPACE, **GIVEN)
    assert verdicts(found) == verdicts(here)
    assert [str(each) for each in found.evidence] == [str(each) for each in here.evidence]
    assert set(cluster.run(os.getpid).values()) != set(pids.values())


def test_a_trace_travels_once_for_each_worker(traces, cluster):
    evaluator = sw.tuning.Evaluator(traces, 6, cluster.get_executor())
    plan = sw.tuning.Plan(sw.PreCopy(), sw.policies.DowntimeLimit(), sw.Link("200Mbit/s"))
    for _ in range(3):
        evaluator.run([plan] * 160)
    # Twice each; where it lands is the executor's choice, so that some come to a worker that has it. Of 90 tasks.
    assert len(traces) <= evaluator.carried <= 4 * len(traces)


def test_a_pool_that_loses_a_worker_says_how_to_go_on(traces):
    with ProcessPoolExecutor(1) as pool:
        executor = Killing(pool, pool.submit(os.getpid).result(), after=2)
        with pytest.raises(sw.SwitchoverError, match=r"lost a worker.*study=FILE goes on"):
            sw.tune(traces, SPACE, executor=executor, **GIVEN)
