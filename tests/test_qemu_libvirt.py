"""Beside libvirt, as docs/qemu.md describes it: a second monitor by QMP passthrough."""

import json

import pytest
import switchover as sw
from vms import libvirt
from vms.installed import require
from vms.libvirt import Domain
from vms.pair import CALM, runs

# libvirt takes its time to start a domain.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def daemon():
    # libvirt takes the system's QEMU.
    require("7.2")
    with libvirt.daemon():
        yield


def answered(domain, command):
    """Over libvirt's own monitor."""
    return json.loads(domain.ask(command))["return"]


def test_a_domain_moves_to_another_and_libvirt_sees_which_one_runs(daemon):
    with Domain("here", CALM) as source, Domain("there", CALM, incoming=True) as destination:
        source.wait_until_filled()
        source.hang_up()
        asked = ("query-migrate-capabilities", "query-migrate-parameters")
        before = [answered(side, each) for side in (source, destination) for each in asked]
        assert (source.state(), destination.state()) == ("running", "paused")
        with sw.qemu.Relay("1Gbit/s") as relay:
            report = sw.qemu.migrate(
                source.monitor, destination.monitor, policy="max-rounds:3", through=relay,
                heartbeat=(source.beat, destination.beat), warm_up="200ms", cool_down="200ms",
            )  # fmt: skip
        assert report.outcome == "completed", report.reason
        assert report.data["blackout_parts"]["device_state"] is not None
        runs(destination)
        assert (source.state(), destination.state()) == ("paused", "running")
        assert [answered(side, each) for side in (source, destination) for each in asked] == before
        assert answered(source, "query-status")["status"] == "postmigrate"


def test_what_fails_leaves_the_domain_running(daemon):
    with Domain("here", CALM) as source:
        source.wait_until_filled()
        source.hang_up()
        report = sw.qemu.migrate(source.monitor, "tcp:127.0.0.1:1")
        assert report.outcome == "failed"
        runs(source)
        assert source.state() == "running"
