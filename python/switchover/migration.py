"""Migrations of real memory: the call that does it all, and the loop behind it."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from switchover import _native, policies, process, strategies, trackers, units
from switchover.decision import Decision
from switchover.errors import LinkError, PolicyError, SwitchoverError, UsageError, VerificationError
from switchover.link import Link
from switchover.report import Report
from switchover.round import Round

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from switchover.guest import Guest


AHEAD = ("post-copy", "hybrid")
"""Strategies that may move execution ahead of memory."""

RETRY_WAIT = 0.1
"""Seconds before a lost link is replaced for the first time; each further wait is twice as long."""


class Faults(NamedTuple):
    """Remote faults of a run under way.

    Attributes:
        placed: Pages that are at the destination since execution moved.
        asked: Pages that were asked for.
        median: Of their latency, in seconds.
        p99: The 99th percentile of it.
    """

    placed: int
    asked: int
    median: float
    p99: float


class Migration:
    """A migration under way: the loop that `migrate` runs for you.

    Entering the context connects both sides; iterating runs the live rounds; leaving it ends the run, cancelled
    if it was not over. Then `report` is there, and the guest runs where the report says.

    Args:
        guest: What is to move. It is the migration's until its end.
        strategy: How memory moves, such as `PreCopy()`.
        policy: Asked by `judge`; not needed where each round is answered by `act`.
        link: The link to the destination; by default a bare TCP connection.
        to: Where to: "here" for another mapping in this process, "process" for a process of its own, or the
            endpoint of a `switchover receive`: "HOST:PORT" or "unix:PATH". `None` means "process" where execution
            may move ahead of memory, so that its faults are as honest as between hosts, and else "here".
        tracker: A dirty tracker, its name, or "auto" for the best that works.
        verify: Compare every page with the destination's before letting go.
        warm_up: How long the guest runs, and is measured, before the migration starts.
        cool_down: How long it is watched at the destination, for `guest_cost["after"]` and the brownout; no part of
            the total time. By default as long as the warm-up.
        shadow: Policies that watch: what they would have done is noted in `report.events`.
        stall_timeout: How long the peer may make no progress before it counts as lost.
        retry: How often a link that was lost in post-copy is replaced by itself; see `resume`.

    A link that is lost in post-copy or a hybrid, after execution has moved, pauses the run: iterating ends,
    `paused` says why, the guest waits at the destination, and `resume` goes on. Before that, the guest runs on at
    the source and the run has failed.

        >>> import switchover as sw
        >>> guest = sw.Guest("1MiB", sw.workloads.Sweep(rate="1MB/s"))
        >>> with sw.Migration(guest, sw.PreCopy(), warm_up="1ms") as m:
        ...     for round in m:
        ...         m.act(sw.Decision.switchover("enough") if round.index == 1 else sw.Decision.proceed())
        >>> m.report.outcome, len(m.report.rounds)
        ('completed', 3)
        >>> guest.close()
    """

    def __init__(
        self,
        guest: Guest,
        strategy: strategies.Strategy | str,
        policy: policies.Judge | str | None = None,
        *,
        link: Link | str | None = None,
        to: str | None = None,
        tracker: trackers.Tracker | str = "auto",
        verify: bool = False,
        warm_up: units.Time = "500ms",
        cool_down: units.Time | None = None,
        shadow: Sequence[policies.Judge | str] | Mapping[str, policies.Judge | str] = (),
        stall_timeout: units.Time = "10s",
        retry: int = 0,
    ) -> None:
        self.guest = guest
        self._retries = units.parse_count(retry, "retry")
        self._strategy = strategies.registry.of(strategy)
        self._policy = None if policy is None else policies.of(policy)
        self._watchers = named(shadow)
        self._link = Link.of(link)
        self._tracker = {"name": "auto"} if tracker == "auto" else trackers.registry.of(tracker).spec()
        self._to = _checked_place(_default_place(to, self._strategy, guest), guest)
        self._stall = units.parse_time(stall_timeout, "stall_timeout")
        if self._stall == 0:
            raise UsageError("stall_timeout must be more than 0 s")
        before = units.parse_time(warm_up, "warm_up")
        after = before if cool_down is None else units.parse_time(cool_down, "cool_down")
        self._plan = self._make_plan(verify, before, after)
        self._session: _native.Session | None = None
        self._process: process.Process | None = None
        self._report: Report | None = None
        self._stayed = False
        self._rounds: list[Round] = []

    def _make_plan(self, verify: bool, warm_up: float, cool_down: float) -> dict[str, Any]:
        return {
            "strategy": self._strategy.spec(),
            "codec": self._strategy.codec.spec(),
            "link": self._link.spec(),
            "tracker": self._tracker,
            "verify": bool(verify),
            "warm_up": warm_up,
            "cool_down": cool_down,
            "stall": self._stall,
            "policy": None if self._policy is None else policies.spec_of(self._policy),
            "guest": self.guest.spec,
        }

    def __enter__(self) -> Self:
        if self._session is not None or self._report is not None:
            raise UsageError("a migration runs once; make another")
        if self._to == "process":
            self._process = process.Process(self._link.transport, self._stall)
        try:
            self._session = self._connect(self._to if self._process is None else self._process.endpoint)
        except BaseException:
            self._end_process()
            raise
        return self

    def _connect(self, to: str | None) -> _native.Session:
        plan = json.dumps({**self._plan, "to": None if to == "here" else to})
        policy = None if self._policy is None else policies.to_native(self._policy)
        watchers = [(name, policies.to_native(watcher)) for name, watcher in self._watchers.items()]
        return _native.Session(self.guest.native(), plan, policy, watchers)

    def __iter__(self) -> Iterator[Round]:
        session = self._running()
        while (text := session.next_round()) is not None:
            self._rounds.append(Round.from_json(text))
            yield self._rounds[-1]
        if self._recovered(session):
            self._finish()

    def _recovered(self, session: _native.Session) -> bool:
        """Replaces lost links as often as was asked for; false if the run is paused after all."""
        wait = RETRY_WAIT
        while session.paused() is not None:
            if self._retries == 0:
                return False
            self._retries -= 1
            time.sleep(wait)
            wait *= 2
            try:
                session.resume()
            except SwitchoverError:
                continue
            session.next_round()
        return True

    @property
    def paused(self) -> str | None:
        """Why the run stands still, if it does: the link was lost after execution had moved ahead of memory."""
        return None if self._session is None else self._session.paused()

    def resume(self, link: Link | str | None = None, to: str | None = None) -> None:
        """Goes on over another link after one was lost in post-copy; returns when the run is over, or paused again.

        Args:
            link: What it is like; by default like the one before.
            to: Another endpoint of the same destination, if it has one.

        Raises:
            UsageError: The run is not paused.
            LinkError: The destination cannot be reached, or has given the guest up; the run stays paused.
        """
        session = self._running()
        if session.paused() is None:
            raise UsageError("only a migration that lost its link in post-copy can be resumed")
        session.resume(None if link is None else json.dumps(Link.of(link).spec()), to)
        session.next_round()
        if self._recovered(session):
            self._finish()

    @property
    def faults(self) -> Faults:
        """Remote faults so far, as the destination said last; readable from any thread."""
        return Faults(*(self._session.faults() if self._session is not None else (0, 0, 0.0, 0.0)))

    def _running(self) -> _native.Session:
        if self._session is None:
            raise UsageError("a migration runs inside its context: `with Migration(...) as m:`, and once")
        return self._session

    def act(self, decision: Decision) -> None:
        """Answers the last round. A round that is not answered proceeds."""
        if not isinstance(decision, Decision):
            raise UsageError(f"act() takes a Decision, not {decision!r}")
        self._running().act(decision.to_json())

    def judge(self) -> Decision | None:
        """Has the migration's policy answer the last round; `None` if the policy failed, which ends the run."""
        decision = self._running().judge()
        return None if decision is None else Decision.from_dict(json.loads(decision))

    def cancel(self) -> None:
        """Ends the run as aborted at its next action, from any thread; the guest runs on at the source."""
        if self._session is not None:
            self._session.cancel()

    @property
    def sent_bytes(self) -> int:
        """Bytes put on the link so far; readable from any thread."""
        if self._session is not None:
            return self._session.sent()[0]
        return 0 if self._report is None else self._report.sent_bytes

    @property
    def rounds(self) -> list[Round]:
        """The live rounds so far."""
        return list(self._rounds)

    @property
    def report(self) -> Report:
        """What the run left behind."""
        if self._report is None:
            raise UsageError("the migration is not over: there is no report yet")
        return self._report

    @property
    def stayed(self) -> bool:
        """Whether the run is over and the guest runs where it was."""
        return self._report is not None and self._stayed

    def _finish(self) -> None:
        if self._session is None:
            return
        session, self._session = self._session, None
        try:
            text, error = session.finish()
        except BaseException:
            self._end_process()
            raise
        if error is not None and error.__cause__ is None and isinstance(error, VerificationError):
            error.__cause__ = session.raised()
        self._report = Report.from_json(text)
        self._stayed = not session.let_go()
        self._report.error = error if isinstance(error, SwitchoverError) else None
        self._settle()

    def _settle(self) -> None:
        """The guest there is of no use if it runs here, and the other way round."""
        if self._process is None:
            return
        if self.report.outcome == "completed":
            self.guest.moved_to(self._process, self._process.name)
        else:
            self._end_process()

    def _end_process(self) -> None:
        if self._process is not None:
            self._process.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish()


