"""The live receiver: real QEMUs migrate to it, and complete or run on."""

import json
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import switchover as sw
from vms import truth
from vms.boot import BUSY, IDLE
from vms.machine import Machine

MIB = 1 << 20
# Slow enough for a guest on a busy machine to write in each pass; and so slow that no pass ends while a test looks.
LIMITED = {"max-bandwidth": 20 * MIB, "downtime-limit": 1}
CRAWLING = {"max-bandwidth": MIB, "downtime-limit": 1}


@contextmanager
def receiving(receiver, **options):
    """Receives in a thread while the block runs; the reception is the list's only element."""
    found = []
    thread = threading.Thread(target=lambda: found.append(receiver.receive(timeout="20s", **options)))
    thread.start()
    try:
        yield found
    finally:
        thread.join()


def migrate(machine, receiver, capabilities=(), parameters=LIMITED):
    machine.set_up(tuple(capabilities), parameters)
    machine.ask("migrate", uri=receiver.endpoint)


@pytest.fixture
def receiver(tmp_path):
    with sw.stream.Receiver("tcp:127.0.0.1:0") as receiver:
        yield receiver


def opens_as(reception, machine, folder):
    """What was kept is a whole capture, and its memory the source's own.

    Below 1 MiB it need not be: QEMU 7.2 under TCG misses writes to the page of the guest's counters now and then, and
    its destination, too, has older ones.
    """
    with sw.stream.open(reception.files) as capture:
        capture.validate()
        ram = [part for part in truth.take(machine, folder) if part.block == "pc.ram" and part.offset >= MIB]
        for part in ram:
            assert capture.memory("pc.ram")[part.offset : part.offset + part.length].tobytes() == part.read(), part
        assert sum(part.length for part in ram) == 15 * MIB
        assert capture.seconds <= reception.duration
        times = np.concatenate([rows["seconds"] for rows in capture.pages()])
        assert ((times >= 0) & (times <= capture.seconds)).all()
        assert all(each.times[0] <= each.times[1] for each in capture.passes)
        return capture


