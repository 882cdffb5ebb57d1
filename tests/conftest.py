"""Fixtures: small guests, and a look at what a process holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import switchover as sw

pytest_plugins = ["vms.fixtures"]

QUICK = {"warm_up": "5ms", "verify": True, "stall_timeout": "5s"}


@pytest.fixture
def guest():
    with sw.Guest("16MiB", sw.workloads.Sweep(rate="50MB/s"), seed=7) as guest:
        yield guest


def workload_for(tracker: str) -> str:
    """A workload whose writes the tracker sees."""
    only_vcpus = {part["name"] for part in sw.trackers.describe() if part["only_vcpus"]}
    return "kvm" if tracker in only_vcpus else "sweep:rate=50MB/s"


def runs_on(guest: sw.Guest) -> None:
    """Waits until the guest has done more, and lets it check its data."""
    before = guest.progress.operations
    while guest.progress.operations == before:
        pass
    guest.check()


def holdings() -> dict[str, int]:
    """Threads, descriptors and mappings of this process."""
    return {
        "threads": len(list(Path("/proc/self/task").iterdir())),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "guest mappings": sum(
            int(end, 16) - int(start, 16) >= 16 << 20
            for line in Path("/proc/self/maps").read_text().splitlines()
            if "rw" in line and line.split()[4] == "0" and len(line.split()) == 5
            for start, end in [line.split()[0].split("-")]
        ),
    }
