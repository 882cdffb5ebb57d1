"""Policies and workloads in Python."""

import threading
import time

import numpy as np
import pytest
import switchover as sw
from conftest import QUICK, runs_on


def test_a_policy_sees_rounds_and_history_in_the_callers_thread(guest):
    seen = []

    def policy(round, history):
        seen.append((threading.get_ident(), round, list(history)))
        return sw.Decision.switchover("enough") if round.index == 3 else sw.Decision.proceed()

    report = sw.migrate(guest, policy=policy, **QUICK)
    assert report.outcome == "completed"
    assert {thread for thread, _, _ in seen} == {threading.get_ident()}
    assert [[past.index for past in history] for _, _, history in seen] == [[], [0], [0, 1], [0, 1, 2]]
    assert report.data["policy"]["language"] == "python"
    assert report.rounds["remaining_pages"][3] == seen[3][1].remaining_pages


def test_what_a_policy_raises_is_the_cause(guest):
    mine = ValueError("mine")

    def policy(round, history):
        raise mine

    with pytest.raises(sw.PolicyError, match="ValueError: mine") as caught:
        sw.migrate(guest, policy=policy, **QUICK)
    assert caught.value.__cause__ is mine
    assert mine.__traceback__.tb_next is not None
    runs_on(guest)


@pytest.mark.parametrize("answer", [None, "switchover", 3, {"kind": "proceed"}])
def test_a_policy_that_answers_nonsense_fails_the_run(guest, answer):
    with pytest.raises(sw.PolicyError, match="no Decision"):
        sw.migrate(guest, policy=lambda round, history: answer, **QUICK)
    runs_on(guest)


def test_policies_of_both_languages_compose(guest):
    def never(round, history):
        return sw.Decision.proceed()

    two = sw.policies.MaxRounds(2)
    for policy in (two | never, sw.policies.any_of(never, two), two | (two | never)):
        assert len(sw.migrate(guest, policy=policy, **QUICK).rounds) == 3


def test_a_policy_that_calls_into_its_own_migration_is_refused(guest):
    m = None

    def policy(round, history):
        m.act(sw.Decision.proceed())

    m = sw.Migration(guest, "pre-copy", policy, **QUICK)
    with m:
        for _ in m:
            assert m.judge() is None
    assert isinstance(m.report.error.__cause__, sw.UsageError)
    assert "busy" in m.report.reason
    runs_on(guest)


def test_policies_of_the_core_are_callables_that_remember():
    policy = sw.policies.DirtyThreshold(rounds=3)
    rounds = [sw.Round(index=i, remaining_pages=100, memory_bytes=1 << 30) for i in range(3)]
    for _ in range(2):  # a second run begins at round 0
        kinds = [policy(round, rounds[:i]).kind for i, round in enumerate(rounds)]
        assert kinds == ["proceed", "proceed", "switch_over"]


def counting(memory):
    words = memory.view(np.uint64)
    words[::512] += 1


def test_a_workload_writes_memory_in_place_and_moves():
    with sw.Guest("16MiB", counting, fill="zero") as guest:
        report = sw.migrate(guest, policy="max-rounds:3", **QUICK)
        assert (report.outcome, report.verified) == ("completed", True)
        assert report.tracking["tracker"] != "software"
        runs_on(guest)
        guest.pause()
        words = guest.memory.view(np.uint64)[::512]
        assert len(set(words.tolist())) == 1  # every page was written as often as the first
        assert words[0] == guest.progress.operations
        assert guest.memory.flags.writeable


def test_a_workload_may_ask_for_the_time_and_tell_what_it_wrote():
    times = []

    def timed(memory, seconds):
        times.append(seconds)
        memory[0] ^= 1
        return 1

    with sw.Guest("1MiB", timed) as guest:
        guest.start()
        runs_on(guest)
        guest.pause()
        assert guest.progress.written == guest.progress.operations == len(times)
        assert times == sorted(times)


def test_a_workload_that_has_nothing_to_do_is_asked_less_and_counts_no_operation():
    calls = []

    def nothing(memory, seconds):
        calls.append(seconds)
        return 0

    with sw.Guest("1MiB", nothing) as guest:
        guest.start()
        while len(calls) < 20:
            time.sleep(0.001)
        guest.pause()
        # A millisecond lies between two calls; a pause may come in between.
        assert len(calls) <= guest.progress.seconds * 1000 + 2
        assert guest.progress.operations == 0


def test_several_workloads_have_a_region_each():
    def fill(value):
        def workload(memory):
            memory[:] = value

        return workload

    with sw.Guest("2MiB", [fill(1), fill(2), "sweep"]) as guest:
        guest.start()
        while not ((guest.memory == 1).sum() >= 170 * 4096 and (guest.memory == 2).sum() >= 170 * 4096):
            pass
        assert sw.migrate(guest, policy="max-rounds:2", **QUICK).verified


def test_what_a_workload_raises_crashes_its_guest_with_the_cause():
    mine = RuntimeError("mine")

    def broken(memory):
        raise mine

    with sw.Guest("1MiB", broken) as guest:
        guest.start()
        with pytest.raises(sw.VerificationError, match="RuntimeError") as caught:
            while True:
                guest.check()
        assert caught.value.__cause__ is mine
        report = sw.migrate(guest, policy="max-rounds:1", **QUICK)
        assert report.outcome == "failed"
        assert report.error.__cause__ is mine
        assert "crashed" in report.reason


def test_a_workload_that_answers_nonsense_crashes_its_guest():
    with sw.Guest("1MiB", lambda memory: "much") as guest:
        guest.start()
        with pytest.raises(sw.VerificationError, match="TypeError"):
            while True:
                guest.check()


@pytest.mark.parametrize("to", ["process", "127.0.0.1:1", "unix:/nowhere"])
def test_a_workload_stays_in_its_process(to):
    with sw.Guest("1MiB", counting) as guest:
        with pytest.raises(sw.UsageError, match="stays in this process"):
            sw.migrate(guest, to=to)
        assert guest.progress.operations == 0


def test_the_software_tracker_is_refused():
    with sw.Guest("1MiB", counting) as guest:
        with pytest.raises(sw.TrackerUnavailable, match="guest's own interface"):
            sw.migrate(guest, tracker="software")
        with pytest.raises(sw.TrackerUnavailable, match="guest's own interface"):
            sw.trackers.get("software").arm(guest)
        assert guest.progress.operations == 0


def test_a_workload_must_have_its_memory_in_one_piece():
    with sw.Guest("4MiB", [counting], blocks={"a": "2MiB", "b": "2MiB"}) as guest:
        guest.start()
        with pytest.raises(sw.VerificationError, match="one RAM block"):
            while True:
                guest.check()


def test_an_array_outlives_its_guest():
    with sw.Guest("1MiB", "sweep") as guest:
        memory = guest.memory
    del guest
    memory[:] = 5
    assert memory.sum() == 5 << 20
