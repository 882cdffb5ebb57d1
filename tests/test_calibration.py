"""Costs: fitted, kept, used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import switchover as sw
from click.testing import CliRunner
from switchover import calibration
from switchover.cli import group

KNOWN = sw.Costs(setup="20ms", setup_per_gib="800ms", load="4ms", resume="1ms", buffer="256KiB")
LINKS = ("200Mbit/s", "500Mbit/s,1ms", "1Gbit/s")


@pytest.fixture(scope="module")
def runs() -> list[sw.Report]:
    """Simulated runs, whose costs are known."""
    traces = [sw.Trace.generate(size, sw.workloads.HotCold(rate="5MB/s"), duration="3s") for size in ("16MiB", "64MiB")]
    return [sw.simulate(trace, sw.PreCopy(), "max-rounds:3", link, costs=KNOWN) for trace in traces for link in LINKS]


def test_a_fit_finds_the_costs_of_runs_whose_costs_are_known(runs: list[sw.Report]) -> None:
    costs = sw.Costs.fit(runs)
    assert costs.setup == pytest.approx(KNOWN.setup, abs=1e-6)
    assert costs.setup_per_gib == pytest.approx(KNOWN.setup_per_gib, rel=1e-6)
    assert costs.buffer == pytest.approx(KNOWN.buffer, rel=0.05)
    # A report of a simulated run has no parts of its blackout, so that it is all load.
    assert costs.load == pytest.approx(KNOWN.load + KNOWN.resume, abs=5e-4)
    assert costs.about == {"world": "sim", "runs": "6", "machine": costs.about["machine"]}
    assert set(costs.errors) == set(costs.spec())


def test_runs_simulated_with_the_fit_are_those_it_was_made_of(runs: list[sw.Report]) -> None:
    trace = sw.Trace.generate("16MiB", sw.workloads.HotCold(rate="5MB/s"), duration="3s")
    again = sw.simulate(trace, sw.PreCopy(), "max-rounds:3", LINKS[0], costs=sw.Costs.fit(runs))
    assert again.blackout == pytest.approx(runs[0].blackout, abs=1e-3)
    assert again.total_time == pytest.approx(runs[0].total_time, rel=0.01)


def test_a_run_that_was_disturbed_moves_nothing(runs: list[sw.Report]) -> None:
    disturbed = json.loads(runs[0].to_json())
    disturbed["setup_time"] += 5
    disturbed["blackout"] += 5
    costs = sw.Costs.fit([*runs, sw.Report(disturbed)])
    assert costs.setup == pytest.approx(KNOWN.setup, abs=1e-3)
    assert costs.load == pytest.approx(KNOWN.load + KNOWN.resume, abs=1e-3)


def test_runs_of_memory_are_fitted() -> None:
    reports = []
    for number, size in enumerate(("4MiB", "8MiB", "4MiB")):
        with sw.Guest(size, sw.workloads.Sweep(rate="5MB/s"), seed=number) as guest:
            plan = {"link": "1Gbit/s", "warm_up": "5ms", "cool_down": "0s"}
            reports.append(sw.migrate(guest, sw.PreCopy(), "max-rounds:2", **plan))
    costs = sw.Costs.fit(reports)
    assert costs.about["world"] == "memory"
    assert costs.setup + costs.setup_per_gib > 0
    assert costs.scan_per_gib > 0
    assert all(np.isfinite(list(costs.errors.values())))


def test_what_cannot_be_used_is_left_out_and_too_little_refused(runs: list[sw.Report]) -> None:
    aborted = json.loads(runs[0].to_json()) | {"outcome": "aborted"}
    unshaped = json.loads(runs[0].to_json())
    unshaped["link"]["bandwidth"] = None
    assert calibration.seen(sw.Report(aborted)) is None
    assert calibration.seen(sw.Report(unshaped)) is None
    with pytest.raises(sw.UsageError, match="2 of 3"):
        sw.Costs.fit([*runs[:2], sw.Report(aborted)])


def test_a_fit_finds_how_long_a_decision_takes() -> None:
    """As in QEMU, which looks at its limit ten times a second."""
    trace = sw.Trace.generate("16MiB", sw.workloads.Uniform(rate="10MB/s"), duration="2s", seed=7)
    slow = sw.Costs(reaction="60ms")
    found = sw.Costs.fit(
        sw.simulate(trace, sw.PreCopy(), "max-rounds:3", link, costs=slow, start=start)
        for link in LINKS
        for start in ("0s", "0.5s")
    )
    assert found.reaction == pytest.approx(slow.reaction, abs=0.01)
    assert sw.simulate(trace, "pre-copy", "max-rounds:3", LINKS[0], costs=slow).data["rounds"][-1]["index"] > 3


def test_a_file_keeps_costs_errors_and_where_they_come_from(runs: list[sw.Report], tmp_path: Path) -> None:
    costs, path = sw.Costs.fit(runs), tmp_path / "costs.json"
    costs.save(path)
    read = sw.Costs.load_file(path)
    assert (read, read.errors, read.about) == (costs, costs.errors, costs.about)
    trace = sw.Trace.generate("4MiB", "sweep:rate=1MB/s", duration="1s")
    given = [sw.simulate(trace, costs=source).to_json() for source in (costs, path, str(path))]
    assert len(set(given)) == 1 != sw.simulate(trace).to_json()


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"switchover.costs": {"schema": 2}}', '{"switchover.costs": {"schema": 1, "costs": {"a": 1}}}'],
)
def test_a_file_that_is_not_one_of_costs_is_refused_by_its_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(text)
    with pytest.raises(sw.UsageError, match=r"wrong\.json"):
        sw.Costs.of(path)
    with pytest.raises(sw.UsageError, match=r"absent\.json"):
        sw.Costs.of(str(tmp_path / "absent.json"))


def test_the_commands_fit_reports_and_use_the_file(runs: list[sw.Report], tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.json" for number in range(len(runs))]
    for file, report in zip(files, runs, strict=True):
        file.write_text(report.to_json())
    costs, trace = tmp_path / "costs.json", tmp_path / "trace.parquet"
    done = CliRunner().invoke(group, ["calibrate", *map(str, files), "-o", str(costs)], standalone_mode=False)
    assert done.exception is None, done.output
    assert "standard error" in done.output
    sw.Trace.generate("4MiB", "sweep:rate=1MB/s", duration="1s").save(trace)
    without, with_costs = (
        CliRunner().invoke(group, ["simulate", str(trace), "--json", *more], standalone_mode=False)
        for more in ([], ["--costs", str(costs)])
    )
    times = [json.loads(run.output)[0]["total_time"] for run in (without, with_costs)]
    assert times[1] > times[0] + float(KNOWN.setup)
