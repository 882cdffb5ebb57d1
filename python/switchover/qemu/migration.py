"""Migrations of real VMs: the call that does it all, and the loop behind it."""

from __future__ import annotations

import contextlib
import queue
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from switchover import policies, units
from switchover.decision import Decision
from switchover.errors import QmpError, SwitchoverError, UsageError
from switchover.migration import named
from switchover.qemu import account, cost, incoming, plan, recovery
from switchover.qemu.abilities import Abilities
from switchover.qemu.acts import Acts
from switchover.qemu.cpu import Usage
from switchover.qemu.features import Features
from switchover.qemu.figures import Ledger, Look
from switchover.qemu.guardian import Guardian
from switchover.qemu.heartbeat import Beats
from switchover.qemu.judge import Judge
from switchover.qemu.qmp import Address, Event, Qmp
from switchover.qemu.relay import Relay
from switchover.qemu.settings import Setter, running
from switchover.qemu.vantage import Moments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from switchover.report import Report
    from switchover.round import Round

TICK = 0.1
LIVE = ("setup", "wait-unplug", "active")
FINAL = ("completed", "failed", "cancelled")
# Events that a report keeps, and what it calls them.
NAMED = {
    ("source", "STOP"): "paused",
    ("source", "RESUME"): "resumed_at_source",
    ("destination", "RESUME"): "resumed",
    ("source", "MIGRATION"): "qemu",
}
# The source has said that all is done; the destination's last words are worth so long a wait.
LAST_WORDS = 5.0
FIRST_WORDS = 1.0
TRIES = 3


