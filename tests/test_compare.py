"""Comparisons: statistics, ranks, folders that survive a kill, suites, the regression gate."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys

import pyarrow.parquet
import pytest
import switchover as sw
from hypothesis import given, settings
from hypothesis import strategies as st
from switchover.comparison import Folder, Run, Table, estimate, gate
from switchover.comparison.bench import WARM_UP, turns
from switchover.comparison.case import cases, named
from switchover.comparison.source import Source, sources
from switchover.comparison.suite import Suite
from vms.installed import require

TRACE = {"duration": "5s", "seed": 5}


@pytest.fixture(scope="module")
def trace() -> sw.Trace:
    return sw.Trace.generate("32MiB", sw.workloads.HotCold(rate="30MB/s"), **TRACE)


@pytest.fixture(scope="module")
def report(trace) -> dict:
    return sw.simulate(trace, link="500Mbit/s").data


def run_of(report: dict, policy: str, repeat: int, blackout: float | None, arm: str = "case") -> Run:
    """A run with this blackout; `None` did not complete."""
    outcome = "aborted" if blackout is None else "completed"
    names = {"guest": "g", "strategy": "s", "policy": policy, "link": "l", "world": "sim"}
    return Run(
        {
            "schema": 1,
            "version": "0",
            "case": policy,
            "names": names,
            "spec": {},
            "arm": arm,
            "repeat": repeat,
            "began": "",
            "metrics": {"blackout": blackout},
            "report": {**report, "outcome": outcome},
        }
    )


def table_of(report: dict, again: list[float] | None = None, **policies: list[float | None]) -> Table:
    runs = [run_of(report, name, n, value) for name, values in policies.items() for n, value in enumerate(values)]
    first = next(iter(policies))
    return Table(runs + [run_of(report, first, n, value, "again") for n, value in enumerate(again or [])])


def ranks(table: Table) -> list[tuple[int, bool]]:
    return [table.rank(row, "blackout") for row in table.rows]


def test_intervals_that_overlap_are_not_ranked(report):
    apart = table_of(report, a=[1, 1.1, 1.2, 1.1, 1], b=[2, 2.1, 2.2, 2.1, 2], c=[3, 3.1, 3.2, 3.1, 3])
    assert ranks(apart) == [(1, False), (2, False), (3, False)]
    overlapping = table_of(report, a=[1, 1.1, 1.2, 1.1, 2.05], b=[2, 2.1, 2.2, 2.1, 2], c=[3, 3.1, 3.2, 3.1, 3])
    assert ranks(overlapping) == [(1, True), (1, True), (3, False)]
    assert [row.case for row in overlapping.best("blackout")] == ["a", "b"]


def test_what_is_below_the_noise_floor_is_not_ranked(report):
    policies = {"a": [1, 1.01, 1.02, 1.01, 1], "b": [1.1, 1.11, 1.12, 1.11, 1.1]}
    assert ranks(table_of(report, [1, 1.01, 1.02, 1.01, 1], **policies)) == [(1, False), (2, False)]
    noisy = table_of(report, [1.3, 1.3, 1.3, 1.3, 1.3], **policies)
    assert noisy.noise(("g", "l", "sim"), "blackout") == pytest.approx(0.23, abs=0.02)
    assert ranks(noisy) == [(1, True), (1, True)]


def test_too_few_runs_are_not_ranked_and_failed_runs_are_worst(report):
    assert ranks(table_of(report, a=[1] * 4, b=[2] * 4)) == [(1, True), (1, True)]
    failing = table_of(report, a=[None] * 5, b=[2] * 5)
    assert ranks(failing) == [(2, False), (1, False)]
    assert "never" in str(failing)
    assert "0/5" in str(failing)
    assert json.loads(failing.to_json())["rows"][0]["metrics"]["blackout"]["median"] is None


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1e6) | st.just(math.inf), min_size=1, max_size=12))
def test_an_interval_holds_the_median_and_lies_within_the_runs(values):
    found = estimate.median(values)
    assert found.low <= found.median <= found.high
    if len(values) >= estimate.LEAST_RUNS:
        assert min(values) <= found.low
        assert found.high <= max(values)
    else:
        assert (found.low, found.high) == (-math.inf, math.inf)
    assert estimate.median(values) == found


def test_the_interval_covers_the_true_median_as_often_as_it_says():
    import numpy as np

    rng = np.random.default_rng(11)
    inside = [e.low <= 1.0 <= e.high for e in (estimate.median(rng.lognormal(0, 0.5, 9).tolist()) for _ in range(200))]
    assert 0.9 <= np.mean(inside) <= 1.0


def test_runs_are_interleaved_and_warmed_up(trace):
    moves = {name: sw.strategies.parse(name) for name in ("pre-copy", "stop-and-copy", "post-copy")}
    rules, links = {"p": sw.policies.DowntimeLimit()}, {"l": sw.Link("1Gbit/s")}
    source = Source("g", {"memory": "1MiB", "workload": "sweep:rate=1MB/s"})
    order = turns(cases([source], moves, rules, links, worlds=["memory", "sim"], options={}), 5, seed=1)
    assert order == turns(cases([source], moves, rules, links, worlds=["memory", "sim"], options={}), 5, seed=1)
    assert [turn.repeat for turn in order] == sorted(turn.repeat for turn in order)
    assert {turn.case.world for turn in order if turn.repeat == WARM_UP} == {"memory"}
    firsts = {tuple(turn.case.key for turn in order if turn.repeat == repeat) for repeat in range(5)}
    assert len(firsts) > 1
    assert sum(turn.arm == "again" for turn in order) == 2 * 5
    assert len({turn.id for turn in order}) == len(order)


def test_memory_and_simulation_side_by_side(tmp_path):
    guests = {"small": sw.Guest("4MiB", sw.workloads.Uniform(rate="5MB/s"), seed=3)}
    table = sw.compare(guests, "pre-copy", "1Gbit/s", warm_up="5ms", folder=tmp_path, longest="20s")
    assert [(row.names["world"], row.completed, len(row.runs)) for row in table.rows] == [
        ("memory", 5, 5),
        ("sim", 5, 5),
    ]
    assert table.noise(("small", "1Gbit/s", "memory"), "total_time") > 0
    assert {run.report.data["world"] for run in table.runs} == {"memory", "sim"}
    assert table.rows[0].report.outcome == "completed"
    assert sorted(str(Table.load(tmp_path)).splitlines()) == sorted(str(table).splitlines())


def test_guests_of_every_kind_are_made_anew(trace):
    def counter(memory):
        memory[:8].view("uint64")[0] += 1

    def mine() -> sw.Guest:
        return sw.Guest("1MiB", counter)

    found = sources({"pattern": sw.Guest("1MiB", "sweep"), "dict": {"memory": "1MiB"}, "mine": mine, "trace": trace})
    assert [source.worlds for source in found] == [("memory", "sim")] * 3 + [("sim",)]
    assert Source("a VM", {"memory": "64MiB", "workload": "idle"}).worlds == ("memory", "sim", "qemu")
    for source in found[:3]:
        with source.make() as one, source.make() as other:
            assert one is not other
            assert one.spec == other.spec
    with pytest.raises(sw.UsageError, match="give a function"):
        sources(sw.Guest("1MiB", counter))
    with pytest.raises(sw.UsageError, match="no Guest"):
        sources({"x": lambda: 3})
    assert [source.name for source in sources([trace, trace])] == ["trace of 32 MiB (1)", "trace of 32 MiB (2)"]


def test_what_cannot_be_compared_is_refused(trace):
    with pytest.raises(sw.UsageError, match="repeats must be 5 or more"):
        sw.compare(trace, repeats=4)
    with pytest.raises(sw.UsageError, match="memory, sim"):
        sw.compare(trace, worlds=["moon"])
    with pytest.raises(sw.UsageError, match="nothing is left"):
        sw.compare(trace, codecs=["xbzrle"])
    with pytest.raises(sw.UsageError, match="at least one"):
        sw.compare(trace, strategies=[])
    assert list(named([sw.Link("1Gbit/s"), "10Gbit/s"], sw.Link.of, "links")) == ["Link('125 MB/s')", "10Gbit/s"]


KILLED = """
import os, signal, sys, switchover as sw
calls, sync = [], os.fsync
def fsync(file):
    calls.append(file)
    if len(calls) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    sync(file)
