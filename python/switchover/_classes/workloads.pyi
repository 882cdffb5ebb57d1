"""Types of the classes of `switchover.workloads`. Written by scripts/stubs.py."""

from typing import Any

from switchover.workloads import Workload
from switchover.units import Number, Rate, Size, Time

class Idle(Workload):
    """Writes a few pages again and again, some per second: the timers of a kernel with nothing to do.

    Args:
        rate: Bytes written per second, 4096 for each page write; 0 means as fast as the thread can. In bytes per second. From 0 B/s to 1 TB/s. Default 41 kB/s.
        pages: Pages that are written at all, scattered over memory. From 1 to 1e+12. Default 16.
        content: What a write puts into a page. Default {'name': 'counter'}.
    """
    def __init__(self, rate: Rate = 40960.0, *, pages: int | str = 16, content: Any = ...) -> None: ...
    rate: Any
    pages: Any
    content: Any

class Sweep(Workload):
    """Writes page after page over a share of memory, then again from the start.
    Its unique-pages function is min(v t, W): the classic worst case of QEMU's stress guest.

    Args:
        rate: Bytes written per second; 0 means as fast as the thread can. In bytes per second. From 0 B/s to 1 TB/s. Default 100 MB/s.
        share: Share of memory that is swept, from its start. From 0 to 1. Default 1.
        content: What a write puts into a page. Default {'name': 'mix'}.
    """
    def __init__(self, rate: Rate = 100000000.0, *, share: Number = 1.0, content: Any = ...) -> None: ...
    rate: Any
    share: Any
    content: Any

class Uniform(Workload):
    """Writes pages at random, each as likely as any other.
    Its unique-pages function is W (1 - exp(-v t / W)).

    Args:
        rate: Bytes written per second; 0 means as fast as the thread can. In bytes per second. From 0 B/s to 1 TB/s. Default 100 MB/s.
        share: Share of memory that is written, from its start. From 0 to 1. Default 1.
        content: What a write puts into a page. Default {'name': 'mix'}.
    """
    def __init__(self, rate: Rate = 100000000.0, *, share: Number = 1.0, content: Any = ...) -> None: ...
    rate: Any
    share: Any
    content: Any

class Zipf(Workload):
    """Writes pages by a Zipf law: a few are hot, most are cold, with everything in between. Which pages
    are hot is scattered over memory.

    Args:
        rate: Bytes written per second; 0 means as fast as the thread can. In bytes per second. From 0 B/s to 1 TB/s. Default 100 MB/s.
        s: The law's exponent: 0 is uniform, 0.99 is YCSB's. From 0 to 10. Default 0.99.
        content: What a write puts into a page. Default {'name': 'mix'}.
    """
    def __init__(self, rate: Rate = 100000000.0, *, s: Number = 0.99, content: Any = ...) -> None: ...
    rate: Any
    s: Any
    content: Any

class HotCold(Workload):
    """Sends a share of writes to a share of memory and the rest to the rest, uniform within each: the
    writable working set with a sharp edge. The hot pages are scattered over memory.

    Args:
        rate: Bytes written per second; 0 means as fast as the thread can. In bytes per second. From 0 B/s to 1 TB/s. Default 100 MB/s.
        hot_share: Share of memory that is hot. From 0 to 1. Default 0.1.
        hot_writes: Share of writes that go there. From 0 to 1. Default 0.9.
        content: What a write puts into a page. Default {'name': 'mix'}.
    """
    def __init__(self, rate: Rate = 100000000.0, *, hot_share: Number = 0.1, hot_writes: Number = 0.9, content: Any = ...) -> None: ...
    rate: Any
    hot_share: Any
    hot_writes: Any
    content: Any

class Sliding(Workload):
    """Writes uniformly within a window that moves through memory at a steady speed and wraps around:
    each round finds other pages dirty.

    Args:
        rate: Bytes written per second; 0 means as fast as the thread can. In bytes per second. From 0 B/s to 1 TB/s. Default 100 MB/s.
        window: Share of memory that the window covers. From 0 to 1. Default 0.1.
        period: Seconds of guest time in which the window goes once through memory. In seconds. From 1 ms to 277778 h. Default 1 min.
        content: What a write puts into a page. Default {'name': 'mix'}.
    """
    def __init__(self, rate: Rate = 100000000.0, *, window: Number = 0.1, period: Time = 60.0, content: Any = ...) -> None: ...
    rate: Any
    window: Any
    period: Any
    content: Any

