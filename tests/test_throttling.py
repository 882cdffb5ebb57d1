"""Policies that are asked between rounds, writers that are held back, and what it cost."""

import threading
import time

import pytest
import switchover as sw
from conftest import QUICK, runs_on

SLOW = {**QUICK, "warm_up": "30ms", "link": "200Mbit/s"}


class Sampled:
    """Notes what it is shown; says `answer` from a time on."""

    def __init__(self, answer=None, after=0.0, rounds=3):
        self.samples, self.rounds = [], []
        self.answer, self.after, self.most = answer, after, rounds

    def __call__(self, round, history):
        self.rounds.append(round)
        return sw.Decision.switchover("enough") if round.index == self.most else sw.Decision.proceed()

    def sample(self, sample):
        self.samples.append(sample)
        if sample.elapsed < self.after:
            return None
        return self.answer() if callable(self.answer) else self.answer


def test_a_policy_with_a_method_sample_is_shown_samples(guest):
    policy = Sampled(rounds=1)
    report = sw.migrate(guest, policy=policy, **SLOW)
    assert report.outcome == "completed"
    first = policy.samples[0]
    assert (first.round, first.remaining_bytes, first.memory_bytes) == (0, 16 << 20, 16 << 20)
    elapsed = [sample.elapsed for sample in policy.samples]
    assert elapsed == sorted(elapsed)
    # Round 0 takes 0.7 s.
    assert sum(sample.round == 0 for sample in policy.samples) >= 5
    sent = [sample.sent_bytes for sample in policy.samples]
    assert sent == sorted(sent)
    assert sent[-1] > 0


def test_a_decision_inside_a_round_is_acted_upon(guest):
    policy = Sampled(sw.Decision.switchover("a fifth of a second"), after=0.2)
    report = sw.migrate(guest, policy=policy, **SLOW)
    assert report.outcome == "completed"
    assert policy.rounds == []
    assert list(report.rounds["live"]) == [True, False]
    assert report.rounds["remaining_pages"][0] > 0
    assert report.verified is True
    runs_on(guest)


def test_what_a_sample_raises_is_the_cause(guest):
    mine = ValueError("mine")

    def answer():
        raise mine

    with pytest.raises(sw.PolicyError, match="ValueError: mine") as caught:
        sw.migrate(guest, policy=Sampled(answer), **QUICK)
    assert caught.value.__cause__ is mine
    runs_on(guest)


def test_a_sample_that_is_answered_with_nonsense_fails_the_run(guest):
    with pytest.raises(sw.PolicyError, match="no Decision"):
        sw.migrate(guest, policy=Sampled("switchover"), **QUICK)
    runs_on(guest)


def test_policies_compose_inside_rounds_too(guest):
    policy = sw.policies.DowntimeLimit("1us") | Sampled(sw.Decision.abort("mine"), after=0.1)
    report = sw.migrate(guest, policy=policy, **SLOW)
    assert (report.outcome, report.reason) == ("aborted", "mine")
    assert report.guest_cost["during"] > 0


def test_a_policy_of_the_core_takes_samples_from_python():
    policy = sw.policies.LibvirtTimeout(10.0)
    assert policy.sample(sw.Sample()).blackout == 0.3
    assert policy.sample(sw.Sample(elapsed=9.0, sent_bytes=1)) is None
    assert policy.sample(sw.Sample(elapsed=10.0, sent_bytes=2)).kind == "switch_over"
    assert policy.sample(sw.Sample()).blackout == 0.3, "a new run"
    assert policy(sw.Round(index=0, elapsed=1.0, expected_blackout=9.0), []).kind == "proceed"


def test_samples_come_back_out_of_their_json():
    sample = sw.Sample(round=3, elapsed=1.5, bandwidth=1e8, remaining_bytes=4096, sent_bytes=7, memory_bytes=9)
    assert sw.Sample.from_json(sample.to_json()) == sample


def test_watchers_are_shown_samples(guest):
    watcher = Sampled(sw.Decision.abort("here"), after=0.1)
    report = sw.migrate(guest, policy="max-rounds:1", shadow={"mine": watcher}, **SLOW)
    assert report.outcome == "completed"
    said = [e for e in report.events if e["event"] == "shadow" and e["decision"]["kind"] == "abort"]
    assert len(said) == 1
    assert said[0]["time"] >= 0.1


LIMITS = {
    "throttle": sw.Decision.throttle(50, "half"),
    "quota": sw.Decision.limit(dirty_rate="1MiB/s", reason="a quota"),
    "delay": sw.Decision.limit(write_delay="200us", reason="a delay"),
}