class Migration:
    """A migration of a VM under way: the loop that `migrate` runs for you.

    Entering the context starts it; iterating gives the live rounds; leaving it ends it, cancelled if it was not over,
    and puts back all settings. Then `report` is there. Arguments are those of `migrate`.
    """

    def __init__(
        self,
        source: Qmp | Address,
        to: Qmp | Address,
        strategy: object = "pre-copy",
        policy: policies.Judge | str | None = None,
        *,
        destination: Qmp | Address | None = None,
        features: Features | dict[str, Any] | str | None = None,
        shadow: Sequence[policies.Judge | str] | Mapping[str, policies.Judge | str] = (),
        heartbeat: tuple[Address, Address] | Beats | None = None,
        observer: tuple[Address, Address] | Beats | None = None,
        warm_up: units.Time = "0s",
        cool_down: units.Time = "0s",
        recover: bool = True,
        through: Callable[[str], str] | None = None,
        stall_timeout: units.Time = "60s",
        timeout: units.Time = "30s",
    ) -> None:
        self._timeout = units.parse_time(timeout, "timeout")
        self._stall = units.parse_time(stall_timeout, "stall_timeout")
        self._owned: list[Qmp] = []
        self._given = (source, to, destination)
        self._strategy, self.features = strategy, Features.of(features)
        self._policy = None if policy is None else policies.of(policy)
        self._judge = None if self._policy is None else Judge(self._policy)
        self._watchers = {name: Judge(watcher) for name, watcher in named(shadow).items()}
        self._lines = (heartbeat, observer)
        self._beats: list[Beats | None] = [None, None]
        self._warm_up, self._cool_down = units.parse_time(warm_up, "warm_up"), units.parse_time(cool_down, "cool_down")
        self._recover = recover
        self._through = through or (lambda uri: uri)
        self._recovered = 0
        # The destination has every page, and the source did not hear of it.
        self.unheard = False
        self._setters: list[Setter] = []
        self._events: queue.SimpleQueue[tuple[str, Event] | None] = queue.SimpleQueue()
        self._deaf: list[Callable[[], None]] = []
        self._guardian: Guardian | None = None
        self._started = 0.0
        self._report: Report | None = None
        self.ledger = Ledger()
        self.moments = Moments()
        self.events: list[dict[str, Any]] = []
        """What happened when, as the report has it."""
        self._status = "none"
        self._why: tuple[str, str] | None = None
        self._error: SwitchoverError | None = None
        self._ordered: Round | None = None
        self._cancelled = False
        self._acts: Acts | None = None
        self._stop_arrived = False
        self.last_sync: float | None = None
        """When the dirty bitmap was harvested for the last round, which no policy is asked about."""

    # Beginning

    def __enter__(self) -> Self:
        if self._report is not None or self._guardian is not None:
            raise UsageError("a migration runs once; make another")
        try:
            self._connect()
            self._prepare()
            self._listen()
            time.sleep(self._warm_up if self._beats[0] else 0.0)
            self._start()
        except BaseException:
            self._release()
            raise
        return self

    def _connect(self) -> None:
        source, to, destination = self._given
        self.source = self._qmp(source)
        is_uri = isinstance(to, str) and plan.scheme_of(to)
        if not is_uri and destination is not None:
            raise UsageError("two destinations' monitors were given; `to` is then an address such as tcp:HOST:PORT")
        there = destination if is_uri else to
        self.destination = None if there is None else self._qmp(there)
        self.uri = str(to) if is_uri else incoming.HERE
        local = [side.pid is not None for side in (self.source, self.destination) if side is not None]
        self.moments.one_clock = len(local) == 2 and all(local)

    def _qmp(self, given: Qmp | Address) -> Qmp:
        if isinstance(given, Qmp):
            return given
        self._owned.append(Qmp(given, self._timeout))
        return self._owned[-1]

    def _prepare(self) -> None:
        """Finds out what cannot be before anything is set."""
        abilities = [None if side is None else Abilities(side) for side in (self.source, self.destination)]
        here, there = abilities
        assert here is not None  # noqa: S101  there is a source
        self.versions = [None if each is None else each.version for each in abilities]
        self._check_source()
        to_file = plan.scheme_of(self.uri) == "file"
        if self.destination is not None:
            incoming.check(self.destination)
        self.plan = plan.make(self._strategy, self.features, self._policy, self.uri, source=here, destination=there)
        self._ran = running(self.source)
        self.usage = [None if side is None else Usage(side) for side in (self.source, self.destination)]
        self.guest = account.guest(self.source)
        self._guardian = Guardian()
        self._set(self.destination, there, self.plan.destination, "destination")
        self._set(self.source, here, self.plan.source, "source")
        self._acts = Acts(self.source, self._setters[-1], self.plan)
        if self.destination is not None and not to_file:
            self.uri = incoming.listen(self.destination, self.uri)
        self._goes_to = self.uri if to_file else self._through(self.uri)

    def _check_source(self) -> None:
        now = self.source.execute("query-migrate")
        if now.get("status", "none") not in ("none", *FINAL):
            raise UsageError(f"{self.source.name}: a migration is under way already: it is {now['status']}")
        if now.get("blocked-reasons"):
            raise UsageError(f"{self.source.name}: this VM cannot migrate: {'; '.join(now['blocked-reasons'])}")

    def _set(self, qmp: Qmp | None, abilities: Abilities | None, settings: plan.Settings, side: str) -> None:
        if qmp is None or abilities is None:
            return
        setter = Setter(qmp, abilities, lambda before: self._tell_guardian(side, qmp, before))
        self._setters.append(setter)
        setter.apply(settings)

    def _tell_guardian(self, side: str, qmp: Qmp, before: dict[str, Any]) -> None:
        if self._guardian is not None:
            self._guardian.know(side, qmp.address, before)

    def _listen(self) -> None:
        for number, line in enumerate(self._lines):
            if line is not None:
                self._beats[number] = line if isinstance(line, Beats) else Beats(*line, ask=number == 1)
        for side, qmp in (("source", self.source), ("destination", self.destination)):
            if qmp is not None:
                self._deaf.append(qmp.listen(partial(self._arrive, side)))

        self._hear_the_source()

    def _hear_the_source(self) -> None:
        """Waits for a first word of each that listens there: of what was never heard no gap can be told."""
        deadline = time.monotonic() + FIRST_WORDS
        heard = [beats.source.moments for beats in self._beats if beats is not None]
        while not all(heard) and time.monotonic() < deadline:
            time.sleep(0.001)

    def _arrive(self, side: str, event: Event) -> None:
        """In the connection's thread, before the answer to whatever is asked meanwhile."""
        if side == "source" and event.name in ("STOP", "RESUME"):
            self._stop_arrived = event.name == "STOP"
        self._events.put((side, event))

    def _start(self) -> None:
        self._cpu = [None if each is None else each.read() for each in self.usage]
        self._started = self._moved = time.monotonic()
        self._sent: tuple[int, str] = (-1, "")
        try:
            self.source.execute("migrate", {"uri": self._goes_to})
            if self.plan.rounds == 0:
                self.source.execute("migrate-start-postcopy")
                self._note("decided", round=0, decision=Decision.postcopy("the strategy begins with it").to_dict())
        except QmpError as error:
            self._fail(error)
            self._status = "failed"

    # The loop

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def __iter__(self) -> Iterator[Round]:
        if self._guardian is None:
            raise UsageError("a migration runs inside its context: `with Migration(...) as m:`, and once")
        due = time.monotonic()
        while self._status not in FINAL:
            try:
                said = self._events.get(timeout=max(0.0, due - time.monotonic()))
            except queue.Empty:
                due = max(due + TICK, time.monotonic())
                self._guarded(self._tick)
                continue
            ended = self._guarded(self._hear, *said) if said else self._guarded(self._stop)
            if ended is not None:
                self._ordered = ended
                yield ended
        self._finish()

    def _guarded(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Does it; a QEMU that is gone ends the run."""
        try:
            return work(*arguments)
        except QmpError as error:
            self._fail(error)
            self._status = self._state_after(error)
            return None

    def _state_after(self, error: QmpError) -> str:
        """Once the source does not answer nothing more can be learned from it; a refusal is no end."""
        if error.words:
            self._cancel()
            return self._status
        return "failed"

    def _look(self) -> Look:
        look = Look(self.elapsed, self.source.execute("query-migrate"))
        usage = [None if each is None else each.read() for each in self.usage]
        self.ledger.note(look, account.sides(usage))
        self._see(look.status)
        return look

    def _see(self, status: str) -> None:
        if status == self._status:
            return
        self._status = status
        if status == recovery.PAUSED:
            self._go_on()

    def _tick(self) -> None:
        look = self._look()
        if self._status in FINAL:
            return
        self._watch_progress(look)
        if not look.ram or self._stop_arrived or self.ledger.begun is None:
            return
        sample = self.ledger.sample(look)
        for name, watcher in self._watchers.items():
            self._shadow(name, sample.round, self._asked(watcher.sample, sample, theirs=False))
        if self._judge is not None and self._why is None:
            decision = self._asked(self._judge.sample, sample)
            if decision is not None:
                self._act(decision, sample.round)

    def _watch_progress(self, look: Look) -> None:
        """A link on which nothing moves is given up: paused in post-copy, else cancelled."""
        now, sent = time.monotonic(), (look.ram.get("transferred", -1), look.status)
        if sent != self._sent:
            self._sent, self._moved = sent, now
        elif now - self._moved > self._stall:
            self._moved = now
            if look.status.startswith("postcopy") and self._arrived():
                # A source whose link went after its last page may wait for the destination's word for ever (7.2).
                self.unheard, self._status = True, "completed"
            elif look.status.startswith("postcopy"):
                self.source.execute("migrate-pause", oob=True)
            else:
                self._end("failed", f"nothing went over the link for {self._stall:g} s")

    def _arrived(self) -> bool:
        """Whether the destination says that it has everything."""
        if self.destination is None:
            return False
        with contextlib.suppress(QmpError):
            return bool(self.destination.execute("query-migrate").get("status") == "completed")
        return False

    def _hear(self, side: str, event: Event) -> Round | None:
        self._record(side, event)
        if side != "source":
            return None
        if event.name == "MIGRATION_PASS":
            return self._pass(event.arrived - self._started)
        if event.name == "MIGRATION" and event.data.get("status") != self._status:
            self._look()
        return None

    def _record(self, side: str, event: Event) -> None:
        """Keeps what an event says for the report."""
        self.moments.note(side, event)
        what = NAMED.get((side, event.name))
        if what is not None:
            self._note(
                what, at=event.arrived - self._started, **({"state": event.data.get("status")} if event.data else {})
            )

    def _pass(self, at: float) -> Round | None:
        """The dirty bitmap was harvested: a round is over, except for the first time."""
        look = self._look()
        if self.ledger.begun is None:
            self.ledger.begin(look)
            return None
        if self._stop_arrived or look.status not in LIVE:
            # QEMU was faster than the question: what remained is known from what was sent since.
            self.last_sync = min(at, self.last_sync or at)
            return None
        ended = self.ledger.end_round(look, live=True, delay=max(0.0, look.time - at))
        for name, watcher in self._watchers.items():
            self._shadow(name, ended.index, self._asked(watcher.decide, ended, theirs=False))
        self._ordered = ended
        return ended

    # Decisions

    def judge(self) -> Decision | None:
        """Has the policy answer the last round, and does what it says; `None` if it failed, which ends the run."""
        ended, self._ordered = self._ordered, None
        if ended is None or self._why is not None:
            return Decision.proceed()
        decision = Decision.proceed() if self._judge is None else self._asked(self._judge.decide, ended)
        if decision is None:
            return None
        if self.plan.rounds and ended.index + 1 >= self.plan.rounds and not decision.fires:
            decision = Decision.postcopy(f"the strategy's {self.plan.rounds} rounds are over")
            self.plan.rounds = None
        self._guarded(self._act, decision, ended.index)
        return decision

    def act(self, decision: Decision) -> None:
        """Answers the last round. A round that is not answered proceeds."""
        if not isinstance(decision, Decision):
            raise UsageError(f"act() takes a Decision, not {decision!r}")
        index = len(self.ledger.rounds) - 1 if self._ordered is None else self._ordered.index
        self._ordered = None
        self._guarded(self._act, decision, index)

    def _asked(self, ask: Callable[[Any], Decision | None], shown: Any, *, theirs: bool = True) -> Decision | None:
        try:
            return ask(shown)
        except SwitchoverError as error:
            if theirs:
                self._error = error
                self._end("failed", str(error))
            return None

    def _shadow(self, name: str, index: int, decision: Decision | None) -> None:
        if decision is not None and decision.fires:
            self._note("shadow", policy=name, round=index, decision=decision.to_dict())

    def _act(self, decision: Decision, index: int) -> None:
        if not decision.fires:
            return
        self._note("decided", round=index, decision=decision.to_dict())
        assert self._acts is not None  # noqa: S101  made before the start
        ended = self._acts.do(decision, self.ledger.last.throttle)
        if ended is not None:
            self._end(*ended)

    # The end

    def cancel(self) -> None:
        """Ends the run as aborted, from any thread; the guest runs on at the source. A post-copy goes on."""
        self._cancelled = True
        self._events.put(None)

    def _stop(self) -> None:
        self._end("aborted", "cancelled")

    def _end(self, outcome: str, reason: str) -> None:
        self._why = self._why or (outcome, reason)
        self._cancel()

    def _fail(self, error: SwitchoverError) -> None:
        self._error = self._error or error
        self._why = self._why or ("failed", str(error))

    def _cancel(self) -> None:
        if not self._status.startswith("postcopy"):
            with contextlib.suppress(QmpError):
                self.source.execute("migrate_cancel")

    def _go_on(self) -> None:
        """The link of a post-copy was lost: another one, if the destination can be told where."""
        while True:
            self._recovered += 1
            listen = incoming.again(self.uri, self._recovered)
            if not (self._recover and self.destination and listen) or self._recovered > TRIES:
                self._why = ("failed", "the link was lost in post-copy; the guest waits for pages at the destination: "
                             "`switchover qemu recover` goes on")  # fmt: skip
                self._status = "failed"
                return
            self._note("recovering", turn=self._recovered)
            try:
                goes_on = recovery.resume(self.source, self.destination, listen, self._through)
            except QmpError as error:
                self._error = error
            else:
                self.unheard = not goes_on
                self._error, self._status = None, "postcopy-recover" if goes_on else "completed"
                return

    def pause_post_copy(self) -> None:
        """Cuts the link of a post-copy under way, as `migrate-pause` does: to try recovery out."""
        self.source.execute("migrate-pause", oob=True)

    def _finish(self) -> None:
        if self._report is not None or self._guardian is None:
            return
        total = self.elapsed
        last = self._last_words()
        try:
            self._report = account.make(self, last, total)
            self._report.error = self._error
            self._ask_the_guest(self._report)
        finally:
            self._release()

    def _ask_the_guest(self, report: Report) -> None:
        """What it cost the guest, where the guest tells what it does."""
        beats = self._beats[0]
        if beats is None:
            return
        if report.outcome == "completed" and self._cool_down:
            time.sleep(self._cool_down)
            # A machine that is very busy may not have let it say enough to tell a speed.
            deadline = time.monotonic() + LAST_WORDS
            while beats.source.progress and not beats.destination.tells() and time.monotonic() < deadline:
                time.sleep(0.01)
        cost.fill(report.data, list(beats.source.progress), list(beats.destination.progress), self._started)

    def _last_words(self) -> dict[str, Any]:
        """What both sides say at the end, with the events that are still on their way."""
        answer: dict[str, Any] = {}
        with contextlib.suppress(QmpError):
            answer = self.source.execute("query-migrate", timeout=LAST_WORDS)
        arrived = self.destination is not None and answer.get("status") == "completed" and self._ran
        deadline = time.monotonic() + (LAST_WORDS if arrived else 0.0)
        while True:
            with contextlib.suppress(queue.Empty):
                while (said := self._events.get_nowait()) is not None:
                    self._record(*said)
            if not arrived or (self.moments.resume and self._heard_all()) or time.monotonic() > deadline:
                return answer
            time.sleep(0.005)

    def _heard_all(self) -> bool:
        """Whether whoever listens to the guest has heard it at the destination, and a relay has read to the end.

        Of a post-copy that was recovered the relay reads what came before the cut.
        """
        read = not isinstance(self._through, Relay) or bool(self._recovered) or self._through.has_read
        return read and all(beats is None or beats.gap is not None for beats in self._beats)

    def _release(self) -> None:
        """Puts all back, and lets go."""
        for deaf in self._deaf:
            deaf()
        for beats, line in zip(self._beats, self._lines, strict=True):
            if beats is not None and beats is not line:
                beats.close()
        if self._acts is not None:
            self._acts.undo()
        for setter in self._setters:
            # A destination that failed has ended; a source may have been shut down.
            with contextlib.suppress(QmpError):
                setter.restore()
        if self._guardian is not None:
            self._guardian.dismiss()
        if self._recovered:
            incoming.clear_up(self.uri, self._recovered)
        for qmp in self._owned:
            qmp.close()
        self._deaf, self._beats, self._setters, self._owned = [], [None, None], [], []

    def _note(self, what: str, at: float | None = None, **more: Any) -> None:
        self.events.append({"time": self.elapsed if at is None else at, "event": what, **more})

    @property
    def status(self) -> str:
        """QEMU's word for how far it is, as last heard."""
        return self._status

    @property
    def report(self) -> Report:
        """What the run left behind."""
        if self._report is None:
            raise UsageError("the migration is not over: there is no report yet")
        return self._report

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._report is not None:
            return
        if self._status not in FINAL:
            self._guarded(self._end, "aborted", "left before its end")
            for _ in self:
                pass
        self._finish()
