"""Work on the workers of any executor, each of which is sent what it works on once, and keeps it."""

from __future__ import annotations

import hashlib
import itertools
import os
import platform
from collections import deque
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, wait
from typing import TYPE_CHECKING, Any, NamedTuple

from switchover.errors import SwitchoverError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from concurrent.futures import Executor, Future

    Unpack = Callable[[bytes], Callable[[str], Any]]


class Task(NamedTuple):
    """What is to be done: the name of what it is done to, what it is known by here, and the rest."""

    name: str
    place: Any
    work: str


class Crew:
    """The workers of an executor.

    Args:
        executor: Any; who works on what is its choice.
        parcels: What is worked on by name, as bytes, when it is called for.
    """

    def __init__(self, executor: Executor, parcels: Mapping[str, Callable[[], bytes]]) -> None:
        self._executor, self._parcels = executor, parcels
        self._packed: dict[str, tuple[str, bytes]] = {}
        self._workers: set[str] = set()
        self._numbers = itertools.count()
        self.carried = 0
        """How often a parcel was sent."""

    def work(self, unpack: Unpack, tasks: Iterable[Task]) -> Iterator[tuple[Any, Any]]:
        """Each task's place and what came of it, in any order.

        A worker unpacks a parcel once, by `unpack`, and gives what that returned each task.

        Raises:
            SwitchoverError: The executor lost a worker and cannot go on.
        """
        running: dict[Future[Any], tuple[Task, bool]] = {}
        try:
            yield from self._gathered(unpack, deque((task, False) for task in tasks), running)
        except BrokenExecutor as error:
            raise SwitchoverError(
                f"the executor lost a worker and cannot go on: {error}; a search with study=FILE goes on where it was"
            ) from error
        finally:
            for future in running:
                future.cancel()

    def _gathered(
        self, unpack: Unpack, queue: deque[tuple[Task, bool]], running: dict[Future[Any], tuple[Task, bool]]
    ) -> Iterator[tuple[Any, Any]]:
        """Of each name one task at a time carries the parcel, once a worker lacked it.

        There are few more tasks under way than workers, so that it comes to one that has nothing else to do.
        """
        lacking: dict[str, list[Task]] = {name: [] for name in self._parcels}
        carried: set[str] = set()
        while queue or running:
            while queue and len(running) <= 2 * len(self._workers):
                task, carries = queue.popleft()
                running[self._send(unpack, task, carries=carries)] = (task, carries)
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                (task, carries), (worker, has, found) = running.pop(future), future.result()
                self._workers.add(worker)
                if has:
                    yield task.place, found
                else:
                    lacking[task.name].append(task)
                if carries:
                    carried.remove(task.name)
                    queue.extendleft((again, False) for again in lacking[task.name])
                    lacking[task.name].clear()
            for name in [name for name, waiting in lacking.items() if waiting and name not in carried]:
                carried.add(name)
                queue.appendleft((lacking[name].pop(), True))

    def _send(self, unpack: Unpack, task: Task, *, carries: bool) -> Future[Any]:
        if task.name not in self._packed:
            parcel = self._parcels[task.name]()
            self._packed[task.name] = hashlib.sha256(parcel).hexdigest(), parcel
        key, parcel = self._packed[task.name]
        self.carried += carries
        number = next(self._numbers)
        return self._executor.submit(done, unpack, key, parcel if carries else None, work=task.work, number=number)


_held: dict[str, Callable[[str], Any]] = {}
"""What this worker was sent, unpacked, by digest."""


def done(unpack: Unpack, key: str, parcel: bytes | None, *, work: str, number: int) -> tuple[str, bool, Any]:
    """A worker's part: who it is, whether it has the parcel of this digest, and what came of the work if so.

    Each call has a `number` of its own: Dask takes calls with the same arguments for one, whose answer it knows.
    """
    del number
    worker = f"{platform.node()}:{os.getpid()}"
    if key not in _held:
        if parcel is None:
            return worker, False, None
        _held[key] = unpack(parcel)
    return worker, True, _held[key](work)
