"""The bench of fidelity in its quick form: it runs, and what it predicts is not absurd."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import switchover as sw
from vms.installed import require

BENCH = Path(__file__).resolve().parent.parent / "benches" / "fidelity.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("fidelity", BENCH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["fidelity"] = module
    spec.loader.exec_module(module)
    module.MEMORY, module.RECORDED, module.STARTS = 8 << 20, "200ms", ("0s", "0.1s")
    return module


def test_runs_are_predicted_from_traces_recorded_before_them(bench, tmp_path: Path) -> None:
    given = [("uniform", 5e6, "800Mbit/s", "max-rounds-3", "early"), ("zipf", 5e6, "400Mbit/s", "limit-200ms", "late")]
    rows = [bench.one(case, seed, sw.Costs()) for seed, case in enumerate(given)]
    for row in rows:
        assert row.p_outcome == row.r_outcome == "completed", row
        assert 0.5 < row.p_bytes / row.r_bytes < 2, row
    bench.save(tmp_path / "rows.csv", rows)
    again = bench.load(tmp_path / "rows.csv")
    assert [row.workload for row in again] == ["uniform", "zipf"]
    assert "| all runs | 2 |" in bench.table(again)


def test_what_runs_is_a_hundred_cases_and_more_and_some_are_made_to_fail(bench) -> None:
    cases = bench.cases(quick=False, seed=1)
    assert len(cases) >= 100
    assert {case[0] for case in cases} == set(bench.WORKLOADS)
    assert len(set(cases)) > 90
    assert {case[2:] for case in cases} <= {
        (link, policy, clear) for link in bench.LINKS for policy in bench.POLICIES for clear in bench.CLEAR
    }


def test_the_table_in_the_docs_is_that_of_the_data(bench) -> None:
    text = (BENCH.parent.parent / "docs" / "fidelity.md").read_text()
    for line in bench.table(bench.load(bench.FOLDER / "fidelity.csv")).splitlines():
        assert line in text, line


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_vm_that_was_only_watched_is_predicted_and_then_migrated(tmp_path: Path) -> None:
    command = [sys.executable, BENCH.with_name("fidelity_qemu.py"), "--quick", "--out", tmp_path]
    done = subprocess.run([*command, "--qemu", require("10.0").path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for source in ("a rehearsal at the link's speed", "a rehearsal at half of it", "a recording from outside"):
        assert f"| {source} | 2 |" in done.stdout
    assert sw.Costs.load_file(tmp_path / "fidelity-qemu.json").setup > 0
