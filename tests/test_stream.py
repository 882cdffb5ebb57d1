"""Captures of real QEMUs: what comes out is the memory that the destination QEMU itself reports."""

import gzip
import json
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import switchover as sw
from click.testing import CliRunner
from switchover.cli import group
from vms import linux, truth
from vms.installed import require
from vms.kinds import BY_NAME, CASES, LINUX
from vms.machine import Machine

# What QEMU's tests of this kind have that a summary must name.
FEATURES = {
    "return-path": "return-path",
    "xbzrle": "xbzrle",
    "compress": "compress",
    "multifd": "multifd",
    "multifd-zlib": "multifd-zlib",
    "multifd-zstd": "multifd-zstd",
    "postcopy": "postcopy",
    "recovery": "recovery",
    "mapped-ram": "mapped-ram",
}


def files(capture):
    return [str(channel.there) for channel in capture.channels if channel.there.stat().st_size]


@pytest.mark.parametrize(("kind", "release"), CASES)
def test_the_memory_is_what_the_destination_has(captured, kind, release):
    capture = captured(kind, release)
    with sw.stream.open(files(capture)) as ours:
        ours.validate()
        assert {block.name: block.bytes for block in ours.blocks}.items() <= capture.blocks.items()
        left_out = {"shared"} if kind == "ignore-shared" else set()
        names = {block.name.rpartition("/")[2]: block.name for block in ours.blocks if block.name not in left_out}
        checked = 0
        for part in capture.truth:
            if part.block in names:
                capture.check(names[part.block], ours.memory(names[part.block]))
                checked += part.length
        assert checked >= (256 << 10 if left_out else 16 << 20)
        if kind in FEATURES:
            assert FEATURES[kind] in ours.summary["features"]
        problems = [device for device in ours.devices if device.problem]
        assert not problems


@pytest.mark.parametrize("release", ["7.2", "10.0"])
def test_a_summary_counts_what_the_source_counted(captured, release):
    capture = captured("plain", release)
    found = sw.stream.open(capture.main)
    pages, ram = found.summary["pages"], capture.source["ram"]
    assert (pages["raw"], pages["zero"]) == (ram["normal"], ram["duplicate"])
    assert found.summary["bytes"] == capture.main.stat().st_size
    assert len(found.passes) >= 3
    assert {each.kind for each in found.passes[:-1]} == {"live"}
    assert sum(each.counts.pages for each in found.passes) == sum(block.counts.pages for block in found.blocks)
    # Every page comes in the first pass, none of them again.
    assert found.passes[0].counts.sent_again == 0
    assert found.passes[0].counts.pages >= found.summary["memory_bytes"] // 4096 * 0.9


def test_pages_are_rows_of_an_array(captured):
    found = sw.stream.open(captured("plain", "10.0").main)
    rows = np.concatenate(list(found.pages()))
    counts = found.summary["pages"]
    assert [int((rows["kind"] == kind).sum()) for kind in (0, 1)] == [counts["raw"], counts["zero"]]
    assert int(rows["sent_again"].sum()) == counts["sent_again"]
    assert int(rows["pass"].max()) == len(found.passes) - 1


def test_events_are_typed_and_in_order(captured):
    found = sw.stream.open(captured("return-path", "10.0").main)
    events = list(found)
    assert isinstance(events[0], sw.stream.events.Header)
    assert events[1] == sw.stream.events.Machine(
        channel=0, offset=8, bytes=5 + len(found.machine), machine=found.machine
    )
    assert [e.command for e in events if isinstance(e, sw.stream.events.Command)][:2] == ["open-return-path", "ping"]
    assert sum(e.pages for e in events if isinstance(e, sw.stream.events.Pages)) == sum(
        b.counts.pages for b in found.blocks
    )
    offsets = [event.offset for event in events]
    assert offsets == sorted(offsets)


def test_device_state_has_names(captured):
    devices = sw.stream.open(captured("devices", "10.0").main).devices
    cpu = next(device for device in devices if device.name == "cpu")
    assert len(cpu.state["env.regs"]) == 16
    assert cpu.bytes > 1000
    assert all(isinstance(device.state, dict) for device in devices)