def wait_for_bytes(machine):
    """Waits until the migration is well under way, and far from its end."""
    machine.wait_until(lambda state: state.get("ram", {}).get("transferred", 0) > MIB // 2, "half a MiB has gone")


def runs_on(machine):
    """Waits until the guest has written all its pages once more."""
    assert machine.ask("query-status")["running"]
    said = len(machine.said)
    while b"P" not in machine.said[said:]:
        machine.said += machine.serial.recv(4096)


@pytest.mark.parametrize("capabilities", [(), ("return-path",), ("xbzrle", "return-path")], ids=str)
def test_a_source_completes(qemu, receiver, capabilities, tmp_path):
    kept = tmp_path / "kept"
    with Machine(qemu, BUSY) as machine:
        machine.hear("F")
        with receiving(receiver, output=kept) as found:
            migrate(machine, receiver, capabilities)
            machine.wait_for_passes(4)
            machine.rest()
            state = machine.wait_for("completed")
        [reception] = found
        capture = opens_as(reception, machine, tmp_path / "truth")
    assert (reception.outcome, reception.reason) == ("accepted", "")
    assert len(capture.passes) == len(reception.passes)
    # QEMU's own count; it counts pages that xbzrle overflows for as normal ones.
    pages, ram = reception.pages, state["ram"]
    assert (pages.raw, pages.zero) == (ram["normal"], ram["duplicate"])
    assert bool(pages.xbzrle) == ("xbzrle" in capabilities)
    assert reception.blocks["pc.ram"] == 16 * MIB
    assert sum(reception.blocks.values()) == ram["total"]
    assert len(reception.passes) >= 2
    assert reception.stopped <= reception.complete <= reception.duration
    assert kept.stat().st_size == reception.bytes
    assert kept.read_bytes()[:4] == b"QEVM"
    kinds = [section.kind for section in reception.sections if section.name == "ram"]
    assert kinds == ["start", *["part"] * (len(kinds) - 2), "end"]
    assert sum(section.bytes for section in reception.sections) <= reception.bytes


@pytest.mark.parametrize("compression", ["none", "zlib", "zstd"])
def test_a_source_with_several_channels_completes(qemu, receiver, compression, tmp_path):
    parameters = {**LIMITED, "multifd-channels": 3, "multifd-compression": compression}
    with Machine(qemu, IDLE) as machine:
        machine.hear("H")
        with receiving(receiver, output=tmp_path / "kept") as found:
            migrate(machine, receiver, ("multifd", "return-path"), parameters)
            state = machine.wait_for("completed")
        [reception] = found
        opens_as(reception, machine, tmp_path / "truth")
    assert reception.outcome == "accepted"
    assert sorted(channel.number for channel in reception.channels if channel.role == "multifd") == [0, 1, 2]
    pages, ram = reception.pages, state["ram"]
    # QEMU 7.2 sends a page twice now and then, where a packet is full, and counts it once.
    assert pages.raw + pages.compressed - ram["normal"] in range(1 if qemu.release == "10.0" else 64)
    assert pages.zero == ram["duplicate"]
    assert bool(pages.compressed) == (compression != "none")
    for channel in reception.channels:
        assert channel.path.stat().st_size == channel.bytes


@pytest.mark.parametrize("capabilities", [("postcopy-ram",), ("postcopy-ram", "postcopy-preempt")], ids=str)
def test_a_source_in_post_copy_completes(qemu, receiver, capabilities, tmp_path):
    with Machine(qemu, BUSY) as machine:
        machine.hear("F")
        with receiving(receiver, output=tmp_path / "kept") as found:
            migrate(machine, receiver, capabilities)
            machine.wait_for_passes(3)
            machine.ask("migrate-start-postcopy")
            machine.wait_for("completed")
        assert found[0].outcome == "accepted"
        capture = opens_as(found[0], machine, tmp_path / "truth")
        assert capture.passes[-1].kind == "post-copy"


def test_a_source_of_old_without_a_description_completes(receiver):
    from vms.installed import require

    for kind in ("pc-i440fx-2.2", "pc-i440fx-2.3"):
        with Machine(require("7.2"), IDLE, machine=kind) as machine:
            machine.hear("H")
            with receiving(receiver) as found:
                migrate(machine, receiver, ("return-path",))
                machine.wait_for("completed")
        assert (found[0].outcome, found[0].machine) == ("accepted", None)


def test_a_unix_socket_and_a_paused_guest(qemu, tmp_path):
    with sw.stream.Receiver(f"unix:{tmp_path}/socket") as receiver, Machine(qemu, IDLE) as machine:
        machine.hear("F")
        machine.ask("stop")
        with receiving(receiver) as found:
            migrate(machine, receiver, ("return-path",))
            machine.wait_for("completed")
    assert found[0].outcome == "accepted"
    assert found[0].channels[0].path is None


@pytest.mark.parametrize("capabilities", [("return-path",), ("return-path", "multifd")], ids=str)
def test_a_dropped_source_runs_on(qemu, receiver, capabilities):
    """With a limit of ten seconds of blackout it switches over at once: the guest is stopped for a moment."""
    with Machine(qemu, BUSY) as machine:
        machine.hear("F")
        with receiving(receiver, ending="drop") as found:
            migrate(machine, receiver, capabilities, {"downtime-limit": 10000})
            machine.wait_for("failed")
        runs_on(machine)
    assert found[0].outcome == "dropped"
    assert found[0].reason == "asked to drop it at switchover"
    assert found[0].stopped is not None


def test_a_source_that_cannot_be_dropped_is_dropped_at_once(qemu, receiver):
    with Machine(qemu, BUSY) as machine:
        machine.hear("F")
        for capabilities, reason in (((), "no return path"), (("postcopy-ram",), "post-copy")):
            with receiving(receiver, ending="drop") as found:
                migrate(machine, receiver, capabilities, CRAWLING)
                machine.wait_for("failed")
            assert reason in found[0].reason
            runs_on(machine)


def test_a_limit_of_time(qemu, receiver):
    with Machine(qemu, BUSY) as machine:
        machine.hear("F")
        with receiving(receiver, limit="300ms") as found:
            migrate(machine, receiver, ("return-path",), CRAWLING)
            machine.wait_for("failed")
        runs_on(machine)
    assert (found[0].outcome, found[0].reason) == ("dropped", "the time was over")


def test_a_source_that_asks_to_switch_over_is_answered(receiver):
    from vms.installed import require

    for kind, asked in (("pc", False), ("pc-i440fx-7.2", True)):
        with Machine(require("10.0"), IDLE, machine=kind) as machine:
            machine.hear("H")
            with receiving(receiver, switchover_ack=asked) as found:
                migrate(machine, receiver, ("return-path", "switchover-ack"))
                machine.wait_for("completed")
        assert found[0].outcome == "accepted"


def test_a_source_that_is_cancelled_or_killed_is_a_failure(qemu, receiver):
    with Machine(qemu, BUSY) as machine:
        machine.hear("F")
        with receiving(receiver) as found:
            migrate(machine, receiver, (), CRAWLING)
            wait_for_bytes(machine)
            machine.ask("migrate_cancel")
        assert found[0].outcome == "failed"
        assert "ends here" in found[0].reason
        machine.wait_for("cancelled")
        with receiving(receiver) as found:
            migrate(machine, receiver, (), CRAWLING)
            wait_for_bytes(machine)
            machine.process.kill()
    assert found[0].outcome == "failed"


@pytest.mark.parametrize("output", ["json", "text"])
def test_the_command(qemu, output, tmp_path):
    socket = tmp_path / "socket"
    command = [sys.executable, "-m", "switchover", "stream", "receive", "--listen", f"unix:{socket}"]
    command += ["--json"] if output == "json" else ["-o", str(tmp_path / "kept")]
    with Machine(qemu, IDLE) as machine:
        machine.hear("H")
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while not socket.exists():
            time.sleep(0.01)
        machine.set_up(("return-path",), {})
        machine.ask("migrate", uri=f"unix:{socket}")
        printed, _ = process.communicate(timeout=30)
        machine.wait_for("completed")
    assert process.returncode == 0
    if output == "json":
        data = json.loads(printed)
        assert data["outcome"] == "accepted"
        assert sum(step["bytes"] for step in data["timeline"]) == data["bytes"]
    else:
        assert printed.startswith("accepted\nmachine pc-i440fx-")
        assert "the guest was seen stopped" in printed


def test_the_command_called_off_lets_the_source_run_on(qemu, tmp_path):
    socket = tmp_path / "socket"
    command = [sys.executable, "-m", "switchover", "stream", "receive", "--listen", f"unix:{socket}", "--discard"]
    with Machine(qemu, BUSY) as machine:
        machine.hear("F")
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while not socket.exists():
            time.sleep(0.01)
        machine.set_up(("return-path",), CRAWLING)
        machine.ask("migrate", uri=f"unix:{socket}")
        wait_for_bytes(machine)
        process.send_signal(signal.SIGINT)
        _, printed = process.communicate(timeout=30)
        machine.wait_for("failed")
        runs_on(machine)
    assert process.returncode == 1
    assert printed.endswith("switchover: interrupted\n")


def test_wrong_usage(receiver):
    with pytest.raises(sw.UsageError, match="an ending is one of accept, drop"):
        receiver.receive(ending="maybe")
    with pytest.raises(sw.LinkError, match="nobody connected to tcp:127"):
        receiver.receive(timeout="20ms")
    receiver.close()
    with pytest.raises(sw.UsageError, match="closed"):
        receiver.receive()
