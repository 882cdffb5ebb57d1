"""Rehearsals: the VM never moves, and is not stopped for a moment."""

import subprocess
import sys

import pytest
import switchover as sw
from vms.pair import CALM, STORM, pair, runs, settings

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize("workload", [CALM, STORM], ids=["an idle guest, which would converge at once", "a storm"])
def test_the_vm_never_moves(qemu, workload):
    with pair(qemu, workload) as (source, _):
        before = settings(source)
        if qemu.release == "7.2":
            with pytest.raises(sw.UsageError, match="has no capability switchover-ack"):
                sw.qemu.rehearse(source.monitor, "1s")
            return
        stops = []
        with sw.qemu.Qmp(source.monitor) as qmp:
            qmp.listen(lambda event: stops.append(event) if event.name == "STOP" else None)
            found = sw.qemu.rehearse(qmp, "1500ms", bandwidth="24MB/s", shadow=["max-rounds:1"])
            assert ask_status(qmp) == ("running", "cancelled")
        assert stops == []
        report = found.report
        assert (report.outcome, report.blackout) == ("aborted", None)
        assert report.total_time >= 1.5
        assert "the rehearsal is over; the guest runs at the source" in report.reason
        assert found.reception.bytes > 0
        assert found.reception.stopped is None
        assert any(event["event"] == "shadow" for event in report.events)
        runs(source)
        assert settings(source) == before


def test_a_rehearsal_is_recorded(qemu, tmp_path):
    """What is written again and again is in the trace, and the VM is as it was."""
    with pair(qemu, STORM) as (source, _):
        before, output = settings(source), tmp_path / "t.parquet"
        command = [
            sys.executable,
            "-m",
            "switchover",
            "record",
            "--qmp",
            str(source.monitor),
            "--duration",
            "2s",
            "--cap",
            "64MB/s",
            "-o",
            str(output),
        ]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if qemu.release == "7.2":
            assert (done.returncode, done.stdout) == (2, "")
            assert "has no capability switchover-ack" in done.stderr
            return
        assert done.returncode == 0, done.stderr
        trace = sw.Trace.load(output)
        assert trace.duration > 1
        assert "pc.ram" in trace.blocks
        assert trace.dirty_rate.max() > 1e6
        # The storm edits a few words of a page: differences are small, and that is known without the contents.
        shares = sw.samples.shares(trace.samples)
        assert trace.samples["pages"].sum() > 20
        assert trace.samples["based"].sum() > 5
        assert shares["xbzrle"] < 0.2
        assert trace.samples["interval"].max() < trace.intervals
        report = sw.simulate(trace, sw.PreCopy(codec="xbzrle"), "max-rounds:4")
        assert report.sent_bytes < sw.simulate(trace, sw.PreCopy(), "max-rounds:4").sent_bytes
        assert settings(source) == before
        runs(source)


def ask_status(qmp):
    return qmp.execute("query-status")["status"], qmp.execute("query-migrate")["status"]