def test_state_without_a_description_is_found(captured):
    devices = sw.stream.open(captured("type-2.2", "7.2").main).devices
    with_description = sw.stream.open(captured("type-2.3", "7.2").main).devices
    assert [(d.name, d.bytes) for d in devices] == [(d.name, d.bytes) for d in with_description]


def test_a_stream_that_ends_early_says_what_is_whole(captured, tmp_path):
    whole = captured("plain", "10.0").main.read_bytes()
    seed = random.randrange(1 << 30)
    print("seed", seed)
    source = random.Random(seed)
    for end in (9, 20, 100, *(source.randrange(len(whole)) for _ in range(20)), len(whole) - 1):
        (tmp_path / "cut").write_bytes(whole[:end])
        found = sw.stream.open(tmp_path / "cut")
        assert found.problem.offset == end
        assert "ends here" in found.problem.reason
        with pytest.raises(sw.StreamError):
            found.validate()


def test_changed_bytes_are_an_error_or_another_stream_but_never_a_crash(captured, tmp_path):
    whole = bytearray(captured("xbzrle", "7.2").main.read_bytes())
    seed = random.randrange(1 << 30)
    print("seed", seed)
    source = random.Random(seed)
    for _ in range(25):
        changed = bytearray(whole)
        for _ in range(3):
            changed[source.randrange(len(changed))] = source.randrange(256)
        (tmp_path / "changed").write_bytes(changed)
        found = sw.stream.open(tmp_path / "changed") if changed[:4] == b"QEVM" else None
        if found:
            _ = found.summary


