"""Codecs in migrations: every one, alone and combined."""

import subprocess
import sys

import pytest
import switchover as sw
from conftest import QUICK, runs_on

COMBINED = ["delta-lz4", "zstd:level=3", "zero+dedup+delta-zstd", "zero+xbzrle+lz4:cache=1MiB"]
DISCIPLINES = ["early", "skip", "late"]


def sparse(memory="8MiB"):
    """A guest that changes counters in its pages, beside a store that checks its data."""
    loads = [sw.workloads.Sweep(rate="20MB/s", content=sw.contents.Counter()), sw.workloads.Kv()]
    return sw.Guest(memory, loads, seed=7)


@pytest.mark.parametrize("codec", [*sw.codecs.names(), *COMBINED])
def test_every_codec_migrates_with_verification_on(codec):
    clear, channels = DISCIPLINES[len(codec) % 3], 1 + 2 * (len(codec) % 2)
    with sparse() as guest:
        plan = sw.PreCopy(clear=clear, codec=codec)
        report = sw.migrate(guest, plan, "max-rounds:3", link=sw.Link(channels=channels), **QUICK)
        assert (report.outcome, report.reason, report.verified) == ("completed", "", True)
        runs_on(guest)
        if codec in ("raw", "zero"):
            assert report.coding is None
            return
        rows = report.coding["rounds"]
        by_kind = [sum(row[f"{kind}_pages"] for row in rows) for kind in ("zero", "encoded", "raw")]
        assert sum(by_kind) == report.sent_pages
        assert report.rounds["encoded_pages"].sum() == by_kind[1]
        assert "encoded" in report.summary()
        assert sw.Report.from_json(report.to_json()) == report


def test_a_codec_reaches_another_process():
    with sparse() as guest:
        report = sw.migrate(guest, sw.StopAndCopy(codec="zstd:dictionary=4KiB"), to="process", **QUICK)
        assert (report.outcome, report.verified) == ("completed", True)
        assert report.coding["decode_seconds"] > 0


def test_differences_shrink_pages_that_come_back():
    with sparse() as guest:
        report = sw.migrate(guest, sw.PreCopy(codec="xbzrle"), "max-rounds:4", **QUICK)
        last = report.coding["rounds"][-1]
        assert report.coding["hit_rate"] > 0
        assert last["encoded_bytes"] < 2048 * last["encoded_pages"]


def test_adaptive_says_what_it_chose():
    with sparse() as guest:
        report = sw.migrate(guest, sw.PreCopy(codec="adaptive"), "max-rounds:3", link="200Mbit/s", **QUICK)
        first = report.coding["rounds"][0]
        assert sum(first["choices"].values()) == first["encoded_pages"] + first["raw_pages"]
        assert any(name in report.summary() for name in first["choices"])


def test_names_combine_and_knobs_go_where_they_belong():
    chain = sw.codecs.parse("zero+delta-lz4+zstd:level=3")
    assert chain == sw.codecs.Chain(
        parts=[sw.codecs.Zero(), sw.codecs.Delta(inner="lz4", level=3), sw.codecs.Zstd(level=3)]
    )
    plan = sw.PreCopy(codec="zstd:level=3")
    assert repr(plan) == "PreCopy(codec=Zstd(level=3))"
    assert plan.replace(clear="early").codec == plan.codec
    wrong = {"zero+zsdt": "did you mean `zstd`", "zero+lz4:level=3": "no knob `level`", "zstd-lz4": "no knob `inner`"}
    for name, said in wrong.items():
        with pytest.raises(sw.UsageError, match=said):
            sw.PreCopy(codec=name)


def test_the_command_takes_codecs():
    command = [sys.executable, "-m", "switchover", "run", "-m", "4MiB", "-w", "sweep", "-c", "zero+lz4"]
    done = subprocess.run(
        [*command, "-p", "max-rounds:2", "--warm-up", "1ms", "--verify"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "of processor time to encode" in " ".join(done.stdout.split())
