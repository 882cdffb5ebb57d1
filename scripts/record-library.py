#!/usr/bin/env python3
"""Makes the library of real traces in `examples/traces`: runs each program under its load and records it.

    python scripts/record-library.py [--install] [NAME...]

With `--install` Debian's packages that the programs need are installed first. What is not installed is left out, and
said. Each trace says in its metadata how it was made.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import switchover as sw

FOLDER = Path(__file__).resolve().parent.parent / "examples" / "traces"
MOST_BYTES = 300_000
PACKAGES = ["redis-server", "redis-tools", "postgresql", "postgresql-contrib", "gcc", "libc6-dev", "stress-ng"]


@dataclass(frozen=True)
class Program:
    """Something to record: what it needs, how it is started, for how long it is recorded."""

    needs: tuple[str, ...]
    start: Callable[[ExitStack, Path], int]
    how: str
    duration: str = "10s"
    interval: str = "100ms"


@contextmanager
def running(*command: str | Path, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A process, ended at the end."""
    process = subprocess.Popen(  # type: ignore[call-overload]
        [str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def python(body: str) -> Callable[[ExitStack, Path], int]:
    """A Python program."""

    def start(stack: ExitStack, _: Path) -> int:
        pid = stack.enter_context(running(sys.executable, "-c", textwrap.dedent(body))).pid
        time.sleep(2)
        return pid

    return start


def redis(stack: ExitStack, folder: Path) -> int:
    """A server without a file, and its own benchmark."""
    server = shutil.which("redis-server") or "valkey-server"
    socket = folder / "redis.sock"
    arguments = ["--port", "0", "--unixsocket", socket, "--save", "", "--dir", folder]
    pid = stack.enter_context(running(server, *arguments)).pid
    while not socket.exists():
        time.sleep(0.05)
    benchmark = server.replace("server", "benchmark")
    load = ["-s", socket, "-t", "set,lpush,hset", "-r", "100000", "-d", "512", "-c", "8", "-l", "-q"]
    stack.enter_context(running(benchmark, *load))
    time.sleep(2)
    return pid


def compiler(stack: ExitStack, folder: Path) -> int:
    """The compiler proper, on a large generated source."""
    source = folder / "large.c"
    body = "\n".join(
        f"int f{n}(int a, int b) {{ int s = {n}; for (int i = 0; i < a; i++) s += s * b ^ (i << {n % 7}); return s; }}"
        for n in range(60_000)
    )
    source.write_text(body)
    stack.enter_context(running("gcc", "-O2", "-c", source, "-o", folder / "large.o", start_new_session=True))
    return child_called("cc1")


def postgres(stack: ExitStack, folder: Path) -> int:
    """One server process of PostgreSQL under pgbench: its private memory, not the shared buffers."""
    folder.chmod(0o777)
    tools = max(Path("/usr/lib/postgresql").glob("*/bin"))
    data = folder / "data"
    user = {"user": "postgres"} if os.getuid() == 0 else {}

    def do(*command: str | Path) -> None:
        subprocess.run([str(word) for word in command], check=True, capture_output=True, cwd=folder, **user)  # type: ignore[call-overload]

    do(tools / "initdb", "-D", data, "-A", "trust")
    stack.enter_context(running(tools / "postgres", "-D", data, "-k", folder, "-h", "", cwd=folder, **user))
    for _ in range(100):
        if (folder / ".s.PGSQL.5432").exists():
            break
        time.sleep(0.1)
    time.sleep(1)
    do("pgbench", "-h", folder, "-i", "-s", "10", "postgres")
    load = ["-h", folder, "-c", "1", "-T", "60", "postgres"]
    stack.enter_context(running("pgbench", *load, cwd=folder, **user))
    time.sleep(2)
    return busiest("postgres")


def stress(stack: ExitStack, folder: Path) -> int:
    """stress-ng going through its methods of writing memory."""
    methods = ["--vm", "1", "--vm-bytes", "64M", "--vm-method", "all", "--vm-keep", "--temp-path", folder]
    stack.enter_context(running("stress-ng", *methods))
    time.sleep(1)
    return busiest("stress-ng")


def processes(name: str) -> list[tuple[int, int]]:
    """CPU time and number of every process whose name begins so."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text()
            except OSError:
                continue
            command, rest = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()
            if command.startswith(name):
                found.append((int(rest[11]) + int(rest[12]), int(entry.name)))
    return found


def busiest(name: str) -> int:
    """The one that works most at present."""
    before = {pid: used for used, pid in processes(name)}
    time.sleep(0.5)
    return max((used - before.get(pid, used), pid) for used, pid in processes(name))[1]


def child_called(name: str) -> int:
    """The process of that name, once it is there."""
    for _ in range(200):
        if found := processes(name):
            return found[-1][1]
        time.sleep(0.02)
    raise SystemExit(f"no process called {name} came up")


NUMPY = """
    import numpy as np
    grid = np.zeros((1024, 1024))
    grid[0] = 1
    while True:
        inner = (grid[:-2, 1:-1] + grid[2:, 1:-1] + grid[1:-1, :-2] + grid[1:-1, 2:]) / 4
        grid[1:-1, 1:-1] = inner
"""

SQLITE = """
    import random, sqlite3
    random.seed(7)
    base = sqlite3.connect(":memory:")
    base.execute("create table account (id integer primary key, balance integer, filler text)")
    base.execute("create table history (id integer primary key, account integer, delta integer)")
    base.executemany("insert into account values (?, 0, ?)", ((n, "x" * 200) for n in range(200_000)))
    while True:
        account, delta = random.randrange(200_000), random.randrange(-5000, 5000)
        base.execute("update account set balance = balance + ? where id = ?", (delta, account))
        base.execute("insert into history (account, delta) values (?, ?)", (account, delta))
        base.execute("delete from history where id = (select max(id) - 10000 from history)")
        base.commit()
"""

PROGRAMS = {
    "numpy": Program(("python3",), python(NUMPY), "a Jacobi iteration on a grid of 8 MiB in NumPy"),
    "idle-python": Program(("python3",), python("import time\nwhile True: time.sleep(0.1)"), "a Python that sleeps"),
    "gcc": Program(("gcc",), compiler, "cc1 -O2 on a generated source of 60,000 functions"),
    "redis": Program(
        ("redis-server|valkey-server",), redis, "redis under redis-benchmark: set, lpush and hset of 512 bytes"
    ),
    "postgres": Program(("pgbench",), postgres, "a server process of PostgreSQL under pgbench, scale 10"),
    "sqlite": Program(("python3",), python(SQLITE), "SQLite in memory under transactions as TPC-B has them"),
    "stress-ng": Program(("stress-ng",), stress, "stress-ng --vm 1 --vm-bytes 64M --vm-method all"),
}


def installed(program: Program) -> bool:
    """Whether all that it needs is there."""
    return all(any(shutil.which(name) for name in need.split("|")) for need in program.needs)


def say(text: str) -> None:
    """Prints a line."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def record(name: str, program: Program) -> None:
    """Records one, in coarser intervals if the file would be too large."""
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        pid = program.start(stack, Path(folder))
        trace = sw.Trace.record(pid, duration=program.duration, interval=program.interval, samples=32)
        stack.close()
    trace.metadata["how"] = f"{program.how}; scripts/record-library.py {name}"
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.parquet"
    trace.save(path)
    for factor in (2, 5, 10):
        if path.stat().st_size > MOST_BYTES:
            trace.scale(interval=trace.interval * factor).save(path)
    say(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB, {trace!r}")


def main() -> int:
    """Records those that are named, or all."""
    names = [word for word in sys.argv[1:] if not word.startswith("--")] or list(PROGRAMS)
    if "--install" in sys.argv:
        tool = shutil.which("apt-get") or "apt-get"
        subprocess.run([tool, "update", "-qq"], check=True)
        command = [tool, "install", "-y", "-qq", "--no-install-recommends", *PACKAGES]
        subprocess.run(command, check=True, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"})
    for name in names:
        if name not in PROGRAMS:
            say(f"{name}: not known; there are {', '.join(PROGRAMS)}")
            return 2
        if installed(PROGRAMS[name]):
            record(name, PROGRAMS[name])
        else:
            say(f"{name}: left out, it needs {' and '.join(PROGRAMS[name].needs)} (--install gets it)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