def wrap(data, how):
    if how == "gzip":
        return gzip.compress(data, 1)
    if how == "libvirt":
        return b"LibvirtQemudSave" + struct.pack("<5I14I", 2, 100, 1, 0, 0, *[0] * 14) + bytes(100) + data
    tool = shutil.which(how)
    if not tool:
        pytest.skip(f"no {how} here")
    return subprocess.run([tool, "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout


@pytest.mark.parametrize("how", ["gzip", "zstd", "lz4", "libvirt"])
def test_what_is_around_a_stream_is_taken_off(captured, tmp_path, how):
    capture = captured("file", "10.0")
    plain = sw.stream.open(capture.main).summary
    (tmp_path / "wrapped").write_bytes(wrap(capture.main.read_bytes(), how))
    found = sw.stream.open(tmp_path / "wrapped")
    found.validate()
    assert found.summary["pages"] == plain["pages"]
    assert found.summary["devices"] == plain["devices"] or how == "libvirt"
    assert found.summary["files"][0]["wrapping"] == ("libvirt" if how == "libvirt" else "packed")


def test_files_that_are_no_migration(tmp_path, captured):
    (tmp_path / "text").write_text("hello, world")
    with pytest.raises(sw.StreamError, match="begins no channel"):
        sw.stream.open(tmp_path / "text")
    with pytest.raises(sw.UsageError, match="cannot read"):
        sw.stream.open(tmp_path / "missing")
    with pytest.raises(sw.UsageError, match="no file"):
        sw.stream.open()
    (tmp_path / "xz").write_bytes(b"\xfd7zXZ\0" + bytes(100))
    with pytest.raises(sw.StreamError, match="xz -dc"):
        sw.stream.open(tmp_path / "xz")
    multifd = captured("multifd", "10.0")
    with pytest.raises(sw.UsageError, match="main channel"):
        sw.stream.open([channel.there for channel in multifd.roles("multifd")])


def test_a_main_channel_alone_says_that_others_are_missing(captured):
    done = CliRunner().invoke(group, ["stream", "inspect", str(captured("multifd", "10.0").main)])
    assert "files are missing" in done.output


def test_a_look_can_be_called_off(captured, tmp_path):
    """On a file that has no end for a long time."""
    path = tmp_path / "long"
    with path.open("wb") as file:
        file.write(captured("plain", "10.0").main.read_bytes())
        file.truncate(1 << 40)
    looking = subprocess.Popen(
        [sys.executable, "-m", "switchover", "stream", "inspect", str(path)], stderr=subprocess.PIPE, text=True
    )
    while f" {path}" not in " ".join(opened(looking.pid)):
        time.sleep(0.01)
    looking.send_signal(signal.SIGINT)
    _, said = looking.communicate(timeout=30)
    assert (looking.returncode, said.splitlines()[-1]) == (1, "switchover: interrupted")


def opened(pid):
    """The files that a process has open."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            yield f" {link.readlink()}"


def test_a_folder_is_the_files_in_it(captured):
    capture = captured("multifd", "10.0")
    found = sw.stream.open(capture.main.parent)
    assert len(found.files) == 4
    found.validate()


SQUASHED = [
    *((kind, release, False) for kind, release in CASES if kind in ("plain", "xbzrle", "postcopy", "paused")),
    ("background-snapshot", "7.2", False),
    ("background-snapshot", "10.0", False),
    ("compress", "7.2", False),
    ("multifd-zstd", "10.0", False),
    ("mapped-ram", "10.0", False),
    ("preempt", "10.0", False),
    ("recovery", "10.0", False),
    ("type-2.2", "7.2", False),
    ("type-2.3", "7.2", False),
    ("uuid", "10.0", False),
    ("devices-q35", "10.0", False),
    ("plain", "10.0", True),
    ("multifd", "10.0", True),
    ("background-snapshot", "10.0", True),
]


@pytest.mark.parametrize(("kind", "release", "mapped"), SQUASHED)
def test_a_squashed_stream_starts_in_qemu_and_its_guest_runs_on(captured, tmp_path, kind, release, mapped):
    capture, setup = captured(kind, release), BY_NAME[kind]
    small = tmp_path / "small"
    found = sw.stream.open(files(capture))
    assert found.squash(small, mapped_ram=mapped) == small.stat().st_size
    again = sw.stream.open(small)
    again.validate()
    assert found.diff(again) == {"blocks": [], "fields": []}
    assert small.stat().st_blocks * 512 <= sum(channel.there.stat().st_size for channel in capture.channels) * 1.02
    capabilities = ("mapped-ram",) * mapped + ("validate-uuid",) * (kind == "uuid")
    with Machine(
        require(release), setup.boot, machine=setup.machine, devices=setup.devices,
        arguments=("-S", "-incoming", "defer"),
    ) as machine:  # fmt: skip
        machine.set_up(capabilities, {})
        machine.ask("migrate-incoming", uri=f"file:{small}" if mapped else f"exec:cat {small}")
        machine.wait_for("completed")
        parts = truth.take(machine, tmp_path / "truth")
        assert {(p.block, p.offset): p.read() for p in parts} == {(p.block, p.offset): p.read() for p in capture.truth}
        machine.ask("cont")
        if kind == "background-snapshot":
            # Caught in the midst of its work; the others had been told to rest.
            machine.hear("P")
            machine.rest()
            machine.hear("H")
        assert machine.ask("query-status")["running"]


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("release", ["7.2", "10.0"])
def test_a_linux_guest_comes_out_and_runs_on_when_squashed(captured, tmp_path, release):
    capture, small = captured("linux", release), tmp_path / "small"
    with sw.stream.open(files(capture)) as found:
        checked = [part for part in capture.truth if part.block == "pc.ram"]
        for part in checked:
            capture.check(part.block, found.memory("pc.ram"))
        assert sum(part.length for part in checked) >= 127 << 20
        found.squash(small)
    arguments = (*linux.arguments(tmp_path), "-S", "-incoming", "defer")
    with Machine(require(release), LINUX.boot, memory=LINUX.memory, arguments=arguments) as machine:
        machine.ask("migrate-incoming", uri=f"exec:cat {small}")
        machine.wait_for("completed")
        machine.ask("cont")
        # A break on the serial console is the kernel's own key: it lists what it can do.
        machine.ask("chardev-send-break", id="serial")
        machine.serial.sendall(b"h")
        while b"HELP" not in machine.said:
            machine.said += machine.serial.recv(4096)


def test_a_capture_is_not_squashed_onto_itself(captured, tmp_path):
    shutil.copy(captured("paused", "10.0").main, tmp_path / "capture")
    with pytest.raises(sw.UsageError, match="the capture itself"):
        sw.stream.open(tmp_path / "capture").squash(tmp_path / "capture")
    sw.stream.open(tmp_path / "capture").validate()


def test_a_core_file_opens_in_gdb(captured, tmp_path):
    capture = captured("plain", "10.0")
    found, path = sw.stream.open(capture.main), tmp_path / "core"
    written = found.core(path)
    assert written["processors"] == 1
    assert [part["block"] for part in written["segments"]] == ["pc.ram", "pc.bios"]
    cpu = next(device for device in found.devices if device.name == "cpu")
    if not shutil.which("gdb"):
        pytest.skip("no gdb here")
    commands = ["info registers rip rax", "x/8xb 0x400000"]
    script = [part for command in commands for part in ("-ex", command)]
    said = subprocess.run(
        ["gdb", "-q", "-nx", "-batch", "-c", path, *script], capture_output=True, text=True, check=True
    )
    assert f"0x{cpu.state['env.eip']:x}" in said.stdout
    memory = found.memory("pc.ram")[0x400000:0x400008]
    assert "\t".join(f"0x{byte:02x}" for byte in memory) in said.stdout


def test_addresses_that_nobody_knows_are_asked_for(captured, tmp_path):
    found = sw.stream.open(captured("blocks", "10.0").main)
    written = found.core(tmp_path / "core", {"low": 0, "high": 8 << 20})
    assert {part["block"]: part["address"] for part in written["segments"]}["high"] == 8 << 20
    assert "stick" in written["left_out"]


def test_two_moments_of_one_guest_differ_where_it_wrote(captured):
    a, b = (sw.stream.open(captured("file", release).main) for release in ("10.0", "7.2"))
    found = a.diff(b)
    assert {block["block"] for block in found["blocks"]} >= {"pc.ram"}
    one = next(block for block in found["blocks"] if block["block"] == "pc.ram")
    pages = (a.memory("pc.ram").reshape(-1, 4096) != b.memory("pc.ram").reshape(-1, 4096)).any(axis=1)
    assert one["pages"] == pages.sum()
    assert any(field["field"].startswith("timer/0/") for field in found["fields"])


def test_the_command(captured, tmp_path):
    capture = captured("plain", "10.0")
    run = lambda *arguments: CliRunner().invoke(group, ["stream", *arguments])  # noqa: E731
    summed = run("inspect", str(capture.main))
    assert summed.exit_code == 0
    assert "pc-i440fx-10.0" in summed.output
    assert len(summed.output.splitlines()) < 60
    assert json.loads(run("inspect", "--json", str(capture.main)).output)["complete"] is True
    assert "page 0 of pc.ram" in run("inspect", "--events", str(capture.main)).output
    taken = run("extract", str(capture.main), "-o", str(tmp_path / "out"))
    assert taken.exit_code == 0
    assert (tmp_path / "out" / "pc.ram").stat().st_size == 16 << 20
    assert json.loads((tmp_path / "out" / "devices.json").read_text())
    assert run("validate", str(capture.main)).output.startswith("valid: pc-i440fx-10.0, 16.5 MiB")
    (tmp_path / "cut").write_bytes(capture.main.read_bytes()[:5000])
    cut = run("validate", str(tmp_path / "cut"))
    assert cut.exit_code != 0


@pytest.mark.parametrize("how", ["plain", "gzip"])
def test_the_command_reads_a_stream_as_it_flows(captured, how):
    data = captured("plain", "7.2").main.read_bytes()
    for command, said in ((["inspect"], "pc-i440fx-7.2"), (["validate"], "valid: pc-i440fx-7.2")):
        done = subprocess.run(
            [sys.executable, "-m", "switchover", "stream", *command, "-"],
            input=data if how == "plain" else gzip.compress(data, 1),
            stdout=subprocess.PIPE,
            check=True,
        )
        assert said in done.stdout.decode()


def test_the_command_writes_mapped_ram_and_says_what_it_took(captured, tmp_path):
    capture, out = captured("multifd", "10.0"), tmp_path / "small"
    arguments = ["stream", "squash", str(capture.main.parent), "-o", str(out), "--mapped-ram", "--json"]
    done = CliRunner().invoke(group, arguments)
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["bytes"] == out.stat().st_size
    assert sw.stream.open(out).summary["features"] == ["mapped-ram"]
