"""Workloads: what runs in a guest. A class for each that the core has, such as `Sweep(rate="200MB/s")`.

Beside them, any Python callable is a workload: it is given the guest's memory as a writable NumPy array, and
is called again and again. See [`Guest`][switchover.guest.Guest].

    >>> import switchover as sw
    >>> sw.workloads.Sweep(rate="200MB/s").spec()
    {'name': 'sweep', 'rate': 200000000.0}
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from switchover.part import Part, Registry


class Workload(Part):
    """A program in a guest: what it writes, where and how fast."""

    kind = "workload"


registry = Registry("workload", Workload, __name__)
get = registry.get
parse = registry.parse
names = registry.names
describe = registry.describe
__all__ = ["Workload", "describe", "get", "names", "parse", *registry.classes()]

if TYPE_CHECKING:
    from switchover._classes.workloads import *
else:
    __getattr__ = registry.attribute
