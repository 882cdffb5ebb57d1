"""Captures: what a migration between two real QEMUs put on the wire, and the memory that came out of it."""

from __future__ import annotations

import fcntl
import json
import random
import shutil
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vms import linux, truth
from vms.kinds import BY_NAME, Kind
from vms.machine import Machine, TooEarlyError
from vms.recorder import Recorder
from vms.truth import Part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vms.installed import Qemu

READY = "capture.json"
TRIES = 5
# Of the pass in which the switch to post-copy is asked for.
SWITCH_AFTER = 3


@dataclass
class Channel:
    """A connection: its role, what the source said and what it was told, with the moments (s, byte) of each piece."""

    role: str
    there: Path
    back: Path | None = None
    moments: list[tuple[float, int]] = field(default_factory=list)
    moments_back: list[tuple[float, int]] = field(default_factory=list)


@dataclass
class Capture:
    """A migration that was recorded.

    Fields:
        channels: In the order in which the source connected.
        truth: The destination's memory, as that QEMU reports it.
        source, destination: What `query-migrate` said at the end.
        blocks: Names and used bytes of the RAM blocks, as the source has them.
    """

    kind: str
    release: str
    channels: list[Channel]
    truth: list[Part]
    source: dict[str, Any]
    destination: dict[str, Any]
    blocks: dict[str, int]

    def roles(self, role: str) -> list[Channel]:
        return [channel for channel in self.channels if channel.role == role]

    @property
    def main(self) -> Path:
        """The stream's own file, or the one that holds the memory where it was mapped."""
        return self.roles("main")[0].there

    def paths(self) -> list[Path]:
        """All channels' files, main first."""
        return [channel.there for channel in sorted(self.channels, key=lambda channel: channel.role != "main")]

    def check(self, block: str, memory: Any) -> None:
        """Fails unless `memory`, a whole RAM block, is what the destination has of it."""
        for part in self.truth:
            if part.block == block.rpartition("/")[2]:
                there = part.read()
                here = bytes(memory[part.offset : part.offset + part.length])
                assert here == there, difference(block, part.offset, here, there)


def difference(block: str, offset: int, here: bytes, there: bytes) -> str:
    if len(here) != len(there):
        return f"{block} at {offset:#x}: {len(here)} bytes, the destination has {len(there)}"
    pages = [at for at in range(0, len(there), 4096) if here[at : at + 4096] != there[at : at + 4096]]
    return f"{block}: {len(pages)} of {len(there) // 4096} pages differ, the first at {offset + pages[0]:#x}"


class Take:
    """One recording that is being made."""

    def __init__(self, kind: Kind, qemu: Qemu, folder: Path, stack: ExitStack) -> None:
        self.kind, self.qemu, self.folder, self.stack = kind, qemu, folder, stack
        self.channels: list[Channel] = []
        self.guest = linux.arguments(folder) if kind.linux else ()
        for side, content in (("source", random.Random(5).randbytes(4 << 20)), ("destination", bytes(4 << 20))):
            if "/stick-" in str(kind.devices):
                (folder / f"stick-{side}").write_bytes(content)
        self.source = self._machine("source")

    def _machine(self, side: str, *arguments: str) -> Machine:
        devices = tuple(text.format(files=self.folder, side=side) for text in self.kind.devices) + self.guest
        kind = self.kind
        machine = Machine(
            self.qemu, kind.boot, machine=kind.machine, memory=kind.memory, devices=devices, arguments=arguments
        )
        return self.stack.enter_context(machine)

    def prepare_source(self) -> None:
        """Runs the guest until its memory is filled, and sets the migration up."""
        self.source.hear("F" if self.kind.passes or self.kind.paused or self.kind.only_source else "H")
        if self.kind.paused:
            self.source.ask("stop")
        self.source.set_up(self.kind.capabilities + self.kind.only_source, self.kind.parameters)

    def prepare_destination(self) -> None:
        """Starts the destination; its guest stays stopped, so that its memory is what the source sent."""
        self.destination = self._machine("destination", "-S", "-incoming", "defer")
        multifd = {name: value for name, value in self.kind.parameters.items() if name.startswith("multifd")}
        self.destination.set_up(self.kind.capabilities, multifd)

    def connect(self, name: str) -> tuple[Recorder, str]:
        """A recorder before the destination's socket `name`, and the address for the source."""
        listen, there = (self.destination.folder / f"{name}-{part}" for part in ("recorder", "socket"))
        folder = self.folder / name
        folder.mkdir()
        return self.stack.enter_context(Recorder(folder, listen, there)), f"unix:{listen}"

    def keep(self, recorder: Recorder) -> None:
        recorder.close()
        for each in recorder.connections:
            moments = (each.there.moments, each.back.moments)
            self.channels.append(Channel(each.role, each.there.path, each.back.path, *moments))

    def let_it_converge(self) -> None:
        if self.kind.passes:
            self.source.wait_for_passes(self.kind.passes)
            self.source.rest()

    def finish(self) -> Capture:
        """Takes the truth and what both sides say at the end."""
        parts = getattr(self, "parts", None) or truth.take(self.destination, self.folder / "truth")
        ends = self.source.migration(), self.destination.migration()
        return Capture(self.kind.name, self.qemu.release, self.channels, parts, *ends, self.blocks())

    def blocks(self) -> dict[str, int]:
        lines = [line.split() for line in self.source.human("info ramblock").splitlines()[1:]]
        return {words[0]: int(words[4], 16) for words in lines if len(words) > 4}


