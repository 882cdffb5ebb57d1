"""Capabilities and parameters of a VM: set, and put back to what they were."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from switchover.errors import QmpError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from switchover.qemu.abilities import Abilities
    from switchover.qemu.plan import Settings
    from switchover.qemu.qmp import Qmp


class Setter:
    """Changes one QEMU's settings and remembers what they were.

    `remember` is called with what would put all back, each time before something is changed for the first time.
    """

    def __init__(
        self, qmp: Qmp, abilities: Abilities, remember: Callable[[dict[str, Any]], object] = lambda _: None
    ) -> None:
        self._qmp, self._abilities, self._remember = qmp, abilities, remember
        self.before: dict[str, dict[str, Any]] = {"capabilities": {}, "parameters": {}}

    def apply(self, settings: Settings) -> None:
        """Sets what differs from what is set."""
        have = self._abilities
        capabilities = {n: v for n, v in settings.capabilities.items() if have.capabilities[n] != v}
        self.before["capabilities"].update({name: have.capabilities[name] for name in capabilities})
        self._note(settings.parameters)
        set_capabilities(self._qmp, capabilities)
        if settings.parameters:
            self._qmp.execute("migrate-set-parameters", settings.parameters)

    def change(self, **parameters: Any) -> None:
        """Sets parameters on the way; underscores stand for hyphens."""
        named = {name.replace("_", "-"): value for name, value in parameters.items()}
        self._note(named)
        self._qmp.execute("migrate-set-parameters", named)

    def _note(self, parameters: dict[str, Any]) -> None:
        have, kept = self._abilities.parameters, self.before["parameters"]
        kept.update({name: have[name] for name in parameters if name not in kept and name in have})
        self._remember(self.before)

    def restore(self) -> None:
        """Puts all back."""
        put_back(self._qmp, self.before)


def set_capabilities(qmp: Qmp, states: dict[str, bool]) -> None:
    """Switches capabilities on and off, all at once."""
    if states:
        listed = [{"capability": name, "state": state} for name, state in states.items()]
        qmp.execute("migrate-set-capabilities", {"capabilities": listed})


def put_back(qmp: Qmp, before: dict[str, dict[str, Any]]) -> None:
    """Sets what `before` holds. What one release refuses to have together is tried one by one.

    Raises:
        QmpError: QEMU refused the last of those that it refused.
    """
    refused: list[QmpError] = []
    with _kept(refused):
        set_capabilities(qmp, before["capabilities"])
    if before["parameters"]:
        whole: list[QmpError] = []
        with _kept(whole):
            qmp.execute("migrate-set-parameters", before["parameters"])
        for name, value in before["parameters"].items() if whole else ():
            with _kept(refused):
                qmp.execute("migrate-set-parameters", {name: value})
    if refused:
        raise refused[-1]


@contextlib.contextmanager
def _kept(refused: list[QmpError]) -> Iterator[None]:
    try:
        yield
    except QmpError as error:
        refused.append(error)


def running(qmp: Qmp) -> bool:
    """Whether the VM's guest runs."""
    with contextlib.suppress(QmpError):
        return bool(qmp.execute("query-status")["running"])
    return False
