"""``switchover doctor``: what works on this machine, why not, and what to do."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
from rich.table import Table

import switchover as sw
from switchover import _native
from switchover.errors import SwitchoverError

from . import show


def findings() -> list[dict[str, Any]]:
    """What was looked at: name, whether it works, and detail."""
    found = [{"what": "kernel", "works": True, "detail": f"{platform.system()} {platform.release()}"}]
    for name, missing in sw.trackers.availability().items():
        found.append({"what": f"tracker {name}", "works": missing is None, "detail": missing or "works"})
    found.append({"what": "tracker auto", "works": True, "detail": f"takes {sw.trackers.best()}"})
    found += [processes(), huge_pages(), qemu()]
    return found


def processes() -> dict[str, Any]:
    """Whether running processes can be recorded: tried on one made for that."""
    try:
        _native.probe_process()
    except SwitchoverError as error:
        return {"what": "recording a process by its number", "works": False, "detail": str(error)}
    return {"what": "recording a process by its number", "works": True, "detail": "works"}


def huge_pages() -> dict[str, Any]:
    """Whether 2 MiB pages are set aside."""
    try:
        count = int(Path("/proc/sys/vm/nr_hugepages").read_text())
    except (OSError, ValueError):
        count = 0
    detail = f"{count} set aside" if count else "none set aside: write a number to /proc/sys/vm/nr_hugepages"
    return {"what": "explicit 2 MiB pages", "works": count > 0, "detail": detail}


def qemu() -> dict[str, Any]:
    """Which QEMU there is, for comparisons in the benches."""
    binary = shutil.which("qemu-system-x86_64")
    if not binary:
        return {
            "what": "QEMU",
            "works": False,
            "detail": "no qemu-system-x86_64: install it (Debian: qemu-system-x86)",
        }
    try:
        answer = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return {"what": "QEMU", "works": False, "detail": f"{binary} does not answer: {error}"}
    return {"what": "QEMU", "works": True, "detail": f"{answer.stdout.splitlines()[0]} at {binary}"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """Say what works on this machine: trackers, recording, huge pages, QEMU."""
    found = findings()
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    table = Table(header_style="bold")
    for name in ("what", "works", "detail"):
        table.add_column(name, overflow="fold")
    for row in found:
        table.add_row(row["what"], "[green]yes[/]" if row["works"] else "[yellow]no[/]", row["detail"])
    show.console().print(table)