def make(kind: Kind, qemu: Qemu, folder: Path) -> Capture:
    """Makes a capture of that kind in `folder`, which must be empty."""
    with ExitStack() as stack:
        take = Take(kind, qemu, folder, stack)
        return WAYS[kind.way](take)


def make_sure(kind: Kind, qemu: Qemu, folder: Path) -> Capture:
    """The same, tried again where the machine was too busy to let the guest write, so that it converged."""
    for _ in range(TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        with suppress(TooEarlyError):
            return make(kind, qemu, folder)
    raise RuntimeError(f"{kind.name}: the guest got no time to write in {TRIES} tries")


def by_stream(take: Take) -> Capture:
    """From one QEMU to another, to the end."""
    recorder = start(take)
    take.let_it_converge()
    take.source.wait_for("completed")
    take.destination.wait_for("completed")
    take.keep(recorder)
    return take.finish()


def start(take: Take) -> Recorder:
    take.prepare_source()
    take.prepare_destination()
    take.destination.ask("migrate-incoming", uri=f"unix:{take.destination.folder}/stream-socket")
    recorder, uri = take.connect("stream")
    take.source.ask("migrate", uri=uri)
    return recorder


def by_postcopy(take: Take) -> Capture:
    """The destination's memory is read while most of it is still at the source: each page is a remote fault."""
    recorder = start(take)
    switch(take)
    take.parts = truth.take(take.destination, take.folder / "truth")
    take.source.wait_for("completed")
    take.destination.wait_for("completed")
    take.keep(recorder)
    return take.finish()


def switch(take: Take) -> None:
    take.source.wait_for_passes(SWITCH_AFTER)
    take.source.ask("migrate-start-postcopy")
    take.destination.wait_for("postcopy-active")


def by_recovery(take: Take) -> Capture:
    """Post-copy whose link is cut, and that goes on over another one."""
    recorder = start(take)
    switch(take)
    recorder.cut()
    take.source.wait_for("postcopy-paused")
    take.destination.wait_for("postcopy-paused")
    take.keep(recorder)
    take.destination.ask("migrate-recover", uri=f"unix:{take.destination.folder}/again-socket")
    again, uri = take.connect("again")
    take.source.ask("migrate", uri=uri, resume=True)
    take.source.wait_for("completed")
    take.destination.wait_for("completed")
    take.keep(again)
    return take.finish()


def by_file(take: Take) -> Capture:
    """Written to a file, which the destination loads."""
    path = take.folder / "file"
    take.prepare_source()
    # QEMU before 8.2 knows no files.
    by_itself = take.qemu.version >= (8, 2)
    take.source.ask("migrate", uri=f"file:{path}" if by_itself else f"exec:cat >{path}")
    take.let_it_converge()
    take.source.wait_for("completed")
    take.prepare_destination()
    take.destination.ask("migrate-incoming", uri=f"file:{path}" if by_itself else f"exec:cat {path}")
    take.destination.wait_for("completed")
    take.channels.append(Channel("main", path))
    return take.finish()


WAYS = {"stream": by_stream, "postcopy": by_postcopy, "recovery": by_recovery, "file": by_file}


def cached(name: str, qemu: Qemu, home: Path) -> Capture:
    """The capture of kind `name` by `qemu`, made once for all processes that share `home`."""
    folder = home / f"{name}-{qemu.release}"
    home.mkdir(parents=True, exist_ok=True)
    with locked(home / f"{folder.name}.lock"):
        if not (folder / READY).exists():
            capture = make_sure(BY_NAME[name], qemu, folder)
            (folder / READY).write_text(json.dumps(asdict(capture), default=str))
    return load(folder)


def load(folder: Path) -> Capture:
    saved = json.loads((folder / READY).read_text())
    path = lambda text: text and Path(text)  # noqa: E731
    saved["channels"] = [
        Channel(**{**each, "there": path(each["there"]), "back": path(each["back"])}) for each in saved["channels"]
    ]
    saved["truth"] = [Part(**{**each, "path": Path(each["path"])}) for each in saved["truth"]]
    return Capture(**saved)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
