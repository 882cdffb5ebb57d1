"""Codecs in the simulator: bytes and time a page, out of the trace's samples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import switchover as sw
from click.testing import CliRunner
from switchover import coding, samples
from switchover.cli import group

LIBRARY = Path(__file__).resolve().parent.parent / "examples" / "traces"
MEMORY = 64 << 20


def sampled(**sizes: float) -> sw.Trace:
    """A guest of pages of which so much remains."""
    trace = sw.Trace.generate(MEMORY, sw.workloads.Idle(rate=4096), duration="2s")
    page = {name: int(share * 4096 * 100) for name, share in sizes.items()}
    record = dict.fromkeys(samples.SAMPLE.names, 0) | {"pages": 100, "based": 100} | page
    trace.samples = samples.of_records([record])
    return trace


def seconds(trace: sw.Trace, codec: str, link: str = "400Mbit/s", **more: object) -> float:
    return sw.simulate(trace, sw.StopAndCopy(codec=codec), link=link, **more).blackout


def test_pages_pass_at_the_slower_of_link_and_encoder() -> None:
    """Pipelined: min(B / phi, C)."""
    trace = sampled(lz4=0.5, zstd=0.25, xbzrle=0.1, delta=0.1)
    for codec, phi in (("lz4", 0.5), ("zstd", 0.25)):
        for speed in (500e6, 80e6, 20e6):
            expected = MEMORY / min(50e6 / phi, speed)
            assert seconds(trace, codec, encode_rate=speed) == pytest.approx(expected, rel=0.02)
    assert seconds(trace, "lz4", encode_rate="20MB/s") > seconds(trace, "raw") > seconds(trace, "lz4")


def test_a_page_that_was_sent_before_costs_h_c_and_1_minus_h() -> None:
    found = {"lz4": 0.5, "zstd": 0.4, "xbzrle": 0.05, "delta": 0.05, "duplicates": 0.0}
    for room, hit in ((1.0, 1.0), (0.5, 0.5), (0.1, 0.1)):
        left = coding.shares({"name": "xbzrle", "cache": room * 1e6}, found, 1e6)
        assert left == pytest.approx((1.0, hit * 0.05 + 1 - hit))
    assert coding.shares({"name": "adaptive"}, found, 0.0) == pytest.approx((0.4, 0.05))


def test_differences_make_a_guest_converge_that_would_not() -> None:
    """It converges if lambda s < 1."""
    trace = sw.Trace.generate("64MiB", sw.workloads.Uniform(rate="300MB/s"), duration="10s")
    trace.samples = sampled(lz4=0.9, zstd=0.9, xbzrle=0.05, delta=0.05).samples
    runs = [
        {"strategy": sw.PreCopy(codec=codec), "policy": "downtime-limit:30ms", "longest": "30s"}
        for codec in ("zero", "xbzrle", "delta")
    ]
    assert sw.simulate_many(trace, runs)["outcome"].tolist() == ["failed", "completed", "completed"]


def test_raw_sends_zero_pages_and_all_others_name_them() -> None:
    trace = sampled(lz4=1.0, zstd=1.0, xbzrle=1.0, delta=1.0)
    sent = {codec: sw.simulate(trace, sw.StopAndCopy(codec=codec), zero_share=0.5) for codec in ("raw", "zero", "lz4")}
    assert sent["raw"].data["zero_pages"] == 0 < sent["zero"].data["zero_pages"] == sent["lz4"].data["zero_pages"]
    assert sent["raw"].sent_bytes > 1.8 * sent["lz4"].sent_bytes


def test_a_trace_without_samples_says_what_is_missing() -> None:
    trace = sw.Trace.generate("4MiB", "idle", duration="1s")
    with pytest.raises(sw.UsageError, match="no samples"):
        sw.simulate(trace, sw.PreCopy(codec="lz4"))
    with pytest.raises(sw.UsageError, match="encode_rate"):
        sw.simulate(trace, sw.PreCopy(codec="raw"), encode_rate=0)
    with pytest.raises(sw.UsageError, match="encode_rate"):
        sw.simulate(trace, encode_rate=0)


def test_the_command_takes_a_codec() -> None:
    path = str(LIBRARY / "numpy.parquet")
    sent = {}
    for codec in ("zero", "delta-zstd"):
        command = ["simulate", path, "--codec", codec, "--encode-rate", "400MB/s", "-p", "max-rounds:3", "--json"]
        done = CliRunner().invoke(group, command, standalone_mode=False)
        assert done.exception is None, done.output
        sent[codec] = json.loads(done.stdout)[0]["sent_bytes"]
    assert sent["delta-zstd"] < sent["zero"]


@pytest.mark.parametrize("codec", [name for name in sw.codecs.names() if name != "zero"])
def test_every_codec_has_a_model_of_a_real_trace(codec: str) -> None:
    trace = sw.Trace.load(LIBRARY / "numpy.parquet")
    report = sw.simulate(trace, sw.PreCopy(codec=codec), "max-rounds:3")
    assert report.outcome == "completed"
    assert report.sent_bytes <= sw.simulate(trace, sw.PreCopy(codec="raw"), "max-rounds:3").sent_bytes * 1.01
