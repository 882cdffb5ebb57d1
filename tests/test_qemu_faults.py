"""What goes wrong on the way leaves the guest running in one place, and the VM as it was."""

import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
import switchover as sw
from vms.oneway import OneWay
from vms.pair import CALM, SLOW, ask, pair, runs, settings, wait_until

# Two virtual machines on a machine that may have other work.
pytestmark = pytest.mark.timeout(240)
NEVER = "max-rounds:1000000"


@pytest.mark.parametrize(
    ("how", "given", "words"),
    [
        ("a policy for QEMU's rule", {"policy": NEVER, "features": "downtime_limit=1s"}, "the policy decides"),
        ("two ways to throttle", {"policy": "qemu-auto-converge", "features": "auto_converge"}, "exclude each other"),
        ("a delay", {"policy": "vmotion-sdps"}, "QEMU cannot do"),
        ("a discipline", {"strategy": sw.PreCopy(clear="early")}, "its own clear"),
        ("no connections", {"features": "compression=zstd"}, "needs multifd"),
        (
            "no such",
            {"features": "multifd=2,compression=brotli"},
            "has no multifd-compression brotli; it has none, zlib",
        ),
        ("no parameter", {"features": "warp-factor=9"}, "has no parameter warp-factor"),
        ("no power of two", {"features": "xbzrle=3MiB"}, "power of two"),
        ("an encoding", {"features": "xbzrle,multifd=2"}, "neither multifd"),
        ("no file", {"features": "mapped_ram"}, "mapped_ram is for files"),
        ("preempt", {"features": "preempt"}, "for post-copy"),
    ],
)
def test_what_qemu_cannot_do_is_refused_before_anything_starts(refused, how, given, words):
    source, destination, before = refused
    with pytest.raises(sw.UsageError, match=words):
        sw.qemu.migrate(source.monitor, destination.monitor, **given)
    assert settings(source) == before


@pytest.fixture(scope="module")
def refused():
    from vms.installed import require

    with pair(require("10.0")) as (source, destination):
        yield source, destination, settings(source)


def test_qemus_own_refusal_is_in_its_own_words_and_leaves_nothing(refused):
    source, destination, before = refused
    with pytest.raises(sw.QmpError, match="migrate-set-capabilities: dirty-limit requires KVM") as caught:
        sw.qemu.migrate(source.monitor, destination.monitor, features="dirty_limit=10MB/s")
    assert caught.value.command == "migrate-set-capabilities"
    assert caught.value.words.startswith("dirty-limit requires KVM")
    assert settings(source) == before
    runs(source)


def test_nobody_at_the_other_end(refused):
    source, _, before = refused
    report = sw.qemu.migrate(source.monitor, "tcp:127.0.0.1:1")
    assert report.outcome == "failed"
    assert "refused; the guest runs at the source" in report.reason
    assert settings(source) == before


def test_a_source_is_no_destination(refused):
    source, _, _ = refused
    with pytest.raises(sw.UsageError, match="takes no guest in"), sw.qemu.Qmp(source.monitor) as qmp:
        sw.qemu.migrate(qmp, "tcp:127.0.0.1:0", destination=qmp)


@pytest.mark.parametrize("how", ["abort", "raise", "post-copy", "nonsense"])
def test_a_policy_that_gives_up_or_breaks(qemu, how):
    def policy(round, history):
        if round.index == 0:
            return sw.Decision.proceed()
        return {
            "abort": lambda: sw.Decision.abort("had enough"),
            "raise": lambda: 1 / 0,
            "post-copy": lambda: sw.Decision.postcopy("now"),
            "nonsense": lambda: 42,
        }[how]()

    with pair(qemu) as (source, destination):
        before = settings(source)
        if how in ("raise", "nonsense"):
            with pytest.raises(sw.PolicyError) as caught:
                sw.qemu.migrate(source.monitor, destination.monitor, policy=policy, features=SLOW)
            assert how == "nonsense" or isinstance(caught.value.__cause__, ZeroDivisionError)
        else:
            report = sw.qemu.migrate(source.monitor, destination.monitor, policy=policy, features=SLOW)
            assert report.outcome == ("aborted" if how == "abort" else "failed")
            assert ("had enough" if how == "abort" else "use the strategy hybrid") in report.reason
            assert "the guest runs at the source" in report.reason
            assert len(report.rounds) >= 2
            assert report.sent_bytes > 0
        runs(source)
        assert settings(source) == before


