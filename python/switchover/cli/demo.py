"""``switchover demo``: the main job, in about half a minute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click

import switchover as sw

from . import show

LINK = "1Gbit/s"
MEMORY = "192MiB"


class Run(NamedTuple):
    """One row of the table."""

    name: str
    workload: Callable[[], Any]
    strategy: Any
    policy: Any


def store() -> Any:
    """A key-value store whose writes the link can follow."""
    return sw.workloads.Kv(rate="30MB/s")


def storm() -> Any:
    """A guest that never converges: it writes twice as fast as the link carries, all over a third of memory."""
    return sw.workloads.HotCold(rate="250MB/s", hot_share=0.34, hot_writes=1.0)


def runs() -> list[Run]:
    """The rows: one guest by each strategy and several policies, then the ways out for one that never converges."""
    few, rounds = sw.policies.DirtyThreshold(rounds=6), sw.policies.MaxRounds(8)
    quota = sw.policies.QemuDirtyLimit("50ms")
    return [
        Run("store, stop-and-copy", store, sw.StopAndCopy(), rounds),
        Run("store, pre-copy, downtime-limit 50 ms", store, sw.PreCopy(), sw.policies.DowntimeLimit("50ms")),
        Run("store, pre-copy, 2 rounds", store, sw.PreCopy(), sw.policies.MaxRounds(2)),
        Run("store, pre-copy, dirty-threshold", store, sw.PreCopy(), few),
        Run("store, post-copy", store, sw.PostCopy(), rounds),
        Run("storm, pre-copy, dirty-limit 50 ms", storm, sw.PreCopy(), quota),
        Run("storm, hybrid, after 2 rounds", storm, sw.Hybrid(rounds=2), rounds),
        Run("storm, pre-copy, clear early", storm, sw.PreCopy(clear="early"), rounds),
        Run("storm, pre-copy, clear late", storm, sw.PreCopy(clear="late"), rounds),
    ]


@click.command()
@click.option(
    "--reports",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("reports"),
    show_default=True,
    help="Folder for the reports, one JSON file a run.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the reports as JSON lines.")
def demo(reports: Path, as_json: bool) -> int:
    """Migrate running guests by every strategy and under several policies."""
    screen = show.console()
    reports.mkdir(parents=True, exist_ok=True)
    done = []
    for number, run in enumerate(runs(), 1):
        if not as_json:
            screen.print(f"[bold]{run.name}[/] over {LINK}")
        report = migrate(run, None if as_json else screen)
        (reports / f"{number}-{run.name.replace(', ', '-').replace(' ', '-')}.json").write_text(report.to_json())
        done.append((run.name, report))
    if as_json:
        for _, report in done:
            click.echo(" ".join(report.to_json().split()))
    else:
        screen.print(show.table(done, title=f"{MEMORY} guests over {LINK}; each ran on at the destination"))
        screen.print(f"The reports are in {reports}/", highlight=False)
    return 0 if all(report.outcome == "completed" for _, report in done) else 1


def migrate(run: Run, screen: Any) -> sw.Report:
    """One row: a fresh guest, moved, checked where it arrived."""
    with sw.Guest(MEMORY, run.workload(), seed=7) as guest:
        report = sw.migrate(
            guest, run.strategy, run.policy, sw.Link(LINK), "here", verify=True, on_round=show.rounds(screen)
        )
        guest.check()
    return report
