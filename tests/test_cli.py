"""The command line, as a user meets it: in a process of its own."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import switchover as sw

COMMAND = [sys.executable, "-m", "switchover"]
SMALL = ["--memory", "16MiB", "--workload", "sweep:rate=20MB/s", "--warm-up", "10ms"]


def call(*arguments, code=0):
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def complaint(*arguments, code=2):
    """The one line that a refused command prints."""
    done = call(*arguments, code=code)
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


def test_run_prints_rounds_and_a_table():
    done = call("run", *SMALL, "--strategy", "precopy", "--policy", "max-rounds:3", "--verify")
    assert re.search(r"round   2 .* -> switch_?over", done.stdout)
    assert "tracked by" in done.stdout
    assert "yes" in done.stdout


def test_run_writes_the_report_that_it_prints_as_json(tmp_path):
    path = tmp_path / "report.json"
    done = call("run", *SMALL, "--verify", "--json", "-o", str(path))
    report = sw.Report.from_json(done.stdout)
    assert report == sw.Report.from_json(path.read_text())
    assert (report.outcome, report.verified) == ("completed", True)


def test_policies_take_knobs_and_their_listing_has_units_and_defaults():
    done = call("run", *SMALL, "--policy", "qemu-auto-converge:limit=2s,tail_slow=true", "--json")
    assert json.loads(done.stdout)["policy"] == {"name": "qemu-auto-converge", "limit": 2.0, "tail_slow": True}
    listed = {part["name"]: part for part in json.loads(call("policies", "--json").stdout)}
    assert list(listed) == sw.policies.names()
    for part in listed.values():
        assert part["doc"]
        for knob in part["knobs"]:
            assert knob["doc"]
            assert {"unit", "range", "default"} <= set(knob)
    shown = " ".join(call("policies").stdout.split())
    for name, part in listed.items():
        assert name in shown
        assert all(knob["name"] in shown for knob in part["knobs"])
    assert "limit (0.3 s)" in shown


def test_shadow_policies_are_told_of():
    done = call("run", *SMALL, "--policy", "max-rounds:3", "--shadow", "max-rounds:1")
    assert "would have said" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "--workload", "zipp"], "no workload is called `zipp`; did you mean `zipf`?"),
        (["run", "--workload", "zipf:rat=3"], "did you mean `rate`?"),
        (["run", "--policy", "downtime-limit:soon"], "soon"),
        (["run", "--memory", "0"], "too small"),
        (["run", "--memory", "900TiB"], "more than this machine has"),
        (["run", "--memory", "lots"], "lots"),
        (["run", "--link", "fast"], "fast"),
        (["run", "--channels", "0"], "channels"),
        (["run", "--tracker", "magic"], "no tracker is called `magic`"),
        (["run", "--strategy", "pre-copy:clear=often"], "early, skip or late"),
        (["run", "--codec", "gzip"], "no codec is called `gzip`"),
        (["run", "--nonsense"], "--nonsense"),
        (["fly"], "fly"),
        (["receive", "--listen", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, expected):
    assert expected in complaint(*arguments)


def test_a_destination_that_is_not_there_is_exit_code_1():
    done = subprocess.run(
        [*COMMAND, "run", *SMALL, "--to", "127.0.0.1:1"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "refused" in done.stdout + done.stderr


def test_an_aborted_run_is_exit_code_1():
    done = call("run", *SMALL, "--policy", "max-rounds:rounds=1,then=abort", code=1)
    assert "aborted" in done.stdout


def test_receive_takes_a_guest_in_from_another_process():
    receiver = subprocess.Popen(
        [*COMMAND, "receive", "--listen", "127.0.0.1:0", "--stay", "50ms", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        address = receiver.stderr.readline().removeprefix("listening on ").strip()
        report = sw.Report.from_json(call("run", *SMALL, "--to", address, "--verify", "--json").stdout)
        out, _ = receiver.communicate(timeout=30)
    finally:
        receiver.kill()
        receiver.wait()
        receiver.stderr.close()
    assert (report.outcome, report.verified) == ("completed", True)
    assert report.blackout > 0
    assert json.loads(out)["checked"] is True
    assert json.loads(out)["memory_bytes"] == 16 << 20


@pytest.mark.parametrize("kind", ["workloads", "policies", "strategies", "codecs", "trackers"])
def test_listings_name_every_part(kind):
    names = getattr(sw, kind).names()
    table = call(kind).stdout
    assert all(name in table for name in names)
    assert [part["name"] for part in json.loads(call(kind, "--json").stdout)] == names


def test_doctor_names_every_tracker():
    found = json.loads(call("doctor", "--json").stdout)
    assert {f"tracker {name}" for name in sw.trackers.names()} <= {row["what"] for row in found}
    assert "tracker" in call("doctor").stdout


def test_control_c_ends_a_run_in_one_line():
    process = subprocess.Popen(
        [*COMMAND, "run", "--memory", "64MiB", "--workload", "uniform:0", "--policy", "max-rounds:100000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "round" in process.stdout.readline()
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 1
    assert error.splitlines()[-1] == "switchover: interrupted"
    assert "Traceback" not in error


def test_the_demo_has_its_rows():
    from switchover.cli.demo import runs

    rows = runs()
    assert {type(run.strategy).__name__ for run in rows} == {"Hybrid", "PostCopy", "PreCopy", "StopAndCopy"}
    assert {"early", "late"} <= {getattr(run.strategy, "clear", None) for run in rows}
    assert len({repr(run.policy) for run in rows}) >= 3


def test_a_missing_tool_is_one_line_that_says_what_to_install():
    script = Path(__file__).parent.parent / "scripts" / "require-tools"
    done = subprocess.run(
        ["/bin/sh", str(script)],
        env={"PATH": "/nowhere", "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "install" in done.stderr.splitlines()[-1]
