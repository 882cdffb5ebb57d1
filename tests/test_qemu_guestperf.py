"""guestperf's comparisons, and its reports."""

import json

import pytest
import switchover as sw
from switchover.qemu import guestperf


def record(status, passes, duration, counters=(0, 0, 0, 0), **more):
    """As guestperf writes one down; `counters`: bytes sent and remaining, pages sent whole and of zeros."""
    sent, remaining, normal, zero = counters
    total = 0 if status == "cancelled" else 1 << 30
    ram = {"transferred_bytes": sent, "remaining_bytes": remaining, "total_bytes": total, "duplicate_pages": zero,
           "skipped_pages": 0, "normal_pages": normal, "normal_bytes": normal * 4096, "dirty_rate_pps": 1000,
           "transfer_rate_mbs": 800, "iterations": passes}  # fmt: skip
    known = {"now": 1.5e9 + duration, "downtime": 0, "downtime_expected": 300, "setup_time": 7, "throttle_pcent": 0}
    return {"status": status, "ram": ram, "duration": duration, **known, **more}


def report(*history):
    names = (
        "guest_timings",
        "qemu_timings",
        "vcpu_timings",
        "binary",
        "dst_host",
        "kernel",
        "initrd",
        "transport",
        "sleep",
    )
    rest = dict.fromkeys(names)
    return {"hardware": {"cpus": 1, "mem": 1}, "scenario": {"name": "x", "post_copy": False}, **rest,
            "progress_history": history}  # fmt: skip


def test_a_report_is_read(tmp_path):
    history = [record("active", 1, 60, (10, 900, 0, 0)), record("active", 2, 1060, (4010, 800, 1, 2)),
               record("completed", 4, 2060, (9010, 0, 3, 2), downtime=42)]  # fmt: skip
    (tmp_path / "report").write_text(json.dumps(report(*history)))
    found = guestperf.read(tmp_path / "report")
    assert (found.outcome, found.sender_pause, found.blackout, found.total_time) == ("completed", 0.042, 0.042, 2.06)
    assert found.data["blackout_from"] == "sender_pause"
    assert found.rounds["sent_bytes"].tolist() == [4000, 5000]
    assert found.rounds["live"].tolist() == [True, False]
    assert found.rounds["zero_pages"].tolist() == [2, 0]
    assert found.rounds["bandwidth"].tolist() == [1e8, 1e8]
    assert found.rounds["dirty_rate"][0] == 4096000
    assert sw.Report.from_json(found.to_json()) == found


def test_a_cancelled_run_keeps_the_numbers_that_there_were(tmp_path):
    history = [
        record("active", 1, 60, (10, 900, 0, 0)),
        record("active", 2, 1060, (4010, 800, 0, 0)),
        record("cancelled", 0, 0),
    ]
    (tmp_path / "report").write_text(json.dumps(report(*history)))
    found = guestperf.read(tmp_path / "report")
    assert (found.outcome, found.sent_bytes, found.blackout, len(found.rounds)) == ("aborted", 4010, None, 1)
    assert found.total_time == 1.06


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"progress_history": []}', json.dumps(report({"status": 1}))])
def test_what_is_no_report_is_refused(tmp_path, text):
    (tmp_path / "report").write_text(text)
    with pytest.raises(sw.UsageError, match="is no report of guestperf"):
        guestperf.read(tmp_path / "report")


def test_the_suite_is_guestperfs_with_its_errors_mended():
    found = guestperf.suite(1 << 30)
    assert len({scenario.name for scenario in found}) == len(found)
    caches = [scenario.features["xbzrle"] for scenario in found if scenario.name.startswith("compr-xbzrle")]
    assert len(caches) == 4
    assert all(size & (size - 1) == 0 for size in caches)
    assert caches == sorted(set(caches))


def test_a_comparison_is_run_and_what_is_not_there_is_left_out(qemu):
    wanted = ("compr-multifd-compression/zstd", "compr-dirty-limit/10")
    done = guestperf.run(
        "16MiB", only=lambda name: name in wanted, link="400Mbit/s", binary=qemu.path, accelerator="tcg"
    )
    found = {name: (report and report.outcome, reason) for name, report, reason in done}
    assert found["compr-multifd-compression/zstd"] == ("completed", "")
    assert found["compr-dirty-limit/10"][0] is None
    assert "dirty" in found["compr-dirty-limit/10"][1]