@pytest.mark.parametrize("name", ["throttle", "delay"])
def test_writers_are_held_back_and_the_report_says_so(guest, name):
    report = sw.migrate(guest, policy=Sampled(LIMITS[name], rounds=2), **SLOW)
    assert (report.outcome, report.verified) == ("completed", True)
    assert report.guest_cost["held_time"] > 0.1
    assert report.brownout["loss"] > 0
    assert report.brownout["at_destination"] is not None
    assert report.effective_downtime == pytest.approx(report.brownout["loss"] + report.blackout)
    assert report.progress["at_destination"].any()
    if name == "throttle":
        assert (report.progress["throttle"] == 50).any()
        assert (report.rounds["throttle"][:-1] == 50).all()
    runs_on(guest)


def test_a_quota_is_accepted(guest):
    report = sw.migrate(guest, policy=Sampled(LIMITS["quota"], rounds=1), **SLOW)
    assert report.outcome == "completed"


def test_a_python_workload_is_held_back_by_what_it_says():
    def work(memory):
        memory[:4096] += 1
        return 4096

    with sw.Guest("4MiB", work) as guest:
        report = sw.migrate(
            guest, policy=Sampled(sw.Decision.limit(write_delay="5ms", reason="slow"), rounds=1), **SLOW
        )
        assert report.outcome == "completed"
        assert report.guest_cost["held_time"] > 0.05


def test_limits_of_writers_are_parsed_and_travel():
    limit = sw.Decision.limit(dirty_rate="10MB/s", write_delay="1ms")
    assert (limit.dirty_rate, limit.write_delay) == (1e7, 1e-3)
    assert sw.Decision.from_dict(limit.to_dict()) == limit
    with pytest.raises(sw.UsageError):
        sw.Decision.limit(write_delay="soon")


def test_without_a_cool_down_the_destination_is_not_observed(guest):
    report = sw.migrate(guest, policy="max-rounds:1", cool_down=0, **QUICK)
    assert report.guest_cost["after"] is None
    assert report.brownout["at_destination"] is None
    assert "destination not observed" in str(report)


def test_the_plot_shows_speed_and_throttle(guest, capsys):
    report = sw.migrate(guest, policy=Sampled(LIMITS["throttle"], rounds=2), **SLOW)
    report.plot()
    shown = capsys.readouterr().out
    assert "throttle" in shown
    assert "50 %" in shown
    assert "at the destination" in shown
    assert len(report.pace_chart().splitlines()) <= 45


def test_a_report_from_before_brownouts_is_read(guest):
    data = sw.migrate(guest, policy="max-rounds:1", **QUICK).data
    old = sw.Report({k: v for k, v in data.items() if k not in ("brownout", "progress", "effective_downtime")})
    assert (old.brownout, old.effective_downtime, len(old.progress)) == (None, None, 0)
    assert old.pace_chart() == ""
    assert "unknown" in str(old)


@pytest.mark.parametrize("arguments", [{"warm_up": "1h"}, {"warm_up": "1ms", "stall_timeout": "1h"}])
def test_cancelling_acts_while_the_run_waits(guest, arguments, tmp_path):
    """In the warm-up, and while a peer that took the connection says nothing."""
    import socket

    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent"))
        silent.listen()
        m = sw.Migration(guest, "pre-copy", to=f"unix:{tmp_path / 'silent'}", **arguments)
        with m:
            threading.Thread(target=lambda: (time.sleep(0.05), m.cancel())).start()
            assert list(m) == []
    assert (m.report.outcome, m.report.reason) == ("aborted", "cancelled")
    runs_on(guest)


def test_a_tracker_of_vcpus_is_refused_to_threads_before_the_run(guest):
    blind = [part for part in sw.trackers.describe() if part["only_vcpus"] and not part.get("unavailable")]
    if not blind:
        pytest.skip("no KVM here")
    for part in blind:
        with pytest.raises(sw.TrackerUnavailable, match="threads"):
            sw.migrate(guest, tracker=part["name"], **QUICK)
    assert guest.progress.operations == 0


@pytest.mark.parametrize("policy", list(sw.policies.registry), ids=lambda policy: policy.name)
def test_every_policy_says_rule_units_defaults_and_origin(policy):
    doc = policy.__doc__
    lines = doc.splitlines()
    assert lines[0].endswith("."), "the rule in a sentence"
    assert "Origin:" in doc
    told = " ".join(doc.split())
    assert "never ends" in told or "always ends" in told
    for knob in policy.knobs:
        line = next(line for line in lines if line.strip().startswith(f"{knob.name}: "))
        if knob.default not in (None, []):
            assert "Default " in line, line
        if knob.unit in ("seconds", "bytes", "bytes_per_second"):
            assert "In " in line, line
