"""Types of the classes of `switchover.trackers`. Written by scripts/stubs.py."""

from typing import Any

from switchover.trackers import Tracker
from switchover.units import Number, Rate, Size, Time

class UffdAsync(Tracker):
    """The kernel write-protects pages and notes first writes by itself (userfaultfd, asynchronous), and
    finds them by PAGEMAP_SCAN. Needs Linux 6.7 and no privilege.
    """
    def __init__(self) -> None: ...

class SoftDirty(Tracker):
    """The kernel's soft-dirty bits. Writers are paused at each harvest, which looks at all of memory: use
    it where userfaultfd is not to be had. Needs a kernel built with CONFIG_MEM_SOFT_DIRTY.
    """
    def __init__(self) -> None: ...

class UffdSync(Tracker):
    """A thread of ours answers each first write to a page (userfaultfd, synchronous): dear for writers,
    but needs only Linux 6.4. Without privilege (CAP_SYS_PTRACE, or vm.unprivileged_userfaultfd = 1)
    system calls that write guest memory fail with EFAULT while it is tracked.
    """
    def __init__(self) -> None: ...

class Software(Tracker):
    """Each write of a workload marks its page: no kernel support needed, and no fault taken.
    It sees only writes through the guest's own interface: not those of a Python callable.
    """
    def __init__(self) -> None: ...

class Compare(Tracker):
    """Compares each page with what the destination has. Free for writers, and sees all of them; each
    harvest reads all of the memory that it is asked about.

    Args:
        keep: What is kept of each page: `hash` (16 bytes) or `copy` (all of it: as much memory again). Default hash.
    """
    def __init__(self, keep: str = 'hash') -> None: ...
    keep: Any

class KvmLog(Tracker):
    """KVM's dirty bitmap of a guest run by the workload kvm: one fault of the vCPU for each page and harvest.
    Sees the writes of vCPUs and no others, so it is for guests of that workload alone.

    Args:
        by_range: Clear ranges by themselves, where the kernel can (Linux 5.2); if not, or where it cannot, each harvest reads and clears everything. Default True.
    """
    def __init__(self, by_range: bool | str = True) -> None: ...
    by_range: Any

class KvmRing(Tracker):
    """KVM's dirty ring of a guest run by the workload kvm: harvests cost by the pages written.
    Sees the writes of vCPUs and no others, so it is for guests of that workload alone. Needs Linux 5.11.

    Args:
        entries: Entries of a vCPU's ring, a power of two. A vCPU whose ring is full waits until it is emptied. From 256 to 65536. Default 4096.
    """
    def __init__(self, entries: int | str = 4096) -> None: ...
    entries: Any
