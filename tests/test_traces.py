"""Traces out of traces, phases, charts, and the commands for them."""

import json

import numpy as np
import pytest
import switchover as sw
from hypothesis import given, settings
from hypothesis import strategies as st
from switchover import samples
from switchover.cli import group


def written(trace):
    """Every page written in every interval: what a trace means."""
    names = list(trace.blocks)
    return {
        (interval, names[block], page)
        for interval, block, first, pages in trace.rows.tolist()
        for page in range(first, first + pages)
    }


@st.composite
def traces(draw):
    cells = draw(st.sets(st.tuples(st.integers(0, 11), st.integers(0, 1), st.integers(0, 19)), max_size=60))
    return sw.Trace([(i, b, p, 1) for i, b, p in sorted(cells)], {"a": 20, "b": 20}, "100ms", 12)


@given(trace=traces(), start=st.integers(0, 11), length=st.integers(1, 12))
@settings(deadline=None)
def test_a_cut_is_the_part(trace, start, length):
    part = trace.cut(start * 0.1, (start + length) * 0.1)
    end = min(12, start + length)
    assert part.intervals == end - start
    assert written(part) == {(i - start, b, p) for i, b, p in written(trace) if start <= i < end}


@given(one=traces(), two=traces())
@settings(deadline=None)
def test_merging_beside_and_after(one, two):
    beside = sw.Trace.merge([one, two])
    assert written(beside) == {
        (i, f"{number}:{b}", p) for number, trace in enumerate((one, two)) for i, b, p in written(trace)
    }
    after = sw.Trace.merge([one, two], one_after_another=True)
    assert written(after) == written(one) | {(i + 12, b, p) for i, b, p in written(two)}
    assert after.duration == pytest.approx(2.4)


@given(trace=traces(), factor=st.integers(1, 5), memory=st.integers(1, 3))
@settings(deadline=None)
def test_scaling_time_memory_and_intervals(trace, factor, memory):
    scaled = trace.scale(speed=2, memory=memory, interval=0.05 * factor)
    assert scaled.intervals == -(-12 // factor)
    wanted = {(i // factor, b, p * memory + k) for i, b, p in written(trace) for k in range(memory)}
    assert written(scaled) == wanted
    assert scaled.blocks == {"a": 20 * memory, "b": 20 * memory}


def test_samples_follow_cuts_and_joins():
    trace = sw.Trace([(i, 0, 0, 1) for i in range(10)], {"a": 4}, 1.0)
    trace.samples = samples.of_records([dict.fromkeys(samples.SAMPLE.names, 1) | {"interval": i} for i in range(10)])
    assert trace.cut(3, 6).samples["interval"].tolist() == [0, 1, 2]
    assert len(sw.Trace.merge([trace, trace], one_after_another=True).samples) == 20
    assert samples.shares(trace.samples)["zero"] == 1.0


def test_intervals_that_do_not_fit_are_refused():
    trace = sw.Trace([(0, 0, 0, 1)], {"a": 4}, "100ms")
    for wrong in ({"interval": "150ms"}, {"interval": "50ms"}, {"speed": 0}, {"memory": 0}):
        with pytest.raises(sw.UsageError):
            trace.scale(**wrong)
    with pytest.raises(sw.UsageError, match="nothing is left"):
        trace.cut("5s")


def test_phases_are_found_where_the_rate_changes():
    numbers = np.random.default_rng(5)
    counts = [int(numbers.poisson(mean)) + 1 for mean in [20] * 40 + [200] * 30 + [60] * 30]
    trace = sw.Trace([(i, 0, 0, pages) for i, pages in enumerate(counts)], {"a": 1000}, "100ms")
    assert [round(phase.start, 3) for phase in trace.phases()] == [0.0, 4.0, 7.0]
    steady = sw.Trace([(i, 0, 0, 50) for i in range(100)], {"a": 1000}, "100ms")
    assert len(steady.phases()) == 1
    assert sw.Trace([], {"a": 1}, 1.0).phases() == []


@pytest.fixture
def call(capsys):
    """A command in this process: what it prints."""

    def call(*arguments):
        group.main([str(word) for word in arguments], standalone_mode=False)
        return capsys.readouterr().out

    return call


@pytest.fixture
def file(tmp_path):
    trace = sw.Trace.generate("64MiB", sw.workloads.HotCold(rate="40MB/s"), duration="5s", seed=1)
    trace.save(tmp_path / "t.parquet")
    return str(tmp_path / "t.parquet")


def test_info_and_plot(file, call):
    text = call("trace", "info", file)
    assert "working set" in text
    assert "phases" in text
    found = json.loads(call("trace", "info", file, "--json"))
    assert found["intervals"] == 50
    assert found["working_set"][-1]["bytes"] <= 64 << 20
    drawn = call("trace", "plot", file)
    assert all(title in drawn for title in ("dirty rate", "distinct memory", "pages written"))
    assert len(json.loads(call("trace", "plot", file, "--json"))["dirty_rate"]) == 50


def test_cut_merge_and_scale(file, tmp_path, call):
    out = str(tmp_path / "out.parquet")
    call("trace", "cut", file, "--start", "1s", "--end", "3s", "-o", out)
    assert sw.Trace.load(out).duration == pytest.approx(2)
    call("trace", "merge", out, out, "--after", "-o", out)
    assert sw.Trace.load(out).duration == pytest.approx(4)
    call("trace", "scale", out, "--memory", "2", "--speed", "2", "-o", out)
    assert sw.Trace.load(out).memory_bytes == 128 << 20
    assert len(json.loads(sw.Trace.load(out).metadata["edits"])) == 3


def test_bad_input_is_said(tmp_path, file, call):
    (tmp_path / "x").write_text("nonsense")
    out = tmp_path / "y"
    for arguments, expected in [
        (["trace", "info", tmp_path / "x"], "not a trace"),
        (["trace", "cut", file, "--start", "9s", "-o", out], "nothing is left"),
        (["record", "--pid", 2**22 + 1, "-o", out], "no process|not available"),
        (["record", "--pid", 1, "-o", tmp_path / "no" / "y"], "folder"),
    ]:
        with pytest.raises(sw.SwitchoverError, match=expected):
            call(*arguments)
    assert not out.exists()
