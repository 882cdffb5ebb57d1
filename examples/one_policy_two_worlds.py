"""One policy, written here, in charge of our own memory and of a real VM; both reports in one table.

    python examples/one_policy_two_worlds.py [QEMU]

It goes on until a round no longer shrinks what remains, and says so.
"""

import sys

import switchover as sw
from switchover.cli import show

LINK = "400Mbit/s"
MEMORY = "64MiB"


def stop_when_stuck(round, history):
    """Switches over at the first round, from the third on, that shrinks what remains by less than a tenth."""
    if round.index >= 2 and round.remaining_bytes > 0.9 * history[-1].remaining_bytes:
        return sw.Decision.switchover("no longer shrinking")
    return sw.Decision.proceed()


stop_when_stuck.may_throttle = False
writes = sw.workloads.HotCold(rate="60MB/s", hot_share=0.2, content=sw.contents.Counter())

with sw.Guest(MEMORY, writes, seed=7) as guest:
    memory = sw.migrate(guest, sw.PreCopy(), stop_when_stuck, link=sw.Link(LINK))
    guest.check()

binary = sys.argv[1] if len(sys.argv) > 1 else None
with sw.qemu.Pair(writes, MEMORY, link=LINK, binary=binary) as pair:
    real = pair.migrate(sw.PreCopy(), stop_when_stuck)

screen = show.console()
screen.print(show.table([("memory", memory), (f"QEMU {real.data['qemu']['versions']['source']}", real)]))
for world, report in (("memory", memory), ("qemu", real)):
    said = next((event for event in report.events if event["event"] == "decided"), None)
    where = "by itself" if said is None else f"after round {said['round']}: {said['decision']['reason']['text']}"
    screen.print(f"{world}: switched over {where}; blackout {show.span(report.blackout)}", highlight=False)
