"""Migrations within this process, whole and broken."""

import threading

import pytest
import switchover as sw
from conftest import QUICK, runs_on, workload_for

WORKING = [name for name, reason in sw.trackers.availability().items() if reason is None]
STRATEGIES = [sw.StopAndCopy(), *(sw.PreCopy(clear=clear) for clear in ("early", "skip", "late"))]


@pytest.mark.parametrize("tracker", WORKING)
@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_every_strategy_moves_a_running_guest_with_every_tracker(strategy, tracker):
    with sw.Guest("8MiB", workload_for(tracker), seed=7) as guest:
        report = sw.migrate(guest, strategy, sw.policies.MaxRounds(3), tracker=tracker, **QUICK)
        assert (report.outcome, report.reason, report.verified) == ("completed", "", True)
        assert report.tracking["tracker"] == tracker
        assert report.rounds["live"].sum() == (0 if strategy.name == "stop-and-copy" else 3)
        assert report.sent_pages >= 2048
        assert report.blackout > 0
        runs_on(guest)


def test_the_guest_object_is_the_guest_at_the_destination(guest):
    source = guest.memory
    sw.migrate(guest, sw.PreCopy(), sw.policies.MaxRounds(2), **QUICK)
    runs_on(guest)
    guest.pause()
    assert guest.memory.ctypes.data != source.ctypes.data
    assert (guest.memory != source).any()
    source[:4] = 1  # still mapped: the array holds it


@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_channels_and_a_shaped_link(guest, transport):
    link = sw.Link("2Gbit/s", rtt="1ms", channels=3, transport=transport)
    report = sw.migrate(guest, "pre-copy", "max-rounds:2", link=link, **QUICK)
    assert report.outcome == "completed"
    assert report.data["link"]["bandwidth"] == 2.5e8
    assert report.throughput < 3e8


def test_several_vcpus_and_blocks():
    loads = [sw.workloads.Sweep(rate="20MB/s"), "sweep:rate=10MB/s"]
    with sw.Guest("16MiB", loads, blocks={"low": "4MiB", "high": "12MiB"}, backing="memfd") as guest:
        assert {name: len(block) for name, block in guest.blocks.items()} == {"low": 4 << 20, "high": 12 << 20}
        with pytest.raises(sw.UsageError, match="several RAM blocks"):
            _ = guest.memory
        assert sw.migrate(guest, policy="max-rounds:2", **QUICK).outcome == "completed"
        runs_on(guest)


def test_a_policy_that_gives_up_leaves_the_guest_here(guest):
    report = sw.migrate(guest, policy=sw.policies.MaxRounds(2, then="abort"), **QUICK)
    assert report.outcome == "aborted"
    assert "rounds" in report.reason
    with pytest.raises(sw.SwitchoverError, match="aborted"):
        report.raise_for_outcome()
    runs_on(guest)


def test_shadow_policies_are_noted(guest):
    shadow = {"early": sw.policies.MaxRounds(1), "broken": lambda round, history: 1 / 0}
    report = sw.migrate(guest, policy="max-rounds:3", shadow=shadow, **QUICK)
    notes = [event for event in report.events if event["event"] == "shadow"]
    assert report.outcome == "completed"
    assert [note["decision"]["kind"] for note in notes if note["policy"] == "early"] == ["switch_over"] * 3
    assert all("division by zero" in n["decision"]["reason"]["text"] for n in notes if n["policy"] == "broken")


def test_on_round_sees_rounds_and_decisions(guest):
    seen = []
    sw.migrate(guest, policy="max-rounds:3", on_round=lambda round, decision: seen.append((round, decision)), **QUICK)
    assert [round.index for round, _ in seen] == [0, 1, 2]
    assert [decision.kind for _, decision in seen] == ["proceed", "proceed", "switch_over"]
    assert seen[0][0].memory_bytes == 16 << 20


def test_what_on_round_raises_comes_up_and_the_guest_stays(guest):
    def broken(round, decision):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        sw.migrate(guest, policy="max-rounds:3", on_round=broken, **QUICK)
    runs_on(guest)


