"""A rehearsal: a real VM copies its memory to a receiver of ours, which lets it fall, and never moves.

That it cannot reach switchover is QEMU's own doing: with the capability `switchover-ack` a source goes on copying until
its destination says that it may switch over, and this one never does. So no guest is stopped, not even one that is idle
and has nothing left to send. A QEMU without that capability (before 8.1) is refused.
"""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from switchover import policies, units
from switchover.decision import Decision
from switchover.errors import UsageError
from switchover.qemu.abilities import Abilities
from switchover.qemu.calls import run as run_to_its_end
from switchover.qemu.features import Features
from switchover.qemu.migration import Migration
from switchover.qemu.qmp import Qmp
from switchover.stream import Receiver
from switchover.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from switchover.qemu.qmp import Address
    from switchover.report import Report
    from switchover.round import Round
    from switchover.stream import Reception

NEEDED = "switchover-ack"


class Until:
    """The policy of a rehearsal: it is over after a time."""

    may_throttle = False

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __call__(self, round: Round, history: list[Round]) -> Decision:
        """At a round's end."""
        del history
        return self._decide(round.elapsed)

    def sample(self, sample: Any) -> Decision:
        """In the middle of one."""
        return self._decide(sample.elapsed)

    def _decide(self, elapsed: float) -> Decision:
        return Decision.abort("the rehearsal is over") if elapsed >= self._seconds else Decision.proceed()


class Rehearsal:
    """What a rehearsal left behind.

    Attributes:
        report: The rounds as QEMU counted them, and what shadow policies would have done; its outcome is `aborted`.
        reception: What came over the wire, and when.
    """

    def __init__(self, report: Report, reception: Reception) -> None:
        self.report, self.reception = report, reception

    def __repr__(self) -> str:
        return f"<Rehearsal: {len(self.report.rounds)} rounds, {self.reception!r}>"


def rehearse(
    source: Qmp | Address,
    duration: units.Time = "30s",
    *,
    bandwidth: units.Rate = "32MB/s",
    output: str | Path | None = None,
    log: str | Path | None = None,
    shadow: Sequence[policies.Judge | str] | Mapping[str, policies.Judge | str] = (),
    on_round: Callable[[Round, Decision], object] | None = None,
) -> Rehearsal:
    """Has a VM copy its memory for a while; it goes on running and never moves.

    Args:
        source: The VM's monitor, on this machine.
        duration: How long.
        bandwidth: The most to use, so that the guest does not suffer.
        output: A file to keep the stream in, which holds the guest's memory; left out, the bytes are measured and
            let fall.
        log: A file for the page log: which pages came when, for [`from_stream`][switchover.trace.Trace.from_stream].
        shadow: Policies that watch: what they would have done is in the report.
        on_round: Called with each round.

    Raises:
        UsageError: This QEMU cannot be kept from switching over.
    """
    limit = units.parse_time(duration, "duration")
    qmp = source if isinstance(source, Qmp) else Qmp(source)
    try:
        found = Abilities(qmp)
        if NEEDED not in found.capabilities:
            raise UsageError(
                f"{qmp.name}: QEMU {found.version} has no capability {NEEDED} (8.1 and later have): without it an idle "
                "guest could switch over in a rehearsal, so there is none"
            )
        features = Features(bandwidth=bandwidth, capabilities={NEEDED: True})
        return _rehearsed(qmp, features, Until(limit), (output, log), shadow=shadow, on_round=on_round)
    finally:
        if qmp is not source:
            qmp.close()


def record(
    source: Qmp | Address,
    duration: units.Time = "30s",
    *,
    interval: units.Time = "100ms",
    bandwidth: units.Rate = "32MB/s",
) -> Trace:
    """The dirty trace of a VM, out of a rehearsal: which of its pages were sent again, and when.

    Args:
        source: The VM's monitor, on this machine.
        duration: How long. The first pass alone takes memory / bandwidth; a page counts as written only after it.
        interval: Of the trace.
        bandwidth: The most to use.

    Raises:
        UsageError: This QEMU cannot be kept from switching over.
    """
    with tempfile.TemporaryDirectory(prefix="switchover-") as folder:
        log = Path(folder) / "pages"
        rehearse(source, duration, bandwidth=bandwidth, log=log)
        return Trace.from_stream(log, interval=interval)


def _rehearsed(
    qmp: Qmp,
    features: Features,
    until: Until,
    files: tuple[str | Path | None, str | Path | None],
    *,
    shadow: Any,
    on_round: Any,
) -> Rehearsal:
    output, log = files
    with Receiver("tcp:127.0.0.1:0") as receiver:
        received: list[Reception] = []
        listener = threading.Thread(
            target=lambda: received.append(receiver.receive(output, log=log, ending="hold")),
            name="switchover-rehearsal",
        )
        migration = Migration(qmp, receiver.endpoint, "pre-copy", until, features=features, shadow=shadow)
        listener.start()
        try:
            with migration:
                run_to_its_end(migration, on_round)
        finally:
            receiver.cancel()
            listener.join()
        return Rehearsal(migration.report, received[0])
