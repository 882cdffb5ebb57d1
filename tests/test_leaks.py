"""Nothing is left of a migration: threads, descriptors, mappings."""

import gc
import time

import pytest
import switchover as sw
from conftest import QUICK, holdings


def whole():
    with sw.Guest("16MiB", "sweep:rate=20MB/s") as guest:
        assert (
            sw.migrate(guest, policy="max-rounds:2", link=sw.Link(channels=2, rtt="0.1ms"), **QUICK).outcome
            == "completed"
        )


def aborted():
    with sw.Guest("16MiB", "sweep:rate=20MB/s") as guest:
        assert sw.migrate(guest, policy=sw.policies.MaxRounds(1, then="abort"), **QUICK).outcome == "aborted"


def broken():
    with sw.Guest("16MiB", lambda memory: None) as guest, pytest.raises(sw.PolicyError):
        sw.migrate(guest, policy=lambda round, history: 1 / 0, **QUICK)


def refused():
    with sw.Guest("16MiB", "sweep") as guest, pytest.raises(sw.LinkError):
        sw.migrate(guest, to="unix:/nowhere/to/be/found", **QUICK)


def elsewhere():
    with sw.Guest("16MiB", "sweep:rate=20MB/s") as guest:
        assert sw.migrate(guest, policy="max-rounds:1", to="process", **QUICK).outcome == "completed"


def settled():
    gc.collect()
    return holdings()


@pytest.mark.parametrize("case", [whole, aborted, broken, refused, elsewhere], ids=lambda case: case.__name__)
def test_ten_runs_leave_nothing(case):
    case()  # what is made once for all
    before = settled()
    for _ in range(3 if case is elsewhere else 10):
        case()
    deadline = time.monotonic() + 10
    while settled() != before and time.monotonic() < deadline:
        time.sleep(0.05)  # a thread that has ended may be listed for a moment
    assert settled() == before
