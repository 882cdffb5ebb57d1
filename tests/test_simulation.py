"""Simulated migrations."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import switchover as sw

LIBRARY = Path(__file__).resolve().parent.parent / "examples" / "traces"

GUEST = {"duration": "10s", "seed": 5}


@pytest.fixture(scope="module")
def trace() -> sw.Trace:
    return sw.Trace.generate("64MiB", sw.workloads.Zipf(rate="40MB/s"), **GUEST)


def test_a_simulated_run_is_a_function_of_its_inputs(trace: sw.Trace) -> None:
    once = sw.simulate(trace, sw.PreCopy(), sw.policies.DowntimeLimit("50ms"), "1Gbit/s,1ms").to_json()
    code = (
        "import switchover as sw;"
        "t = sw.Trace.generate('64MiB', sw.workloads.Zipf(rate='40MB/s'), duration='10s', seed=5);"
        "print(sw.simulate(t, sw.PreCopy(), sw.policies.DowntimeLimit('50ms'), '1Gbit/s,1ms').to_json())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == once.strip()


def test_policies_of_both_languages_decide_alike(trace: sw.Trace) -> None:
    def mine(round: sw.Round, history: list[sw.Round]) -> sw.Decision:
        fits = round.expected_blackout <= 0.05
        return sw.Decision.switchover("fits") if fits else sw.Decision.proceed()

    native = sw.simulate(trace, "pre-copy", sw.policies.DowntimeLimit("50ms"), "1Gbit/s")
    python = sw.simulate(trace, "pre-copy", mine, "1Gbit/s", shadow=["max-rounds"])
    assert native.outcome == python.outcome == "completed"
    assert (native.total_time, native.sent_bytes) == (python.total_time, python.sent_bytes)


def test_a_policy_that_raises_is_the_cause(trace: sw.Trace) -> None:
    def broken(round: sw.Round, history: list[sw.Round]) -> sw.Decision:
        raise ZeroDivisionError("mine")

    with pytest.raises(sw.PolicyError) as raised:
        sw.simulate(trace, "pre-copy", broken)
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_a_faster_link_helps_and_zero_pages_cost_nothing(trace: sw.Trace) -> None:
    slow = sw.simulate(trace, sw.StopAndCopy(), link="500Mbit/s")
    fast = sw.simulate(trace, sw.StopAndCopy(), link="1Gbit/s")
    zeros = sw.simulate(trace, sw.StopAndCopy(), link="1Gbit/s", zero_share=0.5)
    assert slow.blackout > fast.blackout > zeros.blackout
    assert slow.blackout / fast.blackout == pytest.approx(2, rel=1e-6)


def test_auto_converge_makes_a_guest_converge_that_would_not() -> None:
    trace = sw.Trace.generate("128MiB", sw.workloads.Uniform(rate="200MB/s"), duration="10s")
    never = sw.simulate(trace, "pre-copy", sw.policies.DowntimeLimit("100ms"), "1Gbit/s", longest="2min")
    assert (never.outcome, "never ends" in never.reason) == ("failed", True)
    forced = sw.simulate(trace, "pre-copy", sw.policies.QemuAutoConverge(limit="100ms"), "1Gbit/s")
    assert forced.outcome == "completed"
    assert forced.guest_cost["slowdown"] > 0.1


def test_what_cannot_be_is_refused(trace: sw.Trace) -> None:
    for wrong in ({"link": sw.Link()}, {"start": -1}, {"zero_share": 2}, {"strategy": "pre-copi"}, {"policy": 3}):
        with pytest.raises(sw.UsageError):
            sw.simulate(trace, **wrong)
    with pytest.raises(sw.UsageError, match="no interval"):
        sw.simulate(sw.Trace([], {"ram": 4}, 1))


def test_many_runs_give_what_single_runs_give(trace: sw.Trace) -> None:
    runs = [
        {"policy": sw.policies.DowntimeLimit(f"{limit}ms"), "link": "500Mbit/s", "start": start}
        for limit in (20, 80)
        for start in (0, 1.5)
    ]
    rows = sw.simulate_many(trace, runs)
    for run, row in zip(runs, rows, strict=True):
        report = sw.simulate(trace, **run)
        assert (row["outcome"], row["total_time"], row["blackout"]) == ("completed", report.total_time, report.blackout)
        assert (row["sent_bytes"], row["rounds"]) == (report.sent_bytes, len(report.rounds))
    with pytest.raises(sw.UsageError, match="policy"):
        sw.simulate_many(trace, [{"policy": lambda round, history: sw.Decision.proceed()}])
    assert len(sw.simulate_many(trace, [])) == 0


@pytest.mark.parametrize("clear", ["early", "skip", "late"])
def test_fast_is_near_on_real_traces(clear: str) -> None:
    """Of each trace of the library, over a link that takes some rounds; pages sent within 1 %."""
    for path in sorted(LIBRARY.glob("*.parquet")):
        trace = sw.Trace.load(path)
        link = sw.Link(trace.memory_bytes / 2)
        runs = [
            {"strategy": sw.PreCopy(clear=clear), "policy": "max-rounds:4", "link": link, "start": start}
            for start in (0.0, trace.duration / 3, trace.duration * 0.9)
        ]
        fast, exact = (sw.simulate_many(trace, runs, fast=fast) for fast in (True, False))
        assert (fast["outcome"] == exact["outcome"]).all()
        ratio = fast["sent_bytes"] / exact["sent_bytes"]
        assert (abs(ratio - 1) < 0.01).all(), (path.name, clear, ratio)


def test_fast_refuses_what_takes_pages_and_a_batch_follows_them() -> None:
    trace = sw.Trace.generate("16MiB", sw.workloads.Uniform(rate="5MB/s"), duration="2s")
    report = sw.simulate(trace, sw.PostCopy(), fast=True)
    assert report.outcome == "failed"
    assert "without fast" in report.reason
    runs = [{"strategy": "post-copy"}, {"strategy": "pre-copy"}]
    fast, exact = (sw.simulate_many(trace, runs, fast=fast) for fast in (True, False))
    assert fast[0] == exact[0]
    assert fast["outcome"].tolist() == ["completed", "completed"]


def test_reads_are_an_assumption_that_post_copy_pays_for(trace):
    """A guest that reads waits for what it reads; without post-copy there is nothing to wait for."""
    costs = [
        sw.simulate(trace, "post-copy", link="200Mbit/s,0.5ms", reads=reads).effective_downtime
        for reads in (0.0, (2.0, 0.05), 2.0)
    ]
    assert costs[0] < costs[1] < costs[2]
    plain, reading = (sw.simulate(trace, "pre-copy", "max-rounds:3", "200Mbit/s", reads=reads) for reads in (0.0, 2.0))
    assert plain.total_time == reading.total_time
    with pytest.raises(sw.UsageError, match="over a share of memory above 0"):
        sw.simulate(trace, "post-copy", reads=(1.0, 0.0))
