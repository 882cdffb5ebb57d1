"""The real QEMUs of the tests, and the guest that runs in them."""

import shutil
import subprocess
from pathlib import Path

import pytest
from vms import linux
from vms.boot import BUSY, HERE, IDLE
from vms.capture import BY_NAME
from vms.kinds import LINUX
from vms.machine import Machine


def test_the_boot_sector_is_its_source_assembled(tmp_path):
    if not (shutil.which("as") and shutil.which("ld")):
        pytest.skip("no assembler here")
    target, binary = tmp_path / "boot.o", tmp_path / "boot.bin"
    subprocess.run(["as", "--32", str(HERE / "boot.S"), "-o", str(target)], check=True)
    link = ["ld", "-m", "elf_i386", "-Ttext=0x7c00", "--oformat=binary", str(target), "-o", str(binary)]
    subprocess.run(link, check=True)
    assert bytes.fromhex((HERE / "boot.hex").read_text()) == binary.read_bytes()


def test_the_guest_fills_writes_and_rests(qemu, tmp_path):
    with Machine(qemu, BUSY) as machine:
        machine.hear("P")
        machine.rest()
        machine.hear("H")
        folder, path = machine.folder, tmp_path / "memory"
        for _ in range(2):
            machine.ask("pmemsave", val=BUSY.first << 12, size=BUSY.pages << 12, filename=str(path))
            before, memory = locals().get("memory"), path.read_bytes()
        assert before == memory
        # A quarter of the pages begins empty, and every 32nd rewritten page is cleared.
        empty = sum(not any(memory[at : at + 4096]) for at in range(0, len(memory), 4096))
        assert BUSY.pages // 64 < empty < BUSY.pages // 8
    assert not folder.exists()


def test_an_idle_guest_rests_by_itself(qemu):
    with Machine(qemu, IDLE) as machine:
        machine.hear("H")


def test_a_machine_that_cannot_start_says_why(qemu):
    with pytest.raises(RuntimeError, match=r"did not start: .+"):
        Machine(qemu, IDLE, machine="nonsense").__enter__()


def test_nothing_runs_after_a_failure(qemu):
    with pytest.raises(ZeroDivisionError), Machine(qemu, IDLE) as machine:
        _ = 1 / 0
    assert not Path(f"/proc/{machine.process.pid}").exists()


@pytest.mark.parametrize(
    ("kind", "release", "roles"),
    [
        ("plain", "7.2", ["main"]),
        ("multifd", "10.0", ["main", "multifd", "multifd", "multifd"]),
        ("preempt", "7.2", ["main", "preempt"]),
        ("preempt", "10.0", ["main", "preempt"]),
        ("recovery", "10.0", ["main", "recovery"]),
    ],
)
def test_a_capture_keeps_every_channel(captured, kind, release, roles):
    capture = captured(kind, release)
    assert sorted(channel.role for channel in capture.channels) == sorted(roles)
    for channel in capture.channels:
        size = channel.there.stat().st_size
        assert size > 0
        assert channel.moments[0][1] == 0
        assert channel.moments == sorted(channel.moments)
        assert channel.moments[-1][1] < size
    if BY_NAME[kind].passes:
        assert capture.source["ram"]["dirty-sync-count"] >= 3


def test_the_truth_covers_all_of_the_ram(captured):
    capture = captured("plain", "10.0")
    assert sum(part.length for part in capture.truth if part.block == "pc.ram") == capture.blocks["pc.ram"]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_linux_guest_is_captured(captured, qemu):
    linux.require()
    capture = captured("linux", qemu.release)
    assert capture.source["ram"]["dirty-sync-count"] >= LINUX.passes
