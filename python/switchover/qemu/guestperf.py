"""The comparisons of QEMU's guestperf, run with pairs of our own; and its JSON reports as reports of ours.

guestperf (in QEMU's `tests/migration-stress/guestperf`) sweeps one thing at a time over a guest that writes all of its
memory in turn, without end. Mended here: cache sizes of XBZRLE are powers of two; the pages' content is not the same in
all of them, so that compression is not flattered; what a QEMU lacks is left out with the reason, and the rest is run;
a run that was paused counts as done. Iterations are rounds; `pause` is switching over whatever remains.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from switchover import contents, workloads
from switchover.decision import Decision
from switchover.errors import SwitchoverError, UsageError
from switchover.qemu.own import Pair
from switchover.report import SCHEMA, Report
from switchover.round import Round

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from switchover import units

MIB = 1 << 20
PAGE = 4096
# guestperf gives up after so many passes, or so many seconds.
MOST_ROUNDS, MOST_TIME = 30, 300.0
BANDWIDTHS = (12, 37, 125, 1250, 12500)


@dataclass(frozen=True)
class Scenario:
    """One run of a comparison.

    Attributes:
        name: As guestperf has it: `post-copy-iters/5`.
        rounds: After so many, post-copy begins, or the rest is sent with the guest stopped; `None`: neither.
        features: What QEMU uses.
    """

    name: str
    strategy: str = "pre-copy"
    rounds: int | None = None
    features: dict[str, Any] = field(default_factory=dict)

    def policy(self) -> Any:
        """What decides: the rounds, and guestperf's limits on a run that leads nowhere."""
        return Limits(self.rounds, self.strategy)


class Limits:
    """Acts after some rounds, and gives up after guestperf's most."""

    may_throttle = False

    def __init__(self, rounds: int | None, strategy: str) -> None:
        self._rounds, self._strategy = rounds, strategy

    def __call__(self, round: Round, history: list[Round]) -> Decision:
        """At a round's end."""
        if self._rounds is not None and round.index + 1 >= max(1, self._rounds):
            if self._strategy == "hybrid":
                return Decision.postcopy(f"{self._rounds} iterations")
            return Decision.switchover(f"{self._rounds} iterations")
        if round.expected_blackout <= 0.5:
            return Decision.switchover("it fits 500 ms")
        if len(history) >= MOST_ROUNDS or round.elapsed > MOST_TIME:
            return Decision.abort(f"{MOST_ROUNDS} iterations or {MOST_TIME:g} s")
        return Decision.proceed()


def power_of_two(size: float) -> int:
    """The greatest that is not more."""
    return 1 << (int(size).bit_length() - 1)


def suite(memory: int) -> list[Scenario]:
    """All scenarios, for VMs of `memory` bytes.

    >>> len(suite(1 << 30)), suite(1 << 30)[0].name
    (40, 'pause-iters/0')
    """
    cache = {share: power_of_two(memory * share / 100) for share in (5, 10, 20, 50)}
    rate = {each: each * MIB for each in BANDWIDTHS}
    step = "cpu-throttle-increment"
    found = [Scenario(f"pause-iters/{n}", rounds=n) for n in (0, 1, 5, 20)]
    found += [Scenario(f"post-copy-bandwidth/{b}", "hybrid", 5, {"bandwidth": rate[b]}) for b in BANDWIDTHS]
    found += [Scenario(f"post-copy-iters/{n}", "hybrid", n) for n in (0, 1, 5, 20)]
    found += [
        Scenario(f"auto-converge-iters/{n}", features={"auto_converge": True, "parameters": {step: n}})
        for n in (5, 10, 20)
    ]
    found += [
        Scenario(f"auto-converge-bandwidth/{b}", features={"auto_converge": True, "bandwidth": rate[b]})
        for b in BANDWIDTHS
    ]
    found += [Scenario(f"compr-xbzrle/{share}", features={"xbzrle": size}) for share, size in cache.items()]
    found += [Scenario(f"compr-multifd/{n}", features={"multifd": n}) for n in (4, 8, 32, 64)]
    period = "x-vcpu-dirty-limit-period"
    found += [
        Scenario(f"compr-dirty-limit-period/{ms}", features={"dirty_limit": MIB, "parameters": {period: ms}})
        for ms in (500, 800, 1000)
    ]
    found += [Scenario(f"compr-dirty-limit/{mb}", features={"dirty_limit": mb * MIB}) for mb in (10, 20, 50)]
    return found + [
        Scenario(f"compr-multifd-compression/{how}", features={"multifd": 2, "compression": how})
        for how in ("zlib", "zstd", "qpl", "uadk")
    ] + [Scenario("plain/0")]  # fmt: skip


