"""Pages of real things, made on the spot: what codecs are tried on in tests and benchmarks.

Each set is one or more versions of a memory, as bytes of whole pages.
"""

from __future__ import annotations

import lzma
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import switchover as sw

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = 4096
STDLIB = Path(sysconfig.get_path("stdlib"))


def whole(contents: bytes, size: int) -> bytes:
    """`size` bytes of it, repeated as often as it takes: from within pages, so that no page comes twice."""
    if len(contents) % PAGE == 0:
        contents += b"\0" * 7
    return (contents * (size // len(contents) + 1))[:size]


def joined(paths: list[Path], size: int) -> bytes:
    """The contents of files, one after the other."""
    contents = bytearray()
    for path in paths:
        contents += path.read_bytes()
        if len(contents) >= size:
            break
    return bytes(contents[:size])


@cache
def text(size: int) -> list[bytes]:
    """The sources of Python's library."""
    return [whole(joined(sorted(STDLIB.glob("**/*.py")), size), size)]


@cache
def executable(size: int) -> list[bytes]:
    """Python itself and the libraries that it loads."""
    maps = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    files = [Path(name) for name in sorted(maps) if name.startswith("/") and Path(name).is_file()]
    return [whole(joined(files, size), size)]


@cache
def media(size: int) -> list[bytes]:
    """What a strong compressor made of libraries: like pictures and films, nothing is left to gain."""
    packed, file = bytearray(), executable(8 << 20)[0]
    step = 1 << 20
    for at in range(0, len(file), step):
        packed += lzma.compress(file[at : at + step], preset=1)
        if len(packed) >= size:
            break
    return [whole(bytes(packed), size)]


# Makes objects of a few kinds; changes some of them when it is told to.
OBJECTS = """
import sys
objects = [{"name": f"object {i}", "values": [i, i * 0.5, str(i)]} for i in range(int(sys.argv[1]))]
print(flush=True)
input()
for each in objects[:: max(1, len(objects) // 500)]:
    each["values"][0] = -1
    each["name"] += "!"
print(flush=True)
input()
"""


@cache
def heap(size: int) -> list[bytes]:
    """A Python process's memory, with objects of a few kinds in it; then again, with some of them changed."""
    command = [sys.executable, "-c", OBJECTS, str(size // 400)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin
        assert child.stdout
        child.stdout.readline()
        places = used(child.pid, size)
        first = read(child.pid, places)
        child.stdin.write(b"\n")
        child.stdin.flush()
        child.stdout.readline()
        second = read(child.pid, places)
        child.stdin.close()
    return [whole(first, size), whole(second, size)]


def used(pid: int, size: int) -> list[int]:
    """Addresses of pages that the process may write and that are not zero, as many as `size` takes."""
    places: list[int] = []
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights, *_, inode = line.split()[:5]
            first, end = (int(address, 16) for address in span.split("-"))
            if not rights.startswith("rw") or inode != "0" or "[v" in line:
                continue
            memory.seek(first)
            pages = np.frombuffer(memory.read(end - first), dtype=np.uint8).reshape(-1, PAGE)
            places += (first + np.flatnonzero(pages.any(axis=1)) * PAGE).tolist()
    return places[: size // PAGE]


def read(pid: int, places: list[int]) -> bytes:
    """What is at those places at the time."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        return b"".join(memory.read(PAGE) for place in places if memory.seek(place) == place)


@cache
def store(size: int) -> list[bytes]:
    """A key-value store's memory at three times, between which it answered requests."""
    versions = []
    with sw.Guest(size, sw.workloads.Kv(rate="20MB/s"), seed=7) as guest:
        for _ in range(3):
            goal = guest.progress.operations + 2000
            guest.start()
            while guest.progress.operations < goal:
                pass
            guest.pause()
            versions.append(guest.memory.tobytes())
    return versions


SETS: dict[str, Callable[[int], list[bytes]]] = {
    "text": text,
    "executable": executable,
    "media": media,
    "heap": heap,
    "store": store,
}
"""The sets that every machine has."""


def linux_guest() -> list[bytes]:
    """The RAM of a Linux in QEMU at three times; skips the test where there is no QEMU, or no kernel for it."""
    import tempfile
    import time

    from vms import linux
    from vms.boot import IDLE
    from vms.installed import found, require
    from vms.machine import Machine

    qemu = found().get("10.0") or require("7.2")
    versions = []
    with tempfile.TemporaryDirectory(prefix="sw-set-") as folder:
        options = {"memory": "96M", "arguments": linux.arguments(Path(folder))}
        with Machine(qemu, IDLE, **options) as machine:
            machine.hear("F")
            for _ in range(3):
                path = Path(folder) / "memory"
                # The first answer may come before the last writes of the guest are done.
                machine.ask("stop")
                machine.ask("pmemsave", val=0, size=96 << 20, filename=str(path))
                machine.ask("cont")
                versions.append(path.read_bytes())
                time.sleep(0.5)
    return versions
