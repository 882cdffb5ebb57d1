"""QEMU's migration streams: read, summed up, checked, taken apart, and received.

    >>> import switchover as sw
    >>> capture = sw.stream.open("vm.mig")  # doctest: +SKIP
    >>> capture.machine, len(capture.passes)  # doctest: +SKIP
    ('pc-i440fx-10.0', 4)
    >>> capture.memory("pc.ram")[:2].tobytes()  # doctest: +SKIP
    b'Sw'

A capture is one file, or the files of one migration (main channel, multifd channels, those of a post-copy) in any
order, or a folder of them. Its bytes are taken to be hostile. `Capture` yields what is in `switchover.stream.events`.

A receiver is a destination for a real source:

    >>> from switchover import stream
    >>> with stream.Receiver("127.0.0.1:0") as receiver:
    ...     receiver.endpoint.startswith("tcp:127.0.0.1:")
    True
"""

from switchover.stream import events
from switchover.stream.capture import PAGE_ROW, Block, Capture, Counts, Device, Problem, open_capture
from switchover.stream.page_log import LOG_ROW, PageLog, read_log
from switchover.stream.receiver import Receiver, receive
from switchover.stream.reception import Channel, Pages, Pass, Reception, Section

__all__ = [
    "LOG_ROW",
    "PAGE_ROW",
    "Block",
    "Capture",
    "Channel",
    "Counts",
    "Device",
    "PageLog",
    "Pages",
    "Pass",
    "Problem",
    "Receiver",
    "Reception",
    "Section",
    "events",
    "open",
    "read_log",
    "receive",
]

open = open_capture