def test_a_destination_that_dies(qemu):
    with pair(qemu) as (source, destination):
        before = settings(source)

        def kill(round, decision):
            if round.index == 1:
                os.kill(destination.process.pid, signal.SIGKILL)

        report = sw.qemu.migrate(source.monitor, destination.monitor, policy=NEVER, features=SLOW, on_round=kill)
        assert report.outcome == "failed"
        assert report.reason.endswith("the guest runs at the source")
        runs(source)
        assert settings(source) == before


def test_a_source_that_dies(qemu):
    with pair(qemu) as (source, destination):

        def kill(round, decision):
            if round.index == 1:
                os.kill(source.process.pid, signal.SIGKILL)

        report = sw.qemu.migrate(
            source.monitor, destination.monitor, policy=NEVER, features=SLOW, on_round=kill, timeout="5s"
        )
        assert report.outcome == "failed"
        assert "query-migrate" in report.reason


def test_cancelled_from_another_thread(qemu):
    with pair(qemu) as (source, destination):
        migration = sw.qemu.Migration(source.monitor, destination.monitor, policy=NEVER, features=SLOW)
        with migration:
            threading.Timer(0.4, migration.cancel).start()
            for _ in migration:
                migration.judge()
        assert (migration.report.outcome, migration.report.reason) == ("aborted", CANCELLED)
        runs(source)


CANCELLED = "cancelled; the guest runs at the source"
DRIVER = """
import sys, switchover as sw
source, destination, strategy, policy, features = sys.argv[1:]
print("begun", flush=True)
report = sw.qemu.migrate(source, destination, strategy, policy or None, features=features)
print(report.outcome, report.reason)
"""
# Time enough to cut the link in. Without the other two limits QEMU may find the rest small enough to end in pre-copy.
DRIP = "postcopy_bandwidth=4MiB/s,bandwidth=24MiB/s,downtime_limit=1ms"
# What is killed, and up to which second of its life.
KILLED = {
    "on the way": ("pre-copy", NEVER, SLOW, 1.5),
    "about switchover": ("pre-copy", "max-rounds:2", SLOW, 3.0),
    "in post-copy": ("post-copy", "", DRIP, 4.0),
}


@pytest.mark.parametrize("seed", [1, 2, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 13))])
@pytest.mark.parametrize("how", KILLED)
def test_killed_at_a_random_moment(qemu, how, seed):
    """The guest then runs in one place, its data whole, and both VMs are as they were."""
    strategy, policy, features, latest = KILLED[how]
    moment = random.Random(f"{how} {seed}").uniform(0.0, latest)
    with pair(qemu) as (source, destination):
        before = settings(source), settings(destination)
        sides = (str(source.monitor), str(destination.monitor))
        command = [sys.executable, "-c", DRIVER, *sides, strategy, policy, features]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
            assert driver.stdout.readline() == "begun\n"
            time.sleep(moment)
            driver.kill()
            said = driver.communicate()[0].strip() or "nothing"
        wait_until(lambda: settled(source, before[0]))
        gone = ask(source, "query-migrate").get("status") == "completed"
        print(f"killed after {moment:.3f} s, when it had said {said}; completed: {gone}")
        assert ask(source, "query-status")["running"] is not gone
        assert gone <= (how != "on the way")
        runs(destination if gone else source)
        if destination.process.poll() is None:
            wait_until(lambda: settings(destination) == before[1])


