"""What policies decide, done by a QEMU."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from switchover.errors import QmpError
from switchover.qemu.plan import AT_ONCE_MS, Plan, throttle_settings

if TYPE_CHECKING:
    from switchover.decision import Decision
    from switchover.qemu.qmp import Qmp
    from switchover.qemu.settings import Setter

MIB = 1 << 20


class Acts:
    """Decisions as commands and parameters of the source."""

    def __init__(self, source: Qmp, setter: Setter, plan: Plan) -> None:
        self._source, self._setter, self._plan = source, setter, plan
        self._limited_vcpus = False

    def do(self, decision: Decision, throttle: float) -> tuple[str, str] | None:
        """Does it; how and why the migration has to end, if it has to. `throttle` is what vCPUs are held back by.

        Raises:
            QmpError: QEMU refused.
        """
        if decision.kind == "abort":
            return "aborted", decision.reason.text
        if decision.kind == "switch_over":
            self._setter.change(downtime_limit=AT_ONCE_MS)
        elif decision.kind == "post_copy":
            return self._post_copy()
        elif decision.kind == "throttle":
            return self._throttle(decision.percent or 0.0, throttle)
        elif decision.kind == "limit":
            return self._limit(decision)
        return None

    def _post_copy(self) -> tuple[str, str] | None:
        if not self._plan.post_copy:
            name = self._plan.strategy["name"]
            return "failed", f"the policy asked for post-copy, which {name} cannot do: use the strategy hybrid"
        self._source.execute("migrate-start-postcopy")
        return None

    def _throttle(self, percent: float, now: float) -> tuple[str, str] | None:
        if not self._plan.throttles:
            return "failed", "the policy asked for a throttle, which has to be prepared before the start"
        named = {name.replace("-", "_"): value for name, value in throttle_settings(percent, now).items()}
        self._setter.change(**named)
        return None

    def _limit(self, decision: Decision) -> tuple[str, str] | None:
        if decision.write_delay:
            return "failed", "the policy asked to delay first writes, which QEMU cannot do"
        if decision.blackout is not None:
            self._setter.change(downtime_limit=min(AT_ONCE_MS, max(1, round(1000 * decision.blackout))))
        if decision.bandwidth is not None:
            self._setter.change(max_bandwidth=int(decision.bandwidth))
        if decision.dirty_rate is not None:
            self._limit_vcpus(decision.dirty_rate)
        return None

    def _limit_vcpus(self, rate: float) -> None:
        if rate > 0:
            self._limited_vcpus = True
            self._source.execute("set-vcpu-dirty-limit", {"dirty-rate": max(1, round(rate / MIB))})
        elif self._limited_vcpus:
            self._source.execute("cancel-vcpu-dirty-limit")

    def undo(self) -> None:
        """Takes back what is no parameter."""
        if self._limited_vcpus:
            with contextlib.suppress(QmpError):
                self._source.execute("cancel-vcpu-dirty-limit")