def run(
    memory: units.Size = "128MiB",
    *,
    only: Callable[[str], bool] | None = None,
    rate: units.Rate = "100MB/s",
    link: str | None = "1Gbit/s",
    binary: str | None = None,
    accelerator: str = "auto",
) -> Iterator[tuple[str, Report | None, str]]:
    """Runs the scenarios whose names pass `only`, or all; each with its report, or none and the reason."""
    from switchover import units as parsers

    size = parsers.parse_size(memory, "memory")
    stress = workloads.registry.get("sweep", rate=rate, content=contents.registry.get("mix"))
    for scenario in suite(size):
        if only is not None and not only(scenario.name):
            continue
        try:
            with Pair(stress, size, link=link, binary=binary, accelerator=accelerator) as pair:
                report = pair.migrate(scenario.strategy, scenario.policy(), features=scenario.features)
        except SwitchoverError as error:
            yield scenario.name, None, str(error)
        else:
            yield scenario.name, report, ""


def read(path: str | Path) -> Report:
    """A report that guestperf wrote, as a report of ours. What guestperf did not measure is not there.

    Its downtime is the source's own figure; its per-pass records hold counters since the start.

    Raises:
        UsageError: It is none.
    """
    try:
        data = json.loads(Path(path).read_text())
        return Report(_converted(data))
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise UsageError(f"{path} is no report of guestperf: {error!r}") from error


def _converted(data: dict[str, Any]) -> dict[str, Any]:
    history = data["progress_history"]
    last, scenario = history[-1], data["scenario"]
    # Of a migration that was cancelled or failed QEMU gives no counters, which guestperf writes down as zeros.
    counted = [record for record in history if int(record["ram"]["total_bytes"])]
    ram = counted[-1]["ram"] if counted else last["ram"]
    # A run that was paused is written down as a failure, though it completed.
    complete = last["status"] == "completed"
    seconds = last["duration"] / 1000 or (counted[-1]["duration"] / 1000 if counted else 0.0)
    pause = last["downtime"] / 1000 if complete else None
    sent, zero = int(ram["transferred_bytes"]), int(ram["duplicate_pages"])
    timings = ("guest_timings", "qemu_timings", "vcpu_timings", "binary", "kernel", "initrd", "sleep", "result")
    return {
        "schema": SCHEMA, "version": "guestperf", "world": "qemu",
        "strategy": {"name": "hybrid" if scenario.get("post_copy") else "pre-copy", "scenario": scenario},
        "policy": {"name": "guestperf"}, "link": {"transport": data.get("transport")},
        "guest": {"hardware": data["hardware"]},
        "outcome": "completed" if complete else "aborted" if last["status"] == "cancelled" else "failed",
        "reason": "" if complete else f"guestperf: {last['status']}",
        "total_time": seconds, "setup_time": last.get("setup_time", 0) / 1000,
        "blackout": pause, "blackout_from": None if pause is None else "sender_pause",
        "sender_pause": pause, "events_gap": None, "guest_gap": None, "guest_gap_error": None, "observer_gap": None,
        "blackout_parts": {}, "verify_time": 0.0, "verified": None,
        "memory_bytes": int(ram["total_bytes"]), "sent_bytes": sent, "sent_pages": int(ram["normal_pages"]) + zero,
        "zero_pages": zero, "encoded_pages": 0, "throughput": sent / seconds if seconds else 0.0,
        "rounds": list(_rounds(counted)), "events": [],
        "guest_cost": dict.fromkeys(("before", "during", "after", "slowdown", "write_rate")),
        "tracking": {"tracker": "qemu", "first_write_ns": None, "scan_us_per_gib": None, "scan_time": 0.0},
        "qemu": {"cpu": {}, "guestperf": {name: data.get(name) for name in timings}},
    }  # fmt: skip


def _rounds(counted: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A round between each two records: one is made when QEMU has begun another pass, and one at the end."""
    for index, (before, record) in enumerate(pairwise(counted)):
        was, ram = before["ram"], record["ram"]
        start, end = before["duration"] / 1000, record["duration"] / 1000
        normal, zero = (int(ram[name]) - int(was[name]) for name in ("normal_pages", "duplicate_pages"))
        remaining, bandwidth = int(ram["remaining_bytes"]), float(ram["transfer_rate_mbs"]) * 1e6 / 8
        row = Round(
            index=index, live=record["status"] != "completed", start=start, duration=max(0.0, end - start), elapsed=end,
            sent_bytes=int(ram["transferred_bytes"]) - int(was["transferred_bytes"]), sent_pages=normal + zero,
            zero_pages=zero, total_sent_bytes=int(ram["transferred_bytes"]),
            total_sent_pages=int(ram["normal_pages"]) + int(ram["duplicate_pages"]), remaining_pages=remaining // PAGE,
            remaining_bytes=remaining, dirty_rate=float(ram["dirty_rate_pps"]) * PAGE, bandwidth=bandwidth,
            expected_blackout=remaining / bandwidth if bandwidth else 0.0,
            throttle=float(record.get("throttle_pcent") or 0), memory_bytes=int(ram["total_bytes"]),
        )  # fmt: skip
        yield {name: getattr(row, name) for name in Round.__dataclass_fields__} | {"qemu": record}