os.fsync = fsync
trace = sw.Trace.generate("32MiB", sw.workloads.HotCold(rate="30MB/s"), duration="5s", seed=5)
sw.compare(trace, ["pre-copy", "post-copy"], "500Mbit/s", policies=["downtime-limit:20ms"], folder=sys.argv[1])
"""


@pytest.mark.parametrize(
    ("calls", "runs"), [(15, 7), (16, 8), (31, 15)], ids=["before a rename", "after a rename", "in the Parquet part"]
)
def test_a_killed_comparison_is_gone_on_with(trace, tmp_path, calls, runs):
    """Each run is synchronised twice, the file and its folder: the kill comes in the middle of writing."""
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(calls)], check=False)
    assert killed.returncode == -signal.SIGKILL
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*.json")}
    assert len(before) == runs
    assert len(list(tmp_path.glob("*/*.tmp"))) == (0 if calls % 2 == 0 else 1)

    made = []
    arguments = {"policies": ["downtime-limit:20ms"], "folder": tmp_path}
    table = sw.compare(
        trace, ["pre-copy", "post-copy"], "500Mbit/s", on_run=lambda *told: made.append(told), **arguments
    )
    assert len(made) == 15 - runs
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}
    assert len(after) == 15
    assert before.items() <= after.items()
    assert str(sw.compare(trace, ["pre-copy", "post-copy"], "500Mbit/s", **arguments)) == str(table)
    ids = [run for part in (tmp_path / "table").iterdir() for run in pyarrow.parquet.read_table(part)["id"].to_pylist()]
    assert sorted(ids) == sorted(run.id for run in table.runs)


def test_one_session_at_a_time_writes_to_a_folder(tmp_path, trace):
    with Folder(tmp_path), pytest.raises(sw.UsageError, match="another comparison"):
        sw.compare(trace, folder=tmp_path)
    with pytest.raises(sw.UsageError, match="no results"):
        Table.load(tmp_path)
    (tmp_path / "runs" / "x.json").write_text('{"schema": 1}')
    with pytest.raises(sw.UsageError, match=r"x\.json: not a run"):
        Table.load(tmp_path)
    (tmp_path / "runs" / "x.json").write_text('{"schema": 9}')
    with pytest.raises(sw.UsageError, match="schema 9"):
        Table.load(tmp_path)


SUITE = """
repeats = 5
worlds = ["sim"]
policies = { mine = "downtime-limit:LIMIT" }
strategies = ["pre-copy"]
links = ["500Mbit/s"]
[guests.store]
memory = "32MiB"
workload = "hot-cold:rate=40MB/s"
"""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("repeats = 3\n[guests.a]\nmemory='1MiB'", ["repeats", "5"]),
        ("[guests.a]\nmemori='1MiB'", ["guests.a.memori", "there are: memory, workload"]),
        ("[guests.a]\nmemory='much'", ["guests.a.memory", "much", "GiB"]),
        ("[guests.a]\nmemory='1MiB'\nworkload='zipp'", ["guests.a.workload.0", "zipf", "sweep"]),
        ("policies=['patience']\n[guests.a]\nmemory='1MiB'", ["policies.patience", "downtime-limit, max-rounds"]),
        ("strategies='warp'\n[guests.a]\nmemory='1MiB'", ["strategies.warp", "pre-copy, stop-and-copy"]),
        ("worlds=['moon']\n[guests.a]\nmemory='1MiB'", ["worlds.0", "'memory', 'sim' or 'qemu'"]),
        ("links=['fast']\n[guests.a]\nmemory='1MiB'", ["links.fast", "Gbit/s"]),
        ("codecs=['gzip']\n[guests.a]\nmemory='1MiB'", ["codecs.0", "gzip"]),
        ("retries=3\n[guests.a]\nmemory='1MiB'", ["retries", "there are: guests, strategies"]),
        ("repeats=5", ["guests", "missing"]),
        ("[guests.a]\nseed=1", ["guests.a", "either memory"]),
        ("guests = 3 4", ["not TOML", "line 1"]),
    ],
)
def test_a_wrong_suite_is_told_by_file_key_and_choices(tmp_path, text, told):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(sw.UsageError) as raised:
        Suite.load(path)
    assert str(raised.value).startswith(f"{path}: ")
    for part in told:
        assert part in str(raised.value)


def command(*arguments: object, code: int = 0) -> str:
    line = [sys.executable, "-m", "switchover", "compare", *map(str, arguments)]
    done = subprocess.run(
        line, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "COLUMNS": "200"}
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_gate_fails_a_regression_put_in_on_purpose(tmp_path):
    """The same suite before and after a policy became lax; and once more with nothing changed."""
    for name, limit in (("base", "20ms"), ("same", "20ms"), ("worse", "400ms")):
        suite = tmp_path / f"{name}.toml"
        suite.write_text(SUITE.replace("LIMIT", limit))
        found, beside = Suite.load(suite)
        found.run(beside, tmp_path / name)
    assert "20/20" in command(suite, "-o", tmp_path / "worse", "--repeats", 10)
    same = Table.load(tmp_path / "same").against(Table.load(tmp_path / "base"), "5%")
    assert (same.passed, len(same.findings)) == (True, 5)
    told = command("--base", tmp_path / "base", "--head", tmp_path / "worse", "--fail-over", "5%", code=1)
    assert "store, pre-copy, mine, 500Mbit/s, sim: blackout" in told
    assert Table.load(tmp_path / "base").against(Table.load(tmp_path / "worse"), metrics=["blackout"]).passed
    assert "--base" in command("--head", tmp_path / "base", code=2)
    with pytest.raises(sw.UsageError, match="no metric is called 'speed'"):
        same = Table.load(tmp_path / "same").against(Table.load(tmp_path / "base"), metrics=["speed"])


def test_the_gate_asks_for_more_than_noise_and_for_completion(report):
    base = table_of(report, a=[1, 1.01, 1.02, 1.03, 1.04])
    slower = table_of(report, a=[1.1, 1.11, 1.12, 1.13, 1.14])
    unsure = table_of(report, a=[0.9, 1.0, 1.1, 1.2, 1.3])
    noisy = table_of(report, [1.3] * 5, a=[1.1, 1.11, 1.12, 1.13, 1.14])
    metrics = ("blackout",)
    assert not gate(base, slower, "5%", metrics).passed
    assert gate(base, slower, "20%", metrics).passed
    assert gate(base, unsure, "5%", metrics).passed
    assert gate(base, noisy, "5%", metrics).passed
    failing = gate(base, table_of(report, a=[None] * 5), "5%", metrics)
    assert {finding.metric for finding in failing.failures} == {"completed", "blackout"}
    missing = gate(table_of(report, a=[1] * 5, b=[1] * 5), base, "5%", metrics)
    assert "b, l, sim: not in head" in str(missing)
    with pytest.raises(sw.UsageError, match="no case in common"):
        gate(base, table_of(report, z=[1] * 5))


@pytest.mark.timeout(240)
def test_a_vm_is_one_of_the_worlds(tmp_path):
    guest = {"memory": "32MiB", "workload": "hot-cold:rate=10MB/s", "seed": 3}
    moves = {"plain": "pre-copy", "late": "pre-copy:clear=late"}
    options = {"worlds": ["sim", "qemu"], "qemu": require("10.0").path, "warm_up": "200ms", "verify": True}
    table = sw.compare(guest, moves, "400Mbit/s", policies="downtime-limit:100ms", folder=tmp_path, **options)
    # QEMU has its own way of clearing, which cannot be chosen.
    assert [(row.names["strategy"], row.names["world"]) for row in table.rows] == [
        ("plain", "sim"),
        ("late", "sim"),
        ("plain", "qemu"),
    ]
    real = table.rows[2]
    assert real.completed == len(real.runs) == 5
    assert all(run.report.data["qemu"]["versions"]["source"].startswith("10.") for run in real.runs)
    assert all(run.report.data["qemu"]["guest_check"] > 0 for run in real.runs)
    assert len(Folder(tmp_path).runs()) == len(table.runs)


def test_what_runs_in_no_vm_is_refused_with_the_reason(trace):
    options = {"worlds": ["sim", "qemu"], "qemu": require("10.0").path}
    with pytest.raises(sw.UsageError, match=r"nothing is left to compare in QEMU: a trace is only simulated"):
        sw.compare(trace, **options)
    with pytest.raises(sw.UsageError, match=r"in QEMU: the guest of a VM runs patterns \(.*\), not kv"):
        sw.compare({"memory": "64MiB", "workload": "kv"}, **options)
    guest = {"memory": "64MiB", "workload": "idle"}
    with pytest.raises(sw.UsageError, match=r"QEMU has its own clear, which cannot be chosen"):
        sw.compare(guest, sw.PreCopy(clear="late"), **options)
    with pytest.raises(sw.UsageError, match=r"in QEMU: the guest of a VM has one workload"):
        sw.compare({"memory": "64MiB", "workload": ["idle", "idle"]}, **options)