def migrate(
    guest: Guest,
    strategy: strategies.Strategy | str = "pre-copy",
    policy: policies.Judge | str = "downtime-limit",
    link: Link | str | None = None,
    to: str | None = None,
    *,
    tracker: trackers.Tracker | str = "auto",
    verify: bool = False,
    warm_up: units.Time = "500ms",
    cool_down: units.Time | None = None,
    shadow: Sequence[policies.Judge | str] | Mapping[str, policies.Judge | str] = (),
    on_round: Callable[[Round, Decision], object] | None = None,
    on_faults: Callable[[Faults], object] | None = None,
    stall_timeout: units.Time = "10s",
    retry: int = 0,
) -> Report:
    """Migrates `guest`, and reports. Arguments are those of [`Migration`][switchover.migration.Migration].

    What goes wrong on the way is the report's outcome, with the guest running where its reason says. Only what
    your own code raises comes up: a policy's exception as the cause of a `PolicyError`, that of `on_round` as it
    is, Ctrl-C as `KeyboardInterrupt`; the guest then runs at the source.

    Args:
        guest: What is to move.
        strategy: How memory moves.
        policy: Asked at each round's end: one of `switchover.policies`, or `f(round, history) -> Decision`.
        link: The link to the destination.
        to: Where to.
        tracker: The dirty tracker.
        verify: Compare every page with the destination's before letting go.
        warm_up: How long the guest is measured before.
        cool_down: How long it is watched at the destination; by default as long as the warm-up.
        shadow: Policies that watch.
        on_round: Called with each live round and the decision on it.
        on_faults: Called twice a second, from another thread, with the remote faults so far, once there are any.
        stall_timeout: How long the peer may make no progress.
        retry: How often a lost link is replaced: by resuming where the guest had moved ahead of its memory, and
            else by starting over, since it runs on at the source.

    >>> import switchover as sw
    >>> with sw.Guest("1MiB", sw.workloads.Sweep(rate="1MB/s"), seed=7) as guest:
    ...     report = sw.migrate(guest, sw.PreCopy(), sw.policies.MaxRounds(2), warm_up="1ms", verify=True)
    >>> report.outcome, report.verified, len(report.rounds)
    ('completed', True, 3)
    """
    retry = units.parse_count(retry, "retry")
    while True:
        migration = Migration(
            guest,
            strategy,
            policies.of(policy),
            link=link,
            to=to,
            tracker=tracker,
            verify=verify,
            warm_up=warm_up,
            cool_down=cool_down,
            shadow=shadow,
            stall_timeout=stall_timeout,
            retry=retry,
        )
        report = _run(migration, on_round, on_faults)
        if retry == 0 or not migration.stayed or not isinstance(report.error, LinkError):
            break
        retry -= 1
    if isinstance(report.error, PolicyError):
        raise report.error
    return report


