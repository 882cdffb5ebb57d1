"""A migration's report: the same as in the other worlds, with what QEMU itself said under `qemu`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from switchover import _native, policies
from switchover.errors import QmpError
from switchover.qemu import vantage
from switchover.qemu.cpu import spent
from switchover.qemu.figures import PAGE, Look
from switchover.qemu.relay import Relay
from switchover.qemu.settings import running
from switchover.report import SCHEMA, Report

if TYPE_CHECKING:
    from switchover.qemu.migration import Migration
    from switchover.qemu.qmp import Qmp


def guest(source: Qmp) -> dict[str, Any]:
    """What kind of VM it is."""
    kvm, cpus = source.execute("query-kvm"), source.execute("query-cpus-fast")
    machine = None
    with contextlib.suppress(QmpError):
        machine = source.execute("qom-get", {"path": "/machine", "property": "type"})
    return {
        "name": source.execute("query-name").get("name"),
        "machine": machine,
        "vcpus": len(cpus),
        "accelerator": "kvm" if kvm.get("enabled") else "tcg",
    }


def sides(pair: list[dict[str, Any] | None]) -> dict[str, Any]:
    """The two sides' CPU times by name, where they are known."""
    return {name: each for name, each in zip(("source", "destination"), pair, strict=True) if each is not None}


def make(run: Migration, last: dict[str, Any], total: float) -> Report:
    """The report of a run that is over; `last` is the source's last answer."""
    look = Look(total, last)
    complete = run.unheard or last.get("status") == "completed"
    _look_at_switchover(run)
    _close(run, look, complete=complete)
    outcome, reason = _outcome(run, last, complete=complete)
    gaps = _gaps(run, last, complete=complete)
    blackout, whose = vantage.choose(gaps)
    ledger = run.ledger
    data = {
        "schema": SCHEMA,
        "version": _native.VERSION,
        "world": "qemu",
        "strategy": run.plan.strategy | {"features": run.features.given()},
        "policy": {"name": "QEMU's own rule"} if run._policy is None else policies.spec_of(run._policy),
        "link": {"uri": run.uri},
        "guest": run.guest,
        "outcome": outcome,
        "reason": reason,
        "total_time": last["total-time"] / 1000 if complete and "total-time" in last else total,
        "setup_time": last.get("setup-time", ledger.last.answer.get("setup-time", 0)) / 1000,
        "blackout": blackout,
        "blackout_from": whose,
        **gaps,
        "guest_gap_error": None if run._beats[0] is None else run._beats[0].usual(),
        "blackout_parts": run.moments.parts(),
        "verify_time": 0.0,
        "verified": None,
        "memory_bytes": ledger.memory_bytes,
        **_sent(run, look if look.ram else ledger.last, total),
        "rounds": ledger.rounds,
        "events": sorted(run.events, key=lambda event: float(event["time"])),
        "guest_cost": dict.fromkeys(("before", "during", "after", "slowdown", "write_rate")),
        "tracking": {"tracker": "qemu", "first_write_ns": None, "scan_us_per_gib": None, "scan_time": 0.0},
        "qemu": _theirs(run, last),
    }
    return Report(data)


def _look_at_switchover(run: Migration) -> None:
    """What the guest and a relay saw of it joins what the events say."""
    moments, relay = run.moments, run._through
    moments.beats = None if run._beats[0] is None else run._beats[0].edges
    moments.wire = relay.moments() if isinstance(relay, Relay) else {}
    moments.post_copy = any(event.get("state") == "postcopy-active" for event in run.events)


def _close(run: Migration, look: Look, *, complete: bool) -> None:
    """The last live round, and what was sent after it: with the guest stopped or, in post-copy, at the destination."""
    ledger = run.ledger
    if not complete or ledger.begun is None:
        return
    ledger.note(look)
    after = sum(int(look.ram.get(name, 0)) for name in ("downtime-bytes", "postcopy-bytes"))
    if run.last_sync is not None and after and not look.ram.get("multifd-bytes"):
        ledger.end_round(_before(look, run.last_sync, after), live=True)
    ledger.end_round(look, live=False)


