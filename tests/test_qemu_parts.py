"""The parts of the QEMU world that need no QEMU: features, plans, figures, vantage points, the guest's parameters."""

import itertools
import math
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
import switchover as sw
from hypothesis import given
from hypothesis import strategies as st
from switchover.qemu import Event, Features, cost, guest, plan
from switchover.qemu.figures import ROWS, Ledger, Look
from switchover.qemu.vantage import PARTS, Moments, choose

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


def moments(one_clock=True, **more):
    found = Moments(one_clock, **more)
    told = [("source", event("STOP", 1.0)), ("source", event("MIGRATION_PASS", 1.1))]
    told += [("source", event("MIGRATION_PASS", 1.2)), ("destination", event("RESUME", 1.5))]
    told += [("source", event("MIGRATION", 1.75, status="completed"))]
    for side, said in told:
        found.note(side, said)
    return found


@pytest.mark.parametrize("one_clock", [True, False])
def test_the_events_gap_and_its_parts(one_clock):
    seen = moments(one_clock)
    assert seen.events_gap == pytest.approx(0.5)
    parts = seen.parts()
    assert parts["harvest"] + parts["last_ram_to_load"] == pytest.approx(seen.events_gap)
    assert parts["acknowledge"] == pytest.approx(0.25)
    unknown = {name for name, part in parts.items() if part is None}
    assert unknown == {"stop", "last_ram", "device_state", "load", "resume"}


def heard(last, first):
    """Heartbeats at times of the events' own stamps, on this machine's monotonic clock."""
    offset = time.time() - time.monotonic()
    return last + 1000.5 - offset, first + 1000.5 - offset


def passed(**times):
    return {name: at + 1000.5 for name, at in times.items()}


def test_with_heartbeats_and_a_relay_every_part_is_known_and_they_add_up_to_the_guests_gap():
    wire = passed(last_ram_begins=1.05, last_ram_ends=1.3, sections_end=1.4, description_ends=1.41)
    parts = moments(beats=heard(0.98, 1.53), wire=wire | {"beside": None, "error": None}).parts()
    expected = {"stop": 0.02, "harvest": 0.1, "last_ram": 0.2, "device_state": 0.1, "load": 0.1, "resume": 0.03}
    assert {name: parts[name] for name in PARTS} == pytest.approx(expected, abs=1e-3)
    assert parts["last_ram_to_load"] == pytest.approx(0.4)


def test_pages_that_went_beside_the_main_channel_are_memory_too():
    wire = passed(last_ram_ends=1.2, sections_end=1.21, beside=1.35)
    parts = moments(wire=wire).parts()
    assert (parts["last_ram"], parts["device_state"], parts["load"]) == pytest.approx((0.25, 0.0, 0.15))


def test_in_post_copy_no_memory_is_sent_in_the_blackout():
    wire = passed(package_begins=1.2, package_ends=1.25, last_ram_ends=9.0, sections_end=9.0, beside=9.0)
    parts = moments(wire=wire, post_copy=True).parts()
    assert (parts["last_ram"], parts["acknowledge"]) == (None, None)
    assert (parts["device_state"], parts["load"]) == pytest.approx((0.15, 0.25))


@given(st.lists(st.one_of(st.none(), st.floats(0.9, 1.6)), min_size=3, max_size=3), st.booleans())
def test_stamps_that_are_out_of_turn_make_no_part_negative_and_none_longer_than_the_whole(found, listens):
    names = ("last_ram_ends", "sections_end", "beside")
    wire = {name: None if at is None else at + 1000.5 for name, at in zip(names, found, strict=True)}
    seen = moments(beats=heard(1.01, 1.49) if listens else None, wire=wire)
    parts = [part for name, part in seen.parts().items() if name in PARTS and part is not None]
    assert all(part >= 0 for part in parts)
    assert sum(parts) <= 0.5 + 1e-3


def test_a_stop_that_was_taken_back_is_none():
    moments = Moments()
    for name in ("STOP", "RESUME"):
        moments.note("source", event(name, 1.0))
    assert moments.events_gap is None


def test_the_blackout_is_the_guests_own_if_it_was_heard():
    assert choose({"guest_gap": 1.0, "events_gap": 2.0, "sender_pause": 3.0}) == (1.0, "guest_gap")
    assert choose({"guest_gap": None, "events_gap": 2.0, "sender_pause": 3.0}) == (2.0, "events_gap")
    assert choose({"sender_pause": None}) == (None, None)


def test_a_relay_tells_when_bytes_have_come_out_of_its_link_and_not_when_they_went_in():
    with socket.create_server(("127.0.0.1", 0)) as far, sw.qemu.Relay(sw.Link(rtt="400ms")) as relay:
        assert relay.moments() == {}
        host, port = relay(f"tcp:127.0.0.1:{far.getsockname()[1]}").removeprefix("tcp:").rsplit(":", 1)
        with socket.create_connection((host, int(port))) as near, far.accept()[0] as there:
            sent = time.time()
            # A main channel without a section.
            near.sendall(b"QEVM\0\0\0\3\0")
            there.settimeout(30)
            assert there.recv(1) == b"Q"
            deadline = time.monotonic() + 30
            while (seen := relay.moments()["sections_end"]) is None:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        assert seen >= sent + 0.19
        assert relay.carried == 9


def report_of(timeline=(), blackout=0.25):
    return {"blackout": blackout, "qemu": {"timeline": list(timeline)}}


def test_what_the_guest_lost():
    """A hundred a second for a second, then half of it for two, a blackout, and all of it again."""
    there = [(at / 10, at * 10) for at in range(11)] + [(1 + at / 10, 100 + at * 5) for at in range(1, 21)]
    here = [(3.5 + at / 10, 200 + at * 10) for at in range(6)]
    timeline = [{"time": 0.5, "qemu": {"cpu-throttle-percentage": 50}}]
    data = report_of(timeline)
    cost.fill(data, there, here, 1.0001)
    found = data["guest_cost"]
    assert (found["before"], found["during"], found["after"]) == pytest.approx((100.0, 50.0, 100.0))
    assert (found["slowdown"], found["write_rate"]) == pytest.approx((0.5, 409600.0))
    assert data["brownout"]["at_source"] == pytest.approx(0.95, abs=0.01)
    assert data["brownout"]["at_destination"] == 0.0
    assert data["effective_downtime"] == pytest.approx(data["brownout"]["loss"] + 0.25)
    assert all(point["throttle"] == (50.0 if point["time"] >= 0.5 else 0.0) for point in data["progress"])
    assert {point["place"] for point in data["progress"]} == {"source", "destination"}


def test_a_guest_that_says_nothing_of_its_work_has_no_cost_that_is_known():
    data = report_of()
    cost.fill(data, [], [], 0.0)
    assert set(data["guest_cost"].values()) == {None}
    assert (data["brownout"], data["effective_downtime"], data["progress"]) == (None, None, [])
    assert cost.rate([(1.0, 5)]) is None


@given(st.lists(st.floats(0.001, 0.3), max_size=60))
def test_progress_is_thinned_but_keeps_its_ends(steps):
    said = list(itertools.accumulate(steps, lambda before, step: (before[0] + step, before[1] + 1), initial=(0.0, 0)))
    kept = list(cost.thinned(said))
    assert (kept[0], kept[-1]) == (said[0], said[-1])
    assert all(after[0] - before[0] > cost.STEP - 1e-9 for before, after in itertools.pairwise(kept[:-1]))
    assert len(kept) == len(set(kept))


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
