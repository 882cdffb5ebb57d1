"""What one QEMU can do, asked of itself; its version is shown to people and decides nothing."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from switchover.qemu.qmp import Qmp


class Abilities:
    """The capabilities, parameters and commands of the QEMU behind a monitor."""

    def __init__(self, qmp: Qmp) -> None:
        self._qmp = qmp

    @cached_property
    def capabilities(self) -> dict[str, bool]:
        """Migration capabilities, and whether each was on when first asked."""
        listed = self._qmp.execute("query-migrate-capabilities")
        return {each["capability"]: each["state"] for each in listed}

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """Migration parameters, and their values when first asked."""
        return dict(self._qmp.execute("query-migrate-parameters"))

    @cached_property
    def version(self) -> str:
        """For people."""
        number = self._qmp.execute("query-version")["qemu"]
        return f"{number['major']}.{number['minor']}.{number['micro']}"

    @cached_property
    def _schema(self) -> dict[str, dict[str, Any]]:
        return {each["name"]: each for each in self._qmp.execute("query-qmp-schema")}

    def has_command(self, name: str) -> bool:
        """Whether there is such a command."""
        return self._schema.get(name, {}).get("meta-type") == "command"

    def choices(self, command: str, *path: str) -> tuple[str, ...]:
        """The values that an argument of a command can take; empty where there is no such argument, or no list.

        `path` leads through members: `choices("migrate", "channels", "addr", "transport")`.
        """
        kind = self._schema.get(command, {}).get("arg-type", "")
        for name in path:
            kind = self._member(kind, name)
        return tuple(self._schema.get(kind, {}).get("values", ()))

    def has_argument(self, command: str, name: str) -> bool:
        """Whether a command takes that argument."""
        return bool(self._member(self._schema.get(command, {}).get("arg-type", ""), name))

    def _member(self, kind: str, name: str) -> str:
        entry = self._schema.get(kind, {})
        if entry.get("meta-type") == "array":
            entry = self._schema.get(entry["element-type"], {})
        found = (member["type"] for member in entry.get("members", ()) if member["name"] == name)
        return str(next(found, ""))

    def transports(self) -> tuple[str, ...]:
        """How a stream can go, such as `socket`, `exec` and `file`; empty before QEMU lists them (8.1)."""
        return self.choices("migrate", "channels", "addr", "transport")
