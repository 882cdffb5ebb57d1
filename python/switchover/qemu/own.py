"""A source and a destination of our own, over a shaped link, with our own guest: made, migrated once, and gone."""

from __future__ import annotations

import contextlib
import os
import time
from functools import cache
from typing import TYPE_CHECKING, Any

from switchover import units
from switchover.errors import SwitchoverError
from switchover.link import Link
from switchover.qemu.calls import run as run_to_its_end
from switchover.qemu.migration import Migration
from switchover.qemu.relay import Relay
from switchover.qemu.vm import Vm, found
from switchover.workloads import registry as workloads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from switchover import policies
    from switchover.decision import Decision
    from switchover.qemu.features import Features
    from switchover.report import Report
    from switchover.round import Round

# A KVM that works fills so much in far less.
PROBE_SECONDS = 10.0


class Pair:
    """A source and a destination of our own; `migrate` moves the guest once.

    Args:
        workload: What the guest writes: a pattern of `switchover.workloads`.
        memory: Of each VM.
        link: What the migration goes over.
        binary: Which QEMU; `destination_binary` where the destination's is another one.
        destination_binary: The destination's.
        accelerator: `tcg`, `kvm`, or `auto` for KVM where it works.
        seed: Of what is random.
        arguments: More for both command lines.
    """

    def __init__(
        self,
        workload: object = "uniform:rate=10MB/s",
        memory: units.Size = "64MiB",
        *,
        link: Link | str | None = None,
        binary: str | None = None,
        destination_binary: str | None = None,
        accelerator: str = "auto",
        seed: int = 0,
        arguments: Sequence[str] = (),
    ) -> None:
        self.workload, self.link = workloads.of(workload), Link.of(link)
        self._stack = contextlib.ExitStack()
        self.accelerator = best(binary) if accelerator == "auto" else accelerator
        more: dict[str, Any] = {"seed": seed, "accelerator": self.accelerator, "arguments": arguments}
        try:
            self.source = self._stack.enter_context(Vm(self.workload, memory, binary=binary, **more))
            there = destination_binary or binary
            self.destination = self._stack.enter_context(Vm(self.workload, memory, binary=there, incoming=True, **more))
            self.links = Relay(self.link, self.source.folder)
            self._stack.callback(self.links.close)
            self.source.wait_until_filled()
            self.source.hang_up()
        except BaseException:
            self._stack.close()
            raise

    def migrate(
        self,
        strategy: object = "pre-copy",
        policy: policies.Judge | str | None = None,
        *,
        features: Features | dict[str, Any] | str | None = None,
        shadow: Sequence[policies.Judge | str] | Mapping[str, policies.Judge | str] = (),
        warm_up: units.Time = "1s",
        cool_down: units.Time = "500ms",
        check: bool = True,
        recover: bool = True,
        on_round: Callable[[Round, Decision], object] | None = None,
    ) -> Report:
        """Moves the guest, which then checks its own data; the report says how it fared.

        Raises:
            VerificationError: The guest found a page damaged.
        """
        source, destination = self.source, self.destination
        migration = Migration(
            source.monitor, f"unix:{destination.folder / 'stream'}", strategy, policy, destination=destination.monitor,
            features=features, shadow=shadow, heartbeat=(source.beat, destination.beat),
            observer=(source.echo, destination.echo), warm_up=warm_up, cool_down=cool_down, recover=recover,
            through=self.links,
        )  # fmt: skip
        with migration:
            run_to_its_end(migration, on_round)
        report = migration.report
        report.data["link"] = self.link.spec() | {"uri": migration.uri}
        report.data["guest"] |= {"workload": self.workload.spec()}
        if check:
            where = destination if report.outcome == "completed" else source
            report.data["qemu"]["guest_check"] = where.check()
            where.hang_up()
        return report

    def close(self) -> None:
        """Ends both VMs."""
        self._stack.close()

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@cache
def best(binary: str | None = None) -> str:
    """`kvm` where it runs our guest faster than `tcg` does; some machines have a /dev/kvm that only emulates."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    found(binary)
    times = {}
    for accelerator in ("kvm", "tcg"):
        began = time.monotonic()
        try:
            with Vm("idle", "64MiB", binary=binary, accelerator=accelerator) as vm:
                vm.wait_until_filled(PROBE_SECONDS)
        except SwitchoverError:
            continue
        times[accelerator] = time.monotonic() - began
    # Where neither was quick enough to tell, a machine is busy; what does not start at all says so when it is used.
    return min(times, key=lambda name: times[name]) if times else "tcg"