def test_the_loop_by_hand(guest):
    with sw.Migration(guest, sw.PreCopy(), **QUICK) as m:
        for round in m:
            m.act(sw.Decision.switchover("enough") if round.index == 5 else sw.Decision.proceed())
    assert m.report.outcome == "completed"
    assert len(m.report.rounds) == 7
    assert m.sent_bytes == m.report.sent_bytes
    assert m.report.events[0]["decision"]["reason"]["text"] == "enough"
    with pytest.raises(sw.UsageError, match="once"), m:
        pass


def test_leaving_the_loop_cancels(guest):
    with sw.Migration(guest, sw.PreCopy(), **QUICK) as m:
        for _ in m:
            break
    assert (m.report.outcome, m.report.reason) == ("aborted", "cancelled")
    runs_on(guest)


def test_cancelling_from_another_thread(guest):
    with sw.Migration(guest, sw.PreCopy(), link="100Mbit/s", **QUICK) as m:
        thread = threading.Thread(target=m.cancel)
        for round in m:
            if round.index == 0:
                thread.start()
                thread.join()
    assert m.report.outcome == "aborted"
    runs_on(guest)


def test_a_guest_that_is_being_migrated_is_not_to_be_had(guest):
    with sw.Migration(guest, sw.PreCopy(), **QUICK):
        with pytest.raises(sw.UsageError, match="being migrated"):
            guest.pause()
        with pytest.raises(sw.UsageError, match="being migrated"), sw.Migration(guest, sw.PreCopy()):
            pass
    runs_on(guest)


def test_a_decision_that_the_strategy_cannot_carry_out_fails_the_run(guest):
    with pytest.raises(sw.PolicyError):
        sw.migrate(guest, policy=lambda round, history: sw.Decision.postcopy("now"), **QUICK)
    runs_on(guest)


def test_a_limit_of_blackout_switches_over_what_fits(guest):
    def generous(round, history):
        return sw.Decision.limit(blackout="10s", reason="no hurry")

    assert sw.migrate(guest, policy=generous, **QUICK).outcome == "completed"


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"memory": 0}, "too small"),
        ({"memory": "1EiB"}, "must be bytes"),
        ({"memory": "1PiB"}, "more than this machine has"),
        ({"memory": 2**80}, "more than an address"),
        ({"memory": (1 << 20) + 1}, "multiple of 4096"),
        ({"workload": "swep"}, "did you mean `sweep`"),
        ({"workload": 7}, "a workload was expected"),
        ({"workload": []}, "from 1 to"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"backing": "tape"}, "backing must be one of"),
        ({"huge_pages": True}, "huge_pages must be one of"),
        ({"blocks": {"a": "1MiB"}}, "the blocks have"),
        ({"fill": "zreo"}, "did you mean `zero`"),
    ],
)
def test_absurd_guests_are_refused(arguments, match):
    with pytest.raises(sw.UsageError, match=match):
        sw.Guest(**{"memory": "16MiB", "workload": "sweep", **arguments})


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"strategy": "pre-cpy"}, "did you mean `pre-copy`"),
        ({"policy": "downtime"}, "no policy"),
        ({"policy": None}, "policy"),
        ({"policy": 3}, "policy was expected"),
        ({"tracker": "ufd-async"}, "did you mean `uffd-async`"),
        ({"link": "quick"}, "bandwidth"),
        ({"link": 3}, "link was expected"),
        ({"link": sw.Link(channels=99)}, "from 1 to 16"),
        ({"link": sw.Link("100GB/s", rtt="1s")}, "under way"),
        ({"to": "nowhere"}, "port is missing"),
        ({"to": 3}, "to must be"),
        ({"stall_timeout": 0}, "stall_timeout"),
        ({"warm_up": "soon"}, "warm_up"),
        ({"shadow": "max-rounds"}, "shadow takes"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_starts(guest, arguments, match):
    with pytest.raises(sw.UsageError, match=match):
        sw.migrate(guest, **{"policy": "max-rounds:1", **arguments})
    assert guest.progress.operations == 0
    guest.start()
    runs_on(guest)


def test_a_closed_guest_says_so(guest):
    guest.close()
    for use in (guest.start, guest.check, lambda: guest.memory, lambda: sw.migrate(guest)):
        with pytest.raises(sw.UsageError, match="closed"):
            use()


def test_cool_down_measures_the_guest_where_it_arrived(guest):
    report = sw.migrate(guest, policy="max-rounds:1", cool_down="20ms", **QUICK)
    assert report.guest_cost["after"] > 0
