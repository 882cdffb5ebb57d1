"""Conformance kits: what every codec, tracker and policy must do, ours and yours.

Subclass a kit in your tests and say how the part is made; pytest then runs the whole suite on it:

    from switchover.testing import PolicyTestCase

    class TestMine(PolicyTestCase):
        def make(self):
            return my_policy
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any

from switchover import units
from switchover.decision import Decision
from switchover.errors import StreamError, UsageError
from switchover.guest import Guest
from switchover.round import Round
from switchover.sample import Sample

if TYPE_CHECKING:
    from collections.abc import Iterator

    from switchover.policies import Judge

PAGE = 4096


def _refused(error: type[Exception], call: Any, *args: Any) -> bool:
    try:
        call(*args)
    except error:
        return True
    return False


class CodecTestCase:
    """What a codec must do. Override `make`."""

    seed = 7

    def make(self) -> Any:
        """A codec: `encode(page, base)` and `decode(data, base)`; `passed(page)` if it must see raw pages."""
        raise NotImplementedError

    def pages(self) -> Iterator[tuple[bytes, bytes]]:
        """Pages and what the destination has there."""
        rng = random.Random(self.seed)  # noqa: S311  repeatable, not secret
        noise = rng.randbytes(PAGE)
        edited = bytearray(noise)
        edited[100:108] = rng.randbytes(8)
        words = b" ".join(rng.choice([b"page", b"dirty", b"round"]) for _ in range(PAGE))[:PAGE]
        for page in (bytes(PAGE), noise, words, b"\xff" * PAGE, bytes(PAGE - 1) + b"\x01"):
            yield page, noise
        yield bytes(edited), noise
        yield noise, noise

    def test_pages_come_back_as_they_were(self) -> None:
        """Alone and against a base; what is no shorter than raw is not encoded."""
        encoder, decoder = self.make(), self.make()
        for page, base in self.pages():
            for known in (None, base):
                data = encoder.encode(page, known)
                assert data is None or (len(data) < PAGE and decoder.decode(data, known) == page)
                if data is None and hasattr(decoder, "passed"):
                    decoder.passed(page)

    def test_hostile_bytes_are_a_page_or_an_error_that_says_where(self) -> None:
        """Never anything else."""
        decoder, rng = self.make(), random.Random(self.seed)  # noqa: S311
        for _ in range(200):
            data = rng.randbytes(rng.randrange(0, 2 * PAGE))
            try:
                assert len(decoder.decode(data)) == PAGE
            except StreamError as error:
                assert 0 <= error.offset <= len(data)

    def test_truncated_encodings_are_refused_or_a_page(self) -> None:
        """A stream that breaks off in a page."""
        encoder, decoder = self.make(), self.make()
        for page, base in self.pages():
            data = encoder.encode(page, base) or b""
            for end in range(0, len(data), 1 + len(data) // 20):
                try:
                    assert len(decoder.decode(data[:end], base)) == PAGE
                except StreamError as error:
                    assert error.offset <= end

    def test_only_pages_are_encoded(self) -> None:
        """4096 bytes, no more and no less."""
        codec = self.make()
        assert all(_refused(UsageError, codec.encode, bytes(size)) for size in (0, 1, PAGE - 1, PAGE + 1))
        assert _refused(UsageError, codec.encode, bytes(PAGE), b"short")


class TrackerTestCase:
    """What a dirty tracker must do. Override `make`."""

    memory = "4MiB"
    harvests = 30

    def make(self) -> Any:
        """A tracker: `arm(guest)`, `harvest(first, end)`, `peek(first, end)`, `disarm()`, `needs_pause`."""
        raise NotImplementedError

    workload = "sweep:rate=100MB/s"

    def guest(self) -> Guest:
        """A guest whose writes the tracker sees."""
        return Guest(self.memory, self.workload, seed=7)

    def _run(self, guest: Guest, operations: int) -> None:
        target = guest.progress.operations + operations
        guest.start()
        while guest.progress.operations < target:
            pass
        guest.pause()

    def test_nothing_is_dirty_when_it_is_armed(self) -> None:
        """Whatever was written before."""
        with self.guest() as guest:
            self._run(guest, 50)
            tracker = self.make()
            tracker.arm(guest)
            assert not tracker.peek().any()
            assert not tracker.harvest().any()
            tracker.disarm()

    def test_what_changed_is_dirty_until_it_is_harvested(self) -> None:
        """Peeking clears nothing; harvesting clears what it reads only."""
        with self.guest() as guest:
            tracker = self.make()
            tracker.arm(guest)
            before = guest.memory.copy()
            self._run(guest, 50)
            changed = (before != guest.memory).reshape(-1, PAGE).any(axis=1)
            assert changed.any()
            assert (tracker.peek() | ~changed).all()
            half = len(changed) // 2
            first = tracker.harvest(0, half)
            assert len(first) == half
            assert (first | ~changed[:half]).all()
            assert not tracker.peek(0, half).any()
            assert (tracker.harvest(half) | ~changed[half:]).all()
            assert not tracker.harvest().any()
            tracker.disarm()

    def test_no_write_is_missed_while_the_guest_runs(self) -> None:
        """A copy that is kept current by harvests alone equals memory once the guest is paused."""
        with self.guest() as guest:
            tracker = self.make()
            tracker.arm(guest)
            copy = guest.memory.copy().reshape(-1, PAGE)
            guest.start()
            for _ in range(self.harvests):
                self._follow(guest, tracker, copy)
            guest.pause()
            self._follow(guest, tracker, copy)
            assert (copy == guest.memory.reshape(-1, PAGE)).all()
            tracker.disarm()

    def _follow(self, guest: Guest, tracker: Any, copy: Any) -> None:
        if tracker.needs_pause:
            guest.pause()
        dirty = tracker.harvest()
        copy[dirty] = guest.memory.reshape(-1, PAGE)[dirty]
        if tracker.needs_pause:
            guest.resume()

    def test_ranges_outside_of_memory_are_refused(self) -> None:
        """And so is asking before arming."""
        pages = units.parse_size(self.memory) // PAGE
        with self.guest() as guest:
            tracker = self.make()
            assert _refused(UsageError, tracker.harvest)
            tracker.arm(guest)
            assert _refused(UsageError, tracker.harvest, 0, pages + 1)
            assert _refused(UsageError, tracker.peek, 5, 4)
            tracker.disarm()


class PolicyTestCase:
    """What a policy must do. Override `make`."""

    seed = 7

    def make(self) -> Judge:
        """A policy that has seen nothing yet."""
        raise NotImplementedError

    def runs(self) -> Iterator[list[Round]]:
        """Runs of rounds: ordinary ones, and those that break sums."""
        rng = random.Random(self.seed)  # noqa: S311
        memory = 1 << 30
        for shrink in (0.5, 0.9, 1.0, 1.1):
            yield [self._round(i, memory, memory * 0.5 * shrink**i, rng.uniform(5e7, 2e8)) for i in range(40)]
        yield [self._round(i, memory, 0, 1e8) for i in range(5)]
        yield [self._round(i, memory, memory, 0.0) for i in range(5)]
        yield [Round()]

    def _round(self, index: int, memory: int, remaining: float, bandwidth: float) -> Round:
        left = min(memory, int(remaining) // PAGE * PAGE)
        sent = 1 << 26
        return Round(
            index=index,
            start=index * 0.5,
            duration=0.5,
            elapsed=(index + 1) * 0.5,
            sent_bytes=sent,
            sent_pages=sent // PAGE,
            total_sent_bytes=sent * (index + 1),
            total_sent_pages=sent // PAGE * (index + 1),
            remaining_pages=left // PAGE,
            remaining_bytes=left,
            dirty_rate=left / 0.5,
            bandwidth=bandwidth,
            expected_blackout=left / bandwidth if bandwidth else (math.inf if left else 0.0),
            memory_bytes=memory,
        )

    def _decide(self, rounds: list[Round]) -> list[Decision]:
        policy = self.make()
        return [policy(seen, rounds[:i]) for i, seen in enumerate(rounds)]

    def test_every_round_is_answered_with_a_decision(self) -> None:
        """Also where bandwidth is 0, or nothing remains."""
        for rounds in self.runs():
            assert all(isinstance(decision, Decision) for decision in self._decide(rounds))

    def test_the_same_rounds_have_the_same_decisions(self) -> None:
        """No clock, no unseeded random number: a run can be replayed."""
        for rounds in self.runs():
            assert self._decide(rounds) == self._decide(rounds)

    def test_samples_are_answered_with_a_decision_or_nothing(self) -> None:
        """Of a policy that takes them: before round 0 has ended, without a bandwidth, with nothing left."""
        sampler = getattr(self.make(), "sample", None)
        if sampler is None:
            return
        memory = 1 << 30
        for elapsed, bandwidth, left in ((0.0, 0.0, memory), (0.1, 1e8, memory), (1e6, 1e8, 0), (1e6, 0.0, 1)):
            seen = Sample(0, elapsed, bandwidth, left, int(elapsed * bandwidth), memory)
            decision = sampler(seen)
            assert decision is None or isinstance(decision, Decision)

    def test_the_history_is_left_alone(self) -> None:
        """It belongs to whoever asks."""
        for rounds in self.runs():
            policy, history = self.make(), list(rounds[:-1])
            policy(rounds[-1], history)
            assert history == rounds[:-1]

    def test_what_it_does_has_a_reason(self) -> None:
        """More than to proceed is said in words, for the event log and the charts."""
        for rounds in self.runs():
            assert all(decision.reason.text for decision in self._decide(rounds) if decision.fires)
