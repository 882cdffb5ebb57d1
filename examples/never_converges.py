"""A guest that never converges under QEMU's default, under many policies and ahead of its memory, side by side.

``python examples/never_converges.py [--quick] [--write PAGE]`` migrates the same guest over the same link once for
each policy, then by post-copy and hybrid, and prints a table. Two vCPUs share the guest: one writes three times as
fast as the link carries, one mostly reads. `--write` puts the table into a page of the documentation, between its
marks.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import switchover as sw
from switchover.units import format_size, format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

P = sw.policies


@dataclass(frozen=True)
class Scene:
    """A guest that writes faster than its link carries, and the patience of who waits."""

    memory: str
    link: str
    writer: str
    reader: str
    warm_up: str
    limit: str
    period: float
    timeout: float
    patience: str

    def guest(self) -> sw.Guest:
        """A fresh one, the same each time."""
        return sw.Guest(self.memory, [self.writer, self.reader], seed=7)


FULL = Scene(
    memory="64MiB",
    link="400Mbit/s",
    writer="hot-cold:rate=150MB/s,hot_share=0.9,hot_writes=1",
    reader="kv:rate=1MB/s,mix=b",
    warm_up="500ms",
    limit="50ms",
    period=1.0,
    timeout=2.0,
    patience="40s",
)
QUICK = Scene(
    memory="8MiB",
    link="400Mbit/s",
    writer="hot-cold:rate=100MB/s,hot_share=1,hot_writes=1",
    reader="kv:rate=1MB/s,mix=b",
    warm_up="200ms",
    limit="10ms",
    period=0.05,
    timeout=0.5,
    patience="6s",
)


def policies(scene: Scene) -> dict[str, P.Policy]:
    """Rules of the field, each with its defaults but for a blackout limit of 50 ms where it has one."""
    limit, period = scene.limit, scene.period
    return {
        "QEMU default": P.Qemu(limit),
        "QEMU auto-converge": P.QemuAutoConverge(limit, period=period),
        "QEMU auto-converge, tail-slow": P.QemuAutoConverge(limit, tail_slow=True, period=period),
        "QEMU dirty-limit": P.QemuDirtyLimit(limit, period=period),
        "vMotion SDPS": P.VmotionSdps(limit),
        "Cloud Hypervisor, throttling": P.CloudHypervisorThrottle(downtime=limit),
        "Xen": P.Xen(rate=scene.link, most_rate=scene.link),
        "Xen, libxl": P.XenLibxl(),
        "no progress": P.NoProgress(),
        "local minimum": P.LocalMinimum(),
        "virsh --timeout 2 --timeout-suspend": P.LibvirtTimeout(scene.timeout, limit=limit),
        "Drafter": P.Drafter(pause=0.0),
    }


#: Strategies that end whatever the guest does; only their policy's limit matters, to hybrid's first rounds.
AHEAD: dict[str, sw.strategies.Strategy] = {"post-copy": sw.PostCopy(), "hybrid, after 2 rounds": sw.Hybrid(rounds=2)}


def plans(scene: Scene) -> dict[str, tuple[sw.strategies.Strategy, P.Policy]]:
    """Pre-copy under each policy, and what moves execution first."""
    pre_copy = sw.PreCopy()
    plans: dict[str, tuple[sw.strategies.Strategy, P.Policy]] = {n: (pre_copy, p) for n, p in policies(scene).items()}
    return plans | {name: (strategy, P.Qemu(scene.limit)) for name, strategy in AHEAD.items()}


def runs(scene: Scene, each: Callable[[str, sw.Report], None]) -> Iterator[tuple[str, sw.Report]]:
    """A migration by each plan; what has no end of its own is given up after some time."""
    cap = P.TimeLimit(scene.patience, then="abort")
    for name, (strategy, policy) in plans(scene).items():
        with scene.guest() as guest:
            report = sw.migrate(
                guest, strategy, policy | cap, sw.Link(scene.link), "here", verify=True, warm_up=scene.warm_up
            )
            guest.check()
        each(name, report)
        yield name, report


HEAD = "| Policy or strategy | Ends | Rounds | Total time | Sent | Blackout | Work lost | Effective downtime |"


def row(name: str, report: sw.Report) -> str:
    """A line of the table."""
    ends = (
        "yes"
        if report.outcome == "completed"
        else f"no: {report.reason}"
        if report.outcome == "failed"
        else "no, given up"
    )
    cells = [
        name,
        ends,
        str(len(report.rounds)),
        format_time(report.total_time),
        format_size(report.sent_bytes),
        format_time(report.blackout) if report.blackout is not None else "none",
        format_time(report.brownout["loss"]) if report.brownout is not None else "unknown",
        format_time(report.effective_downtime) if report.effective_downtime is not None else "-",
    ]
    return "| " + " | ".join(cells) + " |"


def table(done: list[tuple[str, sw.Report]]) -> str:
    """All runs, in Markdown."""
    rule = "|---|---|" + "---:|" * (HEAD.count("|") - 3)
    return "\n".join([HEAD, rule, *(row(name, report) for name, report in done)])


def write(page: Path, text: str) -> None:
    """Replaces what stands between the marks of `page`."""
    block = f"<!-- never-converges -->\n{text}\n<!-- /never-converges -->"
    pattern = re.compile(r"<!-- never-converges -->.*?<!-- /never-converges -->", re.DOTALL)
    page.write_text(pattern.sub(lambda _: block, page.read_text()))


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small guest on a slow link, for a look")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table into this page")
    given = parser.parse_args()
    scene = QUICK if given.quick else FULL
    done = list(runs(scene, lambda name, report: print(f"{name}: {report!r}", flush=True)))
    text = table(done)
    print("\n" + text)
    if given.write:
        write(given.write, text)


if __name__ == "__main__":
    main()
