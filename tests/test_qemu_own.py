"""Pairs of our own, and the command line over them."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import switchover as sw
from switchover.qemu.vantage import PARTS
from vms.pair import CALM, STORM, settings, wait_until

# Two virtual machines on a machine that may have other work.
pytestmark = pytest.mark.timeout(240)
COMMAND = [sys.executable, "-m", "switchover", "qemu"]


def call(*arguments, code=0):
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_over_a_shaped_link(qemu):
    with sw.qemu.Pair(STORM, "16MiB", link="160Mbit/s,1ms", binary=qemu.path, accelerator="tcg") as pair:
        report = pair.migrate(policy="max-rounds:3", warm_up="500ms", cool_down="500ms")
        carried = pair.links.carried
    assert report.outcome == "completed"
    assert report.data["qemu"]["guest_check"] > 2000
    assert report.throughput < 22e6
    assert report.sent_bytes <= carried < 1.1 * report.sent_bytes + (1 << 20)
    assert report.guest_cost["before"] > 0
    assert report.guest_cost["after"] > 0
    assert report.data["link"]["bandwidth"] == 20e6
    check_parts(report)


def check_parts(report):
    """The parts of the blackout, all of them told apart, add up to the gap that the guest saw."""
    parts = report.data["blackout_parts"]
    assert all(parts[name] >= 0 for name in PARTS)
    assert sum(parts[name] for name in PARTS) == pytest.approx(report.guest_gap, abs=0.005)
    between = parts["last_ram"] + parts["device_state"] + parts["load"]
    assert between == pytest.approx(parts["last_ram_to_load"], abs=0.005)
    wire = report.data["qemu"]["wire"]
    assert wire["error"] is None
    assert wire["last_ram_begins"] <= wire["last_ram_ends"] <= wire["sections_end"] <= wire["description_ends"]
    # The link is slow, so that most of the blackout goes into pages.
    assert parts["last_ram"] == max(parts[name] for name in PARTS)


@pytest.mark.parametrize(("strategy", "features"), [("pre-copy", "multifd=2"), ("post-copy", "")])
def test_the_parts_of_other_blackouts(qemu, strategy, features):
    policy = "max-rounds:2" if features else None
    with sw.qemu.Pair(STORM, "16MiB", link="160Mbit/s,1ms", binary=qemu.path, accelerator="tcg") as pair:
        report = pair.migrate(strategy, policy, features=features, warm_up="200ms", cool_down="200ms")
    assert report.outcome == "completed"
    parts = report.data["blackout_parts"]
    known = [name for name in PARTS if name != "last_ram" or strategy == "pre-copy"]
    assert (parts["last_ram"] is None) == (strategy == "post-copy")
    assert sum(parts[name] for name in known) == pytest.approx(report.guest_gap, abs=0.005)
    wire = report.data["qemu"]["wire"]
    if strategy == "post-copy":
        assert wire["package_begins"] <= wire["package_ends"] <= wire["sections_end"]
        assert report.brownout["at_source"] + report.brownout["at_destination"] == report.brownout["loss"]
    else:
        assert wire["beside"] is not None


def test_a_link_that_breaks_in_post_copy(qemu):
    """The link itself is cut: neither side has been told."""
    with sw.qemu.Pair(STORM, "32MiB", link="80Mbit/s", binary=qemu.path, accelerator="tcg") as pair:
        cutter = threading.Thread(target=cut_in_post_copy, args=(pair,))
        cutter.start()
        report = pair.migrate("post-copy", warm_up="10ms")
        cutter.join()
    assert report.outcome == "completed", report.reason
    assert report.data["qemu"]["recoveries"] >= 1
    assert report.data["qemu"]["guest_check"] > 6000


def cut_in_post_copy(pair):
    wait_until(lambda: pair.links.carried > 3 << 20)
    pair.links.cut()


def test_a_destination_of_another_release():
    from vms.installed import require

    old, new = require("7.2"), require("10.0")
    arguments = ("-machine", "pc-i440fx-7.2")
    with sw.qemu.Pair(
        CALM, "16MiB", binary=old.path, destination_binary=new.path, accelerator="tcg", arguments=arguments
    ) as pair:
        report = pair.migrate(warm_up="10ms")
    assert report.outcome == "completed", report.reason
    assert report.data["qemu"]["guest_check"] > 2000
    versions = report.data["qemu"]["versions"]
    assert (versions["source"][:3], versions["destination"][:4]) == ("7.2", "10.0")


def test_run_prints_rounds_and_a_table(qemu, tmp_path):
    done = call("run", "-m", "16MiB", "-w", "uniform:rate=100MB/s", "--content", "counter", "-l", "200Mbit/s",
                "-p", "max-rounds:2", "--qemu", qemu.path, "--accelerator", "tcg",
                "-o", tmp_path / "report")  # fmt: skip
    assert "-> switch_over: rounds" in done.stdout
    assert "guest gap" in done.stdout
    assert "pages as it wrote them" in done.stdout
    assert sw.Report.from_json((tmp_path / "report").read_text()).outcome == "completed"


def test_migrate_and_abilities(qemu):
    with sw.qemu.Pair(CALM, "16MiB", binary=qemu.path, accelerator="tcg") as pair:
        before = settings(pair.source)
        said = json.loads(call("abilities", pair.source.monitor, "--json").stdout)
        assert said["capabilities"] == before[0]
        assert said["blocked"] == []
        done = call("migrate", "--source", pair.source.monitor, "--to", "tcp:127.0.0.1:0",
                    "--destination", pair.destination.monitor, "--json")  # fmt: skip
        assert json.loads(done.stdout)["outcome"] == "completed"
        pair.destination.check()
        assert settings(pair.source) == before


def test_wrong_usage_is_one_line(tmp_path):
    for arguments, words in [
        (["run", "-w", "kv"], "runs patterns (idle, sweep"),
        (["run", "-m", "1MiB"], "from 16 to 2048 MiB"),
        (["run", "--qemu", "no-such-qemu"], "no no-such-qemu here"),
    ]:
        done = call(*arguments, code=2)
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1
    done = call("migrate", "--source", tmp_path / "none", "--to", "tcp:127.0.0.1:1", code=1)
    assert "no QEMU monitor answers there" in done.stderr


def test_nothing_is_left_running(qemu):
    with sw.qemu.Pair(CALM, "16MiB", binary=qemu.path, accelerator="tcg") as pair:
        sides = (pair.source, pair.destination)
    for side in sides:
        assert not side.folder.exists()
        assert not Path(f"/proc/{side.process.pid}").exists()


@pytest.mark.parametrize("arguments", [("-machine", "nonsense"), ("-nonsense",)])
def test_a_machine_that_cannot_start_says_why(qemu, arguments):
    with pytest.raises(sw.SwitchoverError, match=r"QEMU did not start: .+"):
        sw.qemu.Pair(CALM, "16MiB", binary=qemu.path, accelerator="tcg", arguments=arguments)
