"""The memory that a QEMU itself reports: every part of every RAM block that its guest can see."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vms.machine import Machine

# A line of `info mtree -f`: guest addresses, kind, region, and where in the region it begins.
RANGE = re.compile(
    r"^  ([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?\d+, (ram|rom|romd)\): (.+?)(?: @([0-9a-f]{16}))?(?: KVM)?$"
)
PAGE = 4096


@dataclass(frozen=True)
class Part:
    """A part of a RAM block, named by the last component of its name, as it was in the guest's memory."""

    block: str
    offset: int
    path: Path
    length: int

    def read(self) -> bytes:
        return self.path.read_bytes()


def memory_map(machine: Machine) -> list[tuple[int, int, str, int]]:
    """Address, length, block and offset in it of all that is RAM or ROM in the first address space, `memory`."""
    text = machine.human("info mtree -f")
    view = next(view for view in text.split("FlatView #") if 'AS "memory"' in view)
    found = (RANGE.match(line.rstrip("\r")) for line in view.splitlines())
    return [
        (int(m[1], 16), int(m[2], 16) - int(m[1], 16) + 1, m[4], int(m[5] or "0", 16)) for m in found if m is not None
    ]


def take(machine: Machine, folder: Path) -> list[Part]:
    """Saves the guest's memory into `folder`; QEMU does it, with the guest stopped or resting."""
    folder.mkdir()
    parts: dict[tuple[str, int], Part] = {}
    for number, (address, length, block, offset) in enumerate(memory_map(machine)):
        # The last page or so of a ROM may be shorter than a page; a stream knows whole pages only.
        path = folder / str(number)
        machine.ask("pmemsave", val=address, size=length, filename=str(path))
        # What shows at several addresses is the same: one of them will do.
        parts.setdefault((block, offset), Part(block, offset, path, length))
    return list(parts.values())