def test_a_driver_that_is_let_live_comes_to_its_end(qemu):
    """What the others kill is no process that would have ended by itself."""
    with pair(qemu) as (source, destination):
        sides = (str(source.monitor), str(destination.monitor))
        command = [sys.executable, "-c", DRIVER, *sides, *KILLED["about switchover"][:3]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
        assert done.stdout.split() == ["begun", "completed"]
        runs(destination)


def settled(vm, before):
    status = ask(vm, "query-migrate").get("status", "none")
    return status in ("none", "cancelled", "failed", "completed") and settings(vm) == before


def test_interrupted_from_the_keyboard(qemu):
    with pair(qemu) as (source, destination):
        before = settings(source)
        command = [sys.executable, "-m", "switchover", "qemu", "migrate", "--source", str(source.monitor),
                   "--to", "tcp:127.0.0.1:0", "--destination", str(destination.monitor), "-p", NEVER,
                   "-f", SLOW]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as driver:
            assert driver.stdout.readline().startswith("round   0")
            driver.send_signal(signal.SIGINT)
            _, said = driver.communicate(timeout=120)
        assert (driver.returncode, said.strip()) == (1, "switchover: interrupted")
        assert settled(source, before)
        runs(source)


# Asks for pages now and then, but leaves most of them to what is pushed.
CHATTY = sw.workloads.Uniform(rate="1MB/s", content=sw.contents.Counter())


def test_a_link_that_is_cut_in_post_copy_is_replaced(qemu):
    with pair(qemu, CHATTY) as (source, destination):
        with sw.qemu.Migration(source.monitor, destination.monitor, "post-copy", features=DRIP) as migration:
            cutter = threading.Thread(target=cut, args=(migration,))
            cutter.start()
            for _ in migration:
                migration.judge()
            cutter.join()
        report = migration.report
        assert report.outcome == "completed", report.reason
        assert report.data["qemu"]["recoveries"] >= 1
        runs(destination)


def cut(migration):
    wait_until(lambda: migration.status == "postcopy-active")
    migration.pause_post_copy()


def test_a_link_that_is_cut_when_all_has_arrived_needs_no_other(qemu):
    """The source hears nothing from the switchover on, and so not of the end."""
    with pair(qemu, CALM) as (source, destination), OneWay() as link:
        sides = (source.monitor, destination.monitor)
        how = {"through": link.through, "features": DRIP, "stall_timeout": "1s"}
        with sw.qemu.Migration(*sides, "post-copy", **how) as migration:
            silencer = threading.Thread(target=silence, args=(migration, link))
            silencer.start()
            for _ in migration:
                pass
            silencer.join()
        report = migration.report
        assert report.outcome == "completed", report.reason
        assert "did not hear" in report.reason
        assert ask(source, "query-status")["running"] is False
        with sw.qemu.Qmp(sides[0]) as here, sw.qemu.Qmp(sides[1]) as there:
            assert not sw.qemu.recover(here, there, "tcp:127.0.0.1:0")
        runs(destination)


def silence(migration, link):
    wait_until(lambda: migration.status == "postcopy-active")
    link.fall_silent()


def test_without_recovery_it_says_how_to_go_on_and_that_works(qemu):
    with pair(qemu, CHATTY) as (source, destination):
        sides = (source.monitor, destination.monitor)
        with sw.qemu.Migration(*sides, "post-copy", features=DRIP, recover=False) as migration:
            cutter = threading.Thread(target=cut, args=(migration,))
            cutter.start()
            for _ in migration:
                pass
            cutter.join()
        assert migration.report.outcome == "failed"
        assert "switchover qemu recover" in migration.report.reason
        with sw.qemu.Qmp(sides[0]) as here, sw.qemu.Qmp(sides[1]) as there:
            sw.qemu.recover(here, there, "tcp:127.0.0.1:0")
        wait_until(lambda: ask(source, "query-migrate")["status"] == "completed")
        runs(destination)
