"""The parts of the QEMU world that need no QEMU: features, plans, figures, vantage points, the guest's parameters."""

import math
import shutil
import subprocess
from pathlib import Path

import pytest
import switchover as sw
from hypothesis import given
from hypothesis import strategies as st
from switchover.qemu import Event, Features, guest, plan
from switchover.qemu.figures import ROWS, Ledger, Look
from switchover.qemu.own import cost, rate
from switchover.qemu.vantage import Moments, choose

OLD = ("events", "return-path", "postcopy-ram", "postcopy-preempt", "xbzrle", "multifd", "auto-converge")
PARAMETERS = ("max-bandwidth", "downtime-limit", "xbzrle-cache-size", "multifd-channels", "multifd-compression",
              "multifd-zstd-level", "cpu-throttle-initial", "cpu-throttle-increment", "max-cpu-throttle",
              "throttle-trigger-threshold", "tls-creds")  # fmt: skip


class Known:
    """What a QEMU can do, by word of mouth."""

    version = "9.9.9"
    capabilities = dict.fromkeys(OLD, False)
    parameters = dict.fromkeys(PARAMETERS, 0)

    def choices(self, command, *path):
        return ("none", "zstd") if path == ("multifd-compression",) else ()

    def transports(self):
        return ("socket", "exec")

    def has_command(self, name):
        return False


def made(strategy="pre-copy", features="", policy=None, uri="tcp:there:1"):
    return plan.make(strategy, Features.of(features), policy, uri, source=Known(), destination=Known())


def test_features_read_text_and_keep_units():
    found = Features.of(
        "multifd=4,compression=zstd,bandwidth=1Gbit/s,downtime_limit=20ms,xbzrle,x-colo=on,announce-step=7"
    )
    assert (found.multifd, found.compression, found.bandwidth, found.downtime_limit) == (4, "zstd", 125e6, 0.02)
    assert found.xbzrle is True
    assert (found.capabilities, found.parameters) == ({"x-colo": True}, {"announce-step": 7})
    assert Features.of(found.given()) == found
    assert Features().given() == {}
    with pytest.raises(sw.UsageError, match="whole number"):
        Features.of("multifd=many")
    with pytest.raises(sw.UsageError, match="0 to 255"):
        Features(multifd=256)


def test_a_plan_sets_both_sides_alike_where_both_must_agree():
    found = made(features="multifd=3,compression=zstd,compression_level=2,bandwidth=1MB/s")
    assert found.source.capabilities == {"multifd": True, "events": True, "return-path": True}
    assert found.destination.capabilities == {"multifd": True, "events": True}
    assert found.source.parameters["multifd-zstd-level"] == 2
    assert found.destination.parameters == {"multifd-channels": 3, "multifd-compression": "zstd"}
    assert not found.held


def test_a_policy_takes_the_decision_from_qemu_and_throttling_is_prepared_for_those_that_may():
    calm, callable_ = made(policy=sw.policies.MaxRounds(3)), made(policy=lambda round, history: None)
    assert calm.source.parameters["downtime-limit"] == plan.HELD_MS == 1
    assert "auto-converge" not in calm.source.capabilities
    assert callable_.throttles
    assert callable_.source.parameters["max-cpu-throttle"] == 1
    mixed = sw.policies.any_of(sw.policies.MaxRounds(3), sw.policies.QemuAutoConverge())
    assert plan.may_throttle(mixed)
    assert not plan.may_throttle(sw.policies.any_of(sw.policies.MaxRounds(3), sw.policies.Xen()))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"uri": "elsewhere"}, "begins with one of tcp:"),
        ({"uri": "file:/x"}, "writes no files"),
        ({"strategy": "post-copy", "uri": "exec:cat"}, "needs a destination that answers"),
        ({"strategy": "teleport"}, "teleport"),
        ({"features": "dirty_limit=1MB/s"}, "no capability dirty-limit"),
        ({"features": "zero_pages=none"}, "no parameter zero-page-detection"),
        ({"policy": sw.policies.QemuDirtyLimit()}, "no command set-vcpu-dirty-limit"),
        ({"policy": sw.policies.any_of(sw.policies.MaxRounds(3), sw.policies.VmotionSdps())}, "first write"),
    ],
)
def test_what_cannot_be_is_refused(given, words):
    with pytest.raises(sw.UsageError, match=words):
        made(**given)


