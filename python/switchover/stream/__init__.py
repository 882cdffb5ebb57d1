"""QEMU's migration streams.

>>> from switchover import stream
>>> with stream.Receiver("127.0.0.1:0") as receiver:
...     receiver.endpoint.startswith("tcp:127.0.0.1:")
True
"""

from switchover.stream.receiver import Receiver, receive
from switchover.stream.reception import Channel, Pages, Pass, Reception, Section

__all__ = ["Channel", "Pages", "Pass", "Receiver", "Reception", "Section", "receive"]
