"""Types of the classes of `switchover.policies`. Written by scripts/stubs.py."""

from typing import Any

from switchover.policies import Policy
from switchover.units import Number, Rate, Size, Time

class DowntimeLimit(Policy):
    """Switches over when remaining / bandwidth is at most the limit: QEMU's own rule (migration.c,
    migration_completion; `downtime-limit`, 300 ms). It has no cap on rounds or time: a guest that
    writes faster than the link carries is copied for ever.

    Args:
        limit: Longest blackout to accept, by the estimate. In seconds. From 0 s to 33.3 min. Default 300 ms.
    """
    def __init__(self, limit: Time = 0.3) -> None: ...
    limit: Any

class MaxRounds(Policy):
    """Ends the live copy after so many rounds, whatever remains.

    Args:
        rounds: Rounds of live copying, round 0 included. From 1 to 1e+09. Default 30.
        then: What then: `switchover` or `abort`. Default switchover.
    """
    def __init__(self, rounds: int | str = 30, *, then: str = 'switchover') -> None: ...
    rounds: Any
    then: Any

class DirtyThreshold(Policy):
    """Switches over at a round count, at few remaining pages, or when too much was sent: the constants of
    Xen's classic tools (29 rounds, 50 pages, 3 x memory), which ask nothing of the link.

    Args:
        rounds: Rounds of live copying, round 0 included, after which it switches over. From 1 to 1e+09. Default 29.
        pages: It switches over when fewer pages remain. From 0 to 1e+12. Default 50.
        factor: It switches over when pages sent are more than this multiple of memory. From 0 to 1e+06. Default 3.
    """
    def __init__(self, rounds: int | str = 29, *, pages: int | str = 50, factor: Number = 3.0) -> None: ...
    rounds: Any
    pages: Any
    factor: Any

class TimeLimit(Policy):
    """Ends the live copy after so long, at the first round's end after it.

    Args:
        limit: Time since the migration's start. In seconds. From 0 s to 277778 h. Default 1 min.
        then: What then: `switchover`, `postcopy` or `abort`. Default abort.
    """
    def __init__(self, limit: Time = 60.0, *, then: str = 'abort') -> None: ...
    limit: Any
    then: Any

class AnyOf(Policy):
    """Asks each policy in turn and does what the first that fires says. All of them see every round.

    Args:
        policies: The policies, the most important first. Default [].
    """
    def __init__(self, policies: Any = ...) -> None: ...
    policies: Any
