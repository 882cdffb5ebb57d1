"""What a policy in Python costs a round: ``python benches/policy.py``.

A policy that does nothing, asked by the core about a round with and without 100 rounds of history, less a policy of
the core asked the same way: the rest is conversion, both ways. The target is 20 us.
"""

from __future__ import annotations

import statistics
import time

import switchover as sw
from switchover import _native
from switchover.policies import Adapter

ROUNDS = 200
REPEATS = 101


def nothing(_round: sw.Round, _history: list[sw.Round]) -> sw.Decision:
    """Does no work."""
    return sw.Decision.proceed()


class Sampler:
    """Does no work either, inside rounds too."""

    def __call__(self, _round: sw.Round, _history: list[sw.Round]) -> sw.Decision:
        return sw.Decision.proceed()

    def sample(self, sample: sw.Sample) -> None:
        """Does nothing."""


def asked(policy: object, text: str) -> float:
    """Microseconds of CPU a question."""
    native = _native.Policy(policy)
    began = time.thread_time()
    for _ in range(ROUNDS):
        native.decide(text, ())
    return (time.thread_time() - began) / ROUNDS * 1e6


def sampled(policy: object, text: str) -> float:
    """Microseconds of CPU a sample."""
    native = _native.Policy(policy)
    began = time.thread_time()
    for _ in range(ROUNDS):
        native.sample(text)
    return (time.thread_time() - began) / ROUNDS * 1e6


def line(name: str, costs: list[float]) -> str:
    """Median and spread."""
    costs.sort()
    return f"{name}: {statistics.median(costs):.1f} us ({costs[0]:.1f} to {costs[-1]:.1f}), {len(costs)} x {ROUNDS}"


def main() -> None:
    """Prints both."""
    seen = sw.Round(index=3, remaining_bytes=1 << 20, bandwidth=1e8, memory_bytes=1 << 30).to_json()
    core = '{"name": "max-rounds", "rounds": 1000000}'
    print(line("a round", [asked(Adapter(nothing), seen) - asked(core, seen) for _ in range(REPEATS)]))
    sample = sw.Sample(elapsed=1.0, sent_bytes=1).to_json()
    print(line("a sample", [sampled(Adapter(Sampler()), sample) - sampled(core, sample) for _ in range(REPEATS)]))


if __name__ == "__main__":
    main()