def test_a_strategy_of_any_spelling():
    assert plan.parse_strategy("postcopy")[0] == plan.POST_COPY
    assert plan.parse_strategy(sw.PreCopy) == ("pre-copy", {})
    assert plan.parse_strategy(sw.StopAndCopy())[0] == plan.STOP_AND_COPY
    assert made("hybrid:rounds=7").rounds == 7
    assert made("post-copy").rounds == 0
    assert made("stop-and-copy").source.parameters["downtime-limit"] == plan.AT_ONCE_MS


@given(st.floats(0, 99), st.floats(0, 99))
def test_throttle_settings_are_allowed_and_lead_to_the_aim(aim, now):
    found = plan.throttle_settings(aim, now)
    assert 1 <= found["cpu-throttle-initial"] <= found["max-cpu-throttle"] <= 99
    assert 1 <= found["cpu-throttle-increment"] <= 99
    assert 1 <= found["throttle-trigger-threshold"] <= 100
    # What QEMU does at its next act, if it throttles already.
    reached = min(round(now) + found["cpu-throttle-increment"], found["max-cpu-throttle"])
    assert reached == max(1, round(aim))


def look(time, sent, remaining, pages=0, **more):
    ram = {"transferred": sent, "remaining": remaining, "total": 1 << 20, "normal": pages, "duplicate": 0}
    return Look(time, {"status": "active", "ram": ram | more})


def test_rounds_out_of_looks():
    ledger = Ledger()
    for at in (look(0.5, 100, 900), look(0.7, 300, 700), look(1.0, 1000, 4096 * 3, 9)):
        ledger.note(at)
        ledger.begin(at)
    ended = ledger.end_round(ledger.last, live=True)
    assert (ended.index, ended.start, ended.duration, ended.sent_bytes, ended.sent_pages) == (0, 0.5, 0.5, 900, 9)
    assert (ended.remaining_pages, ended.memory_bytes) == (3, 1 << 20)
    assert ended.bandwidth == pytest.approx(700 / 0.3)
    assert ended.expected_blackout == pytest.approx(ended.remaining_bytes / ended.bandwidth)
    ledger.note(look(1.2, 5000, 0, 10))
    last = ledger.end_round(ledger.last, live=False)
    assert (last.index, last.live, last.sent_bytes, last.remaining_bytes) == (1, False, 4000, 0)
    assert [row["qemu"]["answer_delay"] for row in ledger.rounds] == [0.0, 0.0]


def test_without_a_bandwidth_the_blackout_is_unknown_and_counters_that_vanish_change_nothing():
    ledger = Ledger()
    ledger.note(look(0.0, 0, 10))
    ledger.begin(ledger.last)
    assert math.isinf(ledger.end_round(look(0.0, 0, 10), live=True).expected_blackout)
    assert ledger.rounds[0]["expected_blackout"] is None
    ledger.note(Look(1.0, {"status": "failed"}))
    assert ledger.last.time == 0.0


@pytest.mark.parametrize("count", [1, ROWS + 1, 3 * ROWS])
def test_the_timeline_stays_small(count):
    ledger = Ledger()
    for step in range(count):
        ledger.note(look(step, step, 0))
    assert len(ledger.timeline) <= ROWS + 1
    assert [row["time"] for row in ledger.timeline] == sorted(row["time"] for row in ledger.timeline)


def event(name, at, **data):
    return Event(name, data, at, at + 1000.5)


