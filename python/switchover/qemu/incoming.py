"""The destination's side: told to listen, and asked where."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from switchover import units
from switchover.errors import QmpError, UsageError
from switchover.qemu import plan as plans
from switchover.qemu.abilities import Abilities
from switchover.qemu.features import Features
from switchover.qemu.qmp import Address, Qmp
from switchover.qemu.settings import Setter

if TYPE_CHECKING:
    from collections.abc import Callable

# Where a destination listens that shares a machine with the source.
HERE = "tcp:127.0.0.1:0"
PATIENCE = 10.0


def check(destination: Qmp) -> None:
    """Refuses a VM that is no destination."""
    status = destination.execute("query-status")["status"]
    if status != "inmigrate":
        raise UsageError(
            f"{destination.name}: this VM is {status} and takes no guest in; start it with the same devices as the "
            "source and -incoming defer"
        )


def listen(destination: Qmp, uri: str) -> str:
    """Has the destination listen at `uri`; where the source is to go."""
    try:
        destination.execute("migrate-incoming", {"uri": uri})
    except QmpError as error:
        # Started with an address of its own, it listens already.
        if not destination.execute("query-migrate").get("socket-address"):
            raise error from None
    return _found(destination, uri)


def listen_again(destination: Qmp, uri: str) -> str:
    """The same for a post-copy that is to go on."""
    before = _ports(destination)
    destination.execute("migrate-recover", {"uri": uri}, oob=True)
    if uri.startswith("unix:"):
        # QEMU listens before it answers, in a path that takes the place of any old one.
        return uri
    return _found(destination, uri, before)


def _ports(destination: Qmp) -> list[Any]:
    return list(destination.execute("query-migrate").get("socket-address", []))


def _found(destination: Qmp, uri: str, before: list[Any] | None = None) -> str:
    """The address with the port that the system chose, where that was left to it."""
    host, _, port = uri.removeprefix("tcp:").rpartition(":")
    if not uri.startswith("tcp:") or port.partition(",")[0] != "0":
        return uri
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        new = [each for each in _ports(destination) if each not in (before or []) and each.get("type") == "inet"]
        if new:
            return f"tcp:{host}:{new[-1]['port']}"
        time.sleep(0.01)
    raise QmpError(f"{destination.name}: QEMU does not say at which port it listens", "migrate-incoming")


def again(uri: str, turn: int) -> str | None:
    """Where a destination can listen again, on the same machine as before; `None` where that cannot be told."""
    if uri.startswith("tcp:"):
        return f"tcp:{uri.removeprefix('tcp:').rpartition(':')[0]}:0"
    if uri.startswith("unix:"):
        return f"{uri}.again{turn}"
    return None


def clear_up(uri: str, turns: int) -> None:
    """Takes away the paths that `again` made."""
    if uri.startswith("unix:"):
        for turn in range(1, turns + 1):
            Path(f"{uri}.again{turn}".removeprefix("unix:")).unlink(missing_ok=True)


def restore(
    destination: Qmp | Address,
    uri: str,
    *,
    features: Features | dict[str, Any] | str | None = None,
    timeout: units.Time = "10min",
) -> dict[str, Any]:
    """Has a VM that was started with `-incoming defer` take in what was saved; its guest then runs there.

    Args:
        destination: The VM's monitor.
        uri: Where it was saved: "file:PATH", "exec:cat PATH".
        features: As they were when it was saved.
        timeout: How long that may take.

    Returns:
        What QEMU says of it at the end.

    Raises:
        QmpError: It cannot be taken in, in QEMU's own words.
    """
    limit = units.parse_time(timeout, "timeout")
    with contextlib.ExitStack() as stack:
        qmp = destination if isinstance(destination, Qmp) else stack.enter_context(Qmp(destination))
        check(qmp)
        abilities = Abilities(qmp)
        plan = plans.make("pre-copy", Features.of(features), None, uri, source=abilities, destination=abilities)
        setter = Setter(qmp, abilities)
        stack.callback(_quietly, setter.restore)
        setter.apply(plan.destination)
        qmp.execute("migrate-incoming", {"uri": uri})
        return _arrival(qmp, limit)


def _arrival(qmp: Qmp, limit: float) -> dict[str, Any]:
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        answer: dict[str, Any] = qmp.execute("query-migrate")
        if answer.get("status") == "completed":
            return answer
        if answer.get("status") == "failed":
            words = answer.get("error-desc", "it does not say why")
            raise QmpError(f"{qmp.name}: what was saved cannot be taken in: {words}", "migrate-incoming", words)
        time.sleep(0.01)
    raise QmpError(f"{qmp.name}: what was saved is not in after {limit:g} s", "migrate-incoming")


def _quietly(restore: Callable[[], None]) -> None:
    with contextlib.suppress(QmpError):
        restore()