def _run(
    migration: Migration,
    on_round: Callable[[Round, Decision], object] | None,
    on_faults: Callable[[Faults], object] | None,
) -> Report:
    with migration, _watched(migration, on_faults):
        for seen in migration:
            decision = migration.judge()
            if on_round is not None and decision is not None:
                on_round(seen, decision)
    return migration.report


@contextmanager
def _watched(migration: Migration, on_faults: Callable[[Faults], object] | None) -> Iterator[None]:
    """Tells of remote faults while it lasts."""
    if on_faults is None:
        yield
        return
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            faults = migration.faults
            if faults.asked or faults.placed:
                on_faults(faults)

    thread = threading.Thread(target=watch, name="faults", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def named(
    shadow: Sequence[policies.Judge | str] | Mapping[str, policies.Judge | str],
) -> dict[str, policies.Judge]:
    """Policies by name, out of a list or a dict of them."""
    if isinstance(shadow, str) or callable(shadow):
        raise UsageError("shadow takes a list of policies, or a dict of them by name")
    if hasattr(shadow, "items"):
        return {name: policies.of(policy) for name, policy in shadow.items()}
    found = [policies.of(policy) for policy in shadow]
    return {policies.label(policy): policy for policy in found}


def _default_place(to: str | None, strategy: strategies.Strategy, guest: Guest) -> str:
    if to is None:
        return "process" if strategy.name in AHEAD and not guest.has_programs else "here"
    return to


def _checked_place(to: str, guest: Guest) -> str:
    if not isinstance(to, str):
        raise UsageError(f'to must be None, "here", "process", "HOST:PORT" or "unix:PATH", not {to!r}')
    if to == "here":
        return to
    if guest.has_programs:
        raise UsageError(
            f"a guest with Python workloads stays in this process, since {to!r} does not have their code; "
            "use a workload of the core, or leave `to` out"
        )
    return to