class Phases(Workload):
    """Runs patterns in turn, each for some seconds of guest time, then the first again.

    Args:
        phases: The schedule: {"seconds": 10, "workload": {"name": "sweep"}} for each phase. Programs that check their data are refused, since another phase would write over them. Default [{'seconds': 10.0, 'workload': {'name': 'hot-cold'}}, {'seconds': 10.0, 'workload': {'name': 'idle'}}].
    """
    def __init__(self, phases: Any = ...) -> None: ...
    phases: Any

class Kv(Workload):
    """A key-value store under the mixes of YCSB (Cooper et al., SoCC 2010). Each value carries its key, a
    version and a checksum; the check finds every key and verifies every value.

    Args:
        rate: Bytes of values written per second; 0 means as fast as the thread can. In bytes per second. From 0 B/s to 1 TB/s. Default 50 MB/s.
        mix: YCSB's workload: "a" is half reads, half updates; "b" is 95 % reads; "f" is half reads, half reads that modify and write. Default a.
        s: Exponent of the Zipf law by which keys are chosen. From 0 to 10. Default 0.99.
        value_bytes: Bytes of a value. In bytes. From 8 B to 64 KiB. Default 1000 B.
        content: What values are made of. Default {'name': 'text'}.
    """
    def __init__(self, rate: Rate = 50000000.0, *, mix: str = 'a', s: Number = 0.99, value_bytes: Size = 1000, content: Any = ...) -> None: ...
    rate: Any
    mix: Any
    s: Any
    value_bytes: Any
    content: Any

class Btree(Workload):
    """A B+ tree of 8-byte keys and values in nodes of one page, as in a database's index. The check walks
    it: order, bounds, depth, checksums, free pages, and what the keys and values add up to.

    Args:
        rate: Bytes of nodes written per second; 0 means as fast as the thread can. In bytes per second. From 0 B/s to 1 TB/s. Default 50 MB/s.
        writes: Share of operations that insert or delete, as many of each; the rest look up. From 0.01 to 1. Default 0.5.
    """
    def __init__(self, rate: Rate = 50000000.0, *, writes: Number = 0.5) -> None: ...
    rate: Any
    writes: Any

class Stencil(Workload):
    """The wave equation by a five-point stencil: a numerical code that rewrites half of its memory in each
    step while it reads the other half. It computes in whole numbers, so that what neighbours exchange
    cancels exactly: the momentum is the same after every step. The check compares it, and a running
    sum over all cells, with what memory holds.

    Args:
        rate: Bytes of cells written per second; 0 means as fast as the thread can. In bytes per second. From 0 B/s to 1 TB/s. Default 100 MB/s.
    """
    def __init__(self, rate: Rate = 100000000.0) -> None: ...
    rate: Any

class Gc(Workload):
    """Allocates objects that refer to each other and drops others, as a language with a garbage collector
    does: writes sweep the nursery, survivors are copied to an old space, which is copied to another
    when it is full. The check walks every live object and verifies stamps, links and checksums.

    Args:
        rate: Bytes allocated and copied per second; 0 means as fast as the thread can. In bytes per second. From 0 B/s to 1 TB/s. Default 100 MB/s.
        object_bytes: Greatest size of an object's own data; sizes are uniform from 8 bytes up. In bytes. From 8 B to 64 KiB. Default 256 B.
        content: What objects hold. Default {'name': 'text'}.
    """
    def __init__(self, rate: Rate = 100000000.0, *, object_bytes: Size = 256, content: Any = ...) -> None: ...
    rate: Any
    object_bytes: Any
    content: Any

class Kvm(Workload):
    """A real vCPU, run by /dev/kvm, writes a stamp into page after page of its memory.
    Needs access to /dev/kvm; the trackers kvm-log and kvm-ring see its writes.

    Args:
        rate: Bytes written per second, a whole page a write; 0 means as fast as the vCPU can. In bytes per second. From 0 B/s to 1 TB/s. Default 10 MB/s.
        stride: Pages from one write to the next, modulo the pages there are. Where the two have a common divisor, only pages that it divides are written. From 1 to 1e+06. Default 1.
    """
    def __init__(self, rate: Rate = 10000000.0, *, stride: int | str = 1) -> None: ...
    rate: Any
    stride: Any
