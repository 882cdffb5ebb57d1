"""A source and a destination with a guest that checks its own data."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import switchover as sw
from switchover.qemu.vm import Vm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vms.installed import Qemu

# Faster than a slow link carries, in edits of a few words: the guest needs little of the processor for that.
STORM = sw.workloads.Uniform(rate="200MB/s", content=sw.contents.Counter())
CALM = sw.workloads.Idle()
# Some passes a second over a guest of 16 MiB.
SLOW = "bandwidth=24MiB/s"
PATIENCE = 100


@contextmanager
def pair(qemu: Qemu, workload: Any = STORM, memory: str = "16MiB", arguments: tuple[str, ...] = ()) -> Iterator[Any]:
    """Both, the source's guest writing."""
    more: dict[str, Any] = {"binary": qemu.path, "arguments": arguments}
    with Vm(workload, memory, **more) as source, Vm(workload, memory, incoming=True, **more) as destination:
        source.wait_until_filled()
        source.hang_up()
        yield source, destination


def ask(vm: Vm, command: str, **arguments: Any) -> Any:
    with sw.qemu.Qmp(vm.monitor) as qmp:
        return qmp.execute(command, {name.replace("_", "-"): value for name, value in arguments.items()})


def settings(vm: Vm) -> tuple[Any, Any]:
    """Capabilities and parameters as they are."""
    with sw.qemu.Qmp(vm.monitor) as qmp:
        found = sw.qemu.Abilities(qmp)
        return found.capabilities, found.parameters


def runs(vm: Vm) -> None:
    """Fails unless the guest runs, and all its data are whole."""
    assert vm.check() > 0
    vm.hang_up()


def wait_until(true: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)