def _before(look: Look, time: float, after: int) -> Look:
    """How it stood when the last round began: QEMU counts the bytes sent since, and pages follow from them."""
    pages = after // PAGE
    ram = {
        **look.ram,
        "transferred": look.ram["transferred"] - after,
        "normal": max(0, look.ram["normal"] - pages),
        "remaining": pages * PAGE,
    }
    return Look(time, {**look.answer, "ram": ram})


def _sent(run: Migration, look: Look, total: float) -> dict[str, Any]:
    pages, zero, encoded = look.pages
    sent = int(look.ram.get("transferred", 0))
    began = run.ledger.begun.time if run.ledger.begun is not None else 0.0
    first = run.ledger.rounds[0]["start"] if run.ledger.rounds else began
    seconds = look.time - first if look.time > first else total
    return {
        "sent_bytes": sent,
        "sent_pages": pages,
        "zero_pages": zero,
        "encoded_pages": encoded,
        "throughput": sent / seconds if seconds > 0 else 0.0,
    }


def _outcome(run: Migration, last: dict[str, Any], *, complete: bool) -> tuple[str, str]:
    if complete:
        late = f"{run._why[1]}: came too late, the guest had moved" if run._why else ""
        return "completed", late or _where_completed(run)
    status = last.get("status", "unknown")
    outcome, reason = run._why or ("aborted" if status == "cancelled" else "failed", "")
    said = last.get("error-desc", "")
    if not reason:
        reason = f"QEMU: {said}" if said else f"QEMU's migration is {status}"
    elif said and outcome == "failed" and said not in reason:
        # Of a cancelled one QEMU says how its channel ended, which is no news.
        reason += f" (QEMU: {said})"
    return outcome, f"{reason}; {_where(run, status)}"


def _where_completed(run: Migration) -> str:
    if run.unheard:
        return "the link was cut when the destination had every page; the source did not hear of it and stays stopped"
    if run.uri.startswith(("file:", "exec:", "fd:")):
        return "the guest's state is written, and it is stopped at the source"
    return ""


def _where(run: Migration, status: str) -> str:
    if status.startswith("postcopy"):
        return "the guest is at the destination, and part of its memory at the source"
    if running(run.source):
        return "the guest runs at the source"
    return "the guest is stopped at the source" if not run._ran else "the source's guest does not run"


def _gaps(run: Migration, last: dict[str, Any], *, complete: bool) -> dict[str, float | None]:
    if not complete or not run._ran:
        return dict.fromkeys(("sender_pause", "events_gap", "guest_gap", "observer_gap"))
    heard = [None if beats is None else beats.gap for beats in run._beats]
    sender = last.get("downtime") if run.plan.post_copy or "downtime" in last else None
    to_peer = not run.uri.startswith(("file:", "exec:", "fd:"))
    return {
        "sender_pause": sender / 1000 if sender is not None and to_peer else None,
        "events_gap": run.moments.events_gap,
        "guest_gap": heard[0],
        "observer_gap": heard[1],
    }


def _theirs(run: Migration, last: dict[str, Any]) -> dict[str, Any]:
    """What QEMU said itself, in its own words and units, and what the processes cost."""
    used = [None if each is None else each.read() for each in run.usage]
    cost = [spent(before, after) for before, after in zip(run._cpu, used, strict=True)]
    destination = {}
    if run.destination is not None:
        with contextlib.suppress(QmpError):
            destination = run.destination.execute("query-migrate", timeout=5)
    return {
        "versions": {"source": run.versions[0], "destination": run.versions[1]},
        "set": {"source": vars(run.plan.source), "destination": vars(run.plan.destination)},
        "source": last,
        "destination": destination,
        "timeline": run.ledger.timeline,
        "wire": run.moments.wire,
        "cpu": sides(cost),
        "recoveries": run._recovered,
        "one_clock": run.moments.one_clock,
    }
