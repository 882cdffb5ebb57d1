"""A policy of your own that sends a real VM to post-copy at a moment it chooses.

    python examples/qemu_post_copy.py [QEMU]

The guest writes faster than the link carries. The policy watches the middle of rounds too: once the second round is
under way and most of it has gone over, it has execution move, and the rest follow.
"""

import sys

import switchover as sw
from switchover.cli import show


class WhenMostIsThere:
    """Post-copy in the middle of a round, from the second on, when less than an eighth of memory is left of it."""

    may_throttle = False

    def __call__(self, round, history):
        """At a round's end it lets the copy go on."""
        del round, history
        return sw.Decision.proceed()

    def sample(self, sample):
        """Every 100 ms in between."""
        if sample.round >= 1 and sample.remaining_bytes < sample.memory_bytes / 8:
            return sw.Decision.postcopy(f"{sample.remaining_bytes >> 20} MiB of round {sample.round} are left")
        return None


writes = sw.workloads.HotCold(rate="60MB/s", hot_share=0.5, content=sw.contents.Counter())
binary = sys.argv[1] if len(sys.argv) > 1 else None
with sw.qemu.Pair(writes, "64MiB", link="400Mbit/s", binary=binary) as pair:
    report = pair.migrate(sw.Hybrid(rounds=1000), WhenMostIsThere())

said = next(event for event in report.events if event["event"] == "decided")
print(f"in round {said['round']}: {said['decision']['kind']}, since {said['decision']['reason']['text']}")
screen = show.console()
screen.print(show.table([(f"QEMU {report.data['qemu']['versions']['source']}", report)]))
