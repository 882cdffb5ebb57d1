"""Examples, small."""

import re
import subprocess
import sys
from importlib import util
from pathlib import Path

import pytest
import switchover as sw
from vms.installed import require

ROOT = Path(__file__).parent.parent


def load(name):
    spec = util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_a_guest_that_never_converges_under_many_policies(tmp_path):
    example = load("never_converges")
    done = dict(example.runs(example.QUICK, lambda name, report: None))
    assert len(done) >= 8
    # Whether it converges hangs on how busy this machine is; it holds nobody back in any case.
    assert done["QEMU default"].guest_cost["held_time"] == 0
    ended = {name for name, report in done.items() if report.outcome == "completed"}
    throttled = {"QEMU auto-converge", "QEMU auto-converge, tail-slow", "vMotion SDPS"}
    assert throttled <= ended
    for name in throttled:
        assert done[name].guest_cost["held_time"] > 0
    for name in ended:
        assert done[name].verified is True
        # A machine so busy that the guest did nothing in its warm-up leaves nothing to compare with.
        if done[name].brownout is not None:
            assert done[name].effective_downtime >= done[name].blackout
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- never-converges -->\nold\n<!-- /never-converges -->\nafter\n")
    example.write(page, example.table(list(done.items())))
    lines = page.read_text().splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("before", "after", len(done) + 6)


def test_the_page_shows_its_output():
    """Every policy of the example has its line in the documentation."""
    example = load("never_converges")
    page = (ROOT / "docs" / "throttling.md").read_text()
    shown = re.search(r"<!-- never-converges -->\n(.*?)<!-- /never-converges -->", page, re.DOTALL).group(1)
    assert shown.startswith(example.HEAD)
    for name in example.plans(example.FULL):
        assert f"| {name} |" in shown


def test_a_real_redis_under_eight_policies():
    example = load("redis")
    trace = sw.Trace.load(example.TRACE)
    found = example.outcomes(trace)
    assert len(found) == 8
    done = [name for name, rows in found.items() if (rows["outcome"] == "completed").all()]
    assert len(done) >= 4
    # The page in the docs is what the command prints of the trace in the repository.
    assert (ROOT / "docs" / "redis.md").read_text() == example.page(trace)


def test_the_library_of_traces_is_whole_small_and_says_how_it_was_made():
    folder = ROOT / "examples" / "traces"
    files = sorted(folder.glob("*.parquet"))
    assert [file.stem for file in files] == ["gcc", "idle-python", "numpy", "postgres", "redis", "sqlite", "stress-ng"]
    assert sum(file.stat().st_size for file in files) < 2_000_000
    for file in files:
        trace = sw.Trace.load(file)
        assert trace.intervals >= 10
        assert f"record-library.py {file.stem}" in trace.metadata["how"]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", ["one_policy_two_worlds", "qemu_post_copy"])
def test_policies_of_ones_own_on_real_qemu(name):
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), require("10.0").path]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200)
    said = {"one_policy_two_worlds": "qemu: switched over", "qemu_post_copy": "post_copy, since"}
    assert said[name] in done.stdout