@pytest.mark.parametrize("one_clock", [True, False])
def test_the_events_gap_and_its_parts(one_clock):
    moments = Moments(one_clock)
    told = [("source", event("STOP", 1.0)), ("source", event("MIGRATION_PASS", 1.1))]
    told += [("source", event("MIGRATION_PASS", 1.2)), ("destination", event("RESUME", 1.5))]
    told += [("source", event("MIGRATION", 1.75, status="completed"))]
    for side, said in told:
        moments.note(side, said)
    assert moments.events_gap == pytest.approx(0.5)
    parts = moments.parts()
    assert parts["stop"] + parts["last_pages_state_load"] == pytest.approx(moments.events_gap)
    assert parts["acknowledge"] == pytest.approx(0.25)


def test_a_stop_that_was_taken_back_is_none():
    moments = Moments()
    for name in ("STOP", "RESUME"):
        moments.note("source", event(name, 1.0))
    assert moments.events_gap is None


def test_the_blackout_is_the_guests_own_if_it_was_heard():
    assert choose({"guest_gap": 1.0, "events_gap": 2.0, "sender_pause": 3.0}) == (1.0, "guest_gap")
    assert choose({"guest_gap": None, "events_gap": 2.0, "sender_pause": 3.0}) == (2.0, "events_gap")
    assert choose({"sender_pause": None}) == (None, None)


def test_what_the_guest_lost():
    there = [(0.0, 0), (1.0, 100), (2.0, 150), (3.0, 200)]
    beats = type(
        "Beats", (), {"source": type("L", (), {"progress": there}), "destination": type("L", (), {"progress": []})}
    )
    found = cost(beats, 1.5, 3.0)
    assert (found["before"], found["during"], found["slowdown"], found["after"]) == (100.0, 50.0, 0.5, None)
    assert rate([(1.0, 5)]) is None


@given(st.sampled_from(guest.PATTERNS), st.integers(16, 2048))
def test_the_guests_parameters_are_whole(pattern, mebibytes):
    words = dict(
        word.split("=", 1) for word in guest.command_line(pattern, mebibytes << 20).split() if "seg" not in word
    )
    line = guest.command_line(pattern, mebibytes << 20)
    segments = [tuple(map(int, word[4:].split(":"))) for word in line.split() if word.startswith("seg=")]
    pages = int(words["pages"])
    assert 1 <= int(words["gap"]) <= 0xFFFFFFFF
    assert len(segments) <= 95
    assert pages * 4100 + (3 << 20) < mebibytes << 20
    if segments:
        assert sum(weight for weight, _, _ in segments) == 65536
        assert all(count > 0 and first + count <= pages for _, first, count in segments)
    if "scatter" in words:
        assert math.gcd(int(words["scatter"]), pages) == 1


def test_a_zipf_law_in_steps_is_near_the_law():
    pages, s = 10_000, 0.99
    law = [rank**-s for rank in range(1, pages + 1)]
    whole = sum(law)
    for weight, first, count in guest._zipf(s, pages):
        share = sum(law[first : first + count]) / whole
        assert weight / 65536 == pytest.approx(share, abs=0.002)


def test_the_guest_is_its_source_compiled(tmp_path):
    if not (shutil.which("gcc") and shutil.which("objcopy")):
        pytest.skip("no compiler here")
    here = Path(guest.__file__).parent
    subprocess.run([Path(__file__).parents[1] / "scripts/guest", tmp_path / "hex"], check=True)
    shipped, made_here = guest.image(), bytes.fromhex((tmp_path / "hex").read_text())
    # Another compiler makes other instructions of it, but the same header: entry and addresses are the linker's.
    version = subprocess.run(["gcc", "-dumpfullversion"], capture_output=True, text=True, check=True).stdout
    assert made_here[:12] == shipped[:12]
    assert version.strip() != (here / "compiler").read_text().strip() or made_here == shipped
