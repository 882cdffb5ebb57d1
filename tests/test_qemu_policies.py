"""Policies of ours in charge of real QEMUs."""

import asyncio

import pytest
import switchover as sw
from vms.pair import CALM, SLOW, STORM, pair, runs, settings

# Two virtual machines on a machine that may have other work.
pytestmark = pytest.mark.timeout(240)


class AtHalf:
    """A user's policy: post-copy in the middle of a round; rounds by themselves go on."""

    def __init__(self):
        self.seen = []

    def __call__(self, round, history):
        assert [earlier.index for earlier in history] == list(range(round.index))
        return sw.Decision.proceed()

    def sample(self, sample):
        self.seen.append(sample)
        if sample.round >= 1 and sample.remaining_bytes < sample.memory_bytes / 2:
            return sw.Decision.postcopy("half of it has gone over")
        return None


class Throttler:
    """Holds the guest back and switches over when that has taken effect for a round."""

    def __call__(self, round, history):
        held = bool(history) and min(history[-1].throttle, round.throttle) >= 80
        return sw.Decision.switchover("slow enough") if held else sw.Decision.throttle(80, "stuck")


def test_a_python_policy_goes_post_copy_when_it_likes(qemu):
    policy = AtHalf()
    with pair(qemu) as (source, destination):
        report = sw.qemu.migrate(source.monitor, destination.monitor, "hybrid:rounds=1000", policy, features=SLOW)
        assert report.outcome == "completed"
        runs(destination)
    said = [event for event in report.events if event["event"] == "decided"]
    assert said[-1]["decision"]["kind"] == "post_copy"
    assert said[-1]["decision"]["reason"]["text"] == "half of it has gone over"
    times = [sample.elapsed for sample in policy.seen]
    assert times == sorted(times)
    assert said[-1]["round"] >= 1


def test_the_same_policy_in_two_worlds(qemu):
    rule = sw.policies.MaxRounds(3)
    with sw.Guest("16MiB", sw.workloads.Uniform(rate="200MB/s"), seed=7) as guest:
        memory = sw.migrate(guest, sw.PreCopy(), rule, link="200Mbit/s", warm_up="5ms")
    with pair(qemu) as (source, destination):
        real = sw.qemu.migrate(source.monitor, destination.monitor, sw.PreCopy, rule, features=SLOW)
    assert memory.rounds.dtype == real.rounds.dtype
    for report in (memory, real):
        said = next(event for event in report.events if event["event"] == "decided")
        assert (said["round"], said["decision"]["kind"]) == (2, "switch_over")
        assert report.outcome == "completed"


@pytest.mark.parametrize(
    ("strategy", "policy"),
    [
        ("pre-copy", "max-rounds:4"),
        ("pre-copy", "time-limit:limit=700ms,then=switchover"),
        ("pre-copy", "no-progress"),
        ("pre-copy", "dirty-threshold:rounds=3"),
        ("pre-copy", lambda round, history: sw.Decision.limit(blackout="10s", reason="whatever it takes")),
        ("pre-copy", Throttler()),
        ("hybrid:rounds=2", None),
    ],
    ids=["max-rounds", "time-limit", "no-progress", "dirty-threshold", "a limit", "a throttle", "post-copy"],
)
def test_what_never_converges_is_made_to_and_the_report_has_the_price(qemu, strategy, policy):
    """By QEMU's own rule at a millisecond it would be copied for ever."""
    features = SLOW if policy else f"{SLOW},downtime_limit=1ms"
    with pair(qemu) as (source, destination):
        report = sw.qemu.migrate(
            source.monitor, destination.monitor, strategy, policy, features=features,
            heartbeat=(source.beat, destination.beat), warm_up="500ms", cool_down="300ms",
        )  # fmt: skip
        assert report.outcome == "completed", report.reason
        runs(destination)
    assert max(row["remaining_bytes"] for row in report.data["rounds"][1:-1]) > 1 << 20
    cost, brownout = report.guest_cost, report.brownout
    print(cost, brownout, report.guest_gap)
    assert min(cost["before"], cost["after"]) > 0
    assert cost["slowdown"] == pytest.approx(1 - cost["during"] / cost["before"])
    assert brownout["at_source"] + brownout["at_destination"] == pytest.approx(brownout["loss"])
    assert report.effective_downtime == pytest.approx(brownout["loss"] + report.guest_gap)
    assert 0 < report.guest_gap <= report.effective_downtime
    places = report.progress["at_destination"]
    assert 0 < places.sum() < len(places)
    if isinstance(policy, Throttler):
        # Held back for four fifths of its time it cannot but lose.
        assert brownout["at_source"] > 0
        assert max(report.progress["throttle"]) >= 80


def test_throttling_is_turned_up_and_ends(qemu):
    """QEMU acts at the second harvest that finds more than was sent, so that it takes some rounds."""
    seen = []

    def policy(round, history):
        seen.append(round.throttle)
        return sw.Decision.switchover("slow enough") if round.throttle >= 60 else sw.Decision.throttle(60, "stuck")

    with pair(qemu) as (source, destination):
        before = settings(source)
        report = sw.qemu.migrate(source.monitor, destination.monitor, policy=policy, features="bandwidth=12MiB/s")
        assert report.outcome == "completed", report.reason
        runs(destination)
        assert settings(source) == before
    assert seen[-1] == 60
    assert seen[0] <= 1


def test_a_shadow_says_what_it_would_have_done_and_does_nothing(qemu):
    with pair(qemu) as (source, destination):
        report = sw.qemu.migrate(
            source.monitor, destination.monitor, policy="max-rounds:3", features=SLOW,
            shadow={"hasty": "max-rounds:1", "broken": lambda round, history: 1 / 0},
        )  # fmt: skip
    shadows = [event for event in report.events if event["event"] == "shadow"]
    assert {event["policy"] for event in shadows} == {"hasty"}
    assert shadows[0]["round"] == 0
    assert shadows[0]["decision"]["kind"] == "switch_over"
    assert len(report.rounds) >= 4


def test_the_loop_is_there_to_be_driven_by_hand(qemu):
    with pair(qemu) as (source, destination):
        with sw.qemu.Migration(source.monitor, destination.monitor, policy=lambda *_: None, features=SLOW) as m:
            for round in m:
                m.act(sw.Decision.switchover("enough") if round.index == 1 else sw.Decision.proceed())
        assert m.report.outcome == "completed"
        runs(destination)


def test_a_calm_guest_goes_by_itself(qemu):
    """Under a policy that never fires QEMU still ends when next to nothing remains."""
    with pair(qemu, CALM) as (source, destination):
        report = sw.qemu.migrate(source.monitor, destination.monitor, policy="max-rounds:100000")
        assert report.outcome == "completed"
        runs(destination)


def test_from_asyncio_and_back(qemu):
    async def work(source, destination):
        task = asyncio.create_task(
            sw.qemu.migrate_async(source.monitor, destination.monitor, policy="max-rounds:100000", features=SLOW)
        )
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with sw.qemu.AsyncQmp(source.monitor) as qmp:
            return await qmp.execute("query-status")

    with pair(qemu, STORM) as (source, destination):
        assert asyncio.run(work(source, destination))["running"]
        runs(source)
