"""Guests that are a real Linux with a real program, moved while it works."""

import pytest
from test_examples import load
from vms import linux

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def watched(report):
    """It went on at the destination, and each part of the blackout was seen."""
    assert report.outcome == "completed"
    assert min(report.guest_cost["before"], report.guest_cost["after"]) > 0
    parts = report.data["blackout_parts"]
    assert min(parts[name] for name in ("stop", "harvest", "last_ram", "device_state", "load", "resume")) >= 0
    assert report.blackout == report.guest_gap
    # The policy decides after six rounds; a QEMU in whose last window not a byte went may end by itself before.
    assert len(report.rounds) >= 6 or not [event for event in report.events if event["event"] == "decided"]
    return report.progress[report.progress["at_destination"]]["operations"]


def test_redis_goes_on_with_its_data_whole(qemu):
    linux.require("redis")
    example = load("qemu_linux")
    report, calls = example.migrate(qemu.path)
    # What was counted before the migration is less than what the guest itself counted when it was checked.
    there = watched(report)
    assert example.KEYS < there[0] < there[-1] <= calls


def test_stress_ng_goes_on_and_finds_its_memory_whole(qemu):
    linux.require("stress-ng")
    report, operations = load("qemu_linux").migrate(qemu.path, "stress-ng")
    there = watched(report)
    assert 0 < there[0] < there[-1]
    assert operations > 0


def test_a_row_that_is_wrong_is_found(qemu):
    """What the check of the test above is worth."""
    linux.require("redis")
    example = load("qemu_linux")
    spoil = "$redis -n 0 setrange row:7 1999 x >/dev/null\nwrong=$("
    example.BODIES["redis"] = example.REDIS.replace("wrong=$(", spoil, 1)
    with example.Machine(qemu.path, "redis") as machine:
        machine.wait_for("F")
        assert machine.wait_for("K", "X", say=b"c") == "X1"
