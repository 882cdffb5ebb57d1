"""A real Linux with a redis under load moves from one QEMU to another, and its data are checked there.

    scripts/install-linux                        # once: a kernel, a busybox and a redis, out of Debian's packages
    python examples/qemu_linux.py [QEMU]

The guest's system is made on the spot: an initial file system with the programs, their libraries and a few lines of
shell. Inside, redis-benchmark has redis run a script again and again; each call counts itself and writes what follows
from its number, so that all data can be checked at any time. How many calls there were goes out on the serial port,
fifty times a second: the report has the blackout as redis saw it, and what the migration cost it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import switchover as sw
from switchover.cli import show
from switchover.qemu.heartbeat import Line
from switchover.qemu.initramfs import archive

if TYPE_CHECKING:
    from typing import Self

FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "switchover/linux"
PATIENCE = 60.0
#: Keys of the table; the value of each is a hash of its call's number, many times over.
KEYS = 2000
#: QEMU 7.2 loses writes under TCG where memory is a multiple of 256 KiB: these are 8 KiB more than 160 MiB.
MEMORY = "163848K"

WRITE = f"""
local call = redis.call('incr', 'calls')
redis.call('set', 'row:' .. call % {KEYS}, string.rep(redis.sha1hex(call), 50))
return call
"""
CHECK = f"""
local calls, wrong = tonumber(redis.call('get', 'calls')), 0
for call = calls - {KEYS} + 1, calls do
    if redis.call('get', 'row:' .. call % {KEYS}) ~= string.rep(redis.sha1hex(call), 50) then wrong = wrong + 1 end
end
return wrong
"""
# On the serial port: `F` once the table is full, then `p` and the calls so far in base 16, a line each; when a `c`
# comes in, the load ends, and `K` and the calls, or `X` and the number of rows that are not what they should be.
INIT = f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs none /dev
mount -t proc none /proc
stty -F /dev/ttyS0 raw -echo
exec 2>/dev/ttyS0
export LD_LIBRARY_PATH=/lib64
redis='redis-cli -s /tmp/redis'
redis-server --port 0 --unixsocket /tmp/redis --save '' --appendonly no >/dev/ttyS0 &
until $redis ping >/dev/null 2>&1; do sleep 0.1; done
load() {{ redis-benchmark -s /tmp/redis -c 4 -P 4 -q "$@" eval "$(cat /write)" 0 >/dev/null 2>&1; }}
load -n {KEYS}
echo F >/dev/ttyS0
load -l &
loader=$!
$redis -r -1 -i 0.02 get calls | while read -r calls; do printf 'p%x\\n' "$calls"; done >/dev/ttyS0 &
while [ "$(dd if=/dev/ttyS0 bs=1 count=1 2>/dev/null)" != c ]; do :; done
kill $loader
killall redis-benchmark redis-cli
wrong=$($redis eval "$(cat /check)" 0)
[ "$wrong" = 0 ] && printf 'K%x\\n' "$($redis get calls)" >/dev/ttyS0 || echo "X$wrong" >/dev/ttyS0
while :; do sleep 1000; done
"""


def initial_file_system() -> bytes:
    """What the guest has: programs, their libraries, and what it is to do."""
    redis = FOLDER / "redis"
    files: dict[str, bytes | None] = dict.fromkeys(("bin", "dev", "proc", "tmp", "lib64"))
    files |= {"init": INIT.encode(), "write": WRITE.encode(), "check": CHECK.encode()}
    files["bin/busybox"] = (FOLDER / "busybox").read_bytes()
    files |= {f"bin/{path.name}": path.read_bytes() for path in sorted(redis.iterdir()) if path.is_file()}
    files |= {f"lib64/{path.name}": path.read_bytes() for path in sorted((redis / "lib").iterdir())}
    return archive(files)


class Machine:
    """A QEMU with that Linux, gone at the end of its `with` block.

    Args:
        binary: Which QEMU.
        incoming: Wait for a migration, rather than start.
    """

    def __init__(self, binary: str, *, incoming: bool = False) -> None:
        # The path of a socket has at most 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="switchover-linux-"))
        self.monitor, self.serial = self.folder / "qmp", self.folder / "serial"
        image = self.folder / "initrd"
        image.write_bytes(b"" if incoming else initial_file_system())
        command = [
            binary, "-accel", "tcg", "-cpu", "max", "-m", MEMORY, "-nodefaults", "-display", "none",
            "-qmp", f"unix:{self.monitor},server=on,wait=off",
            "-chardev", f"socket,id=serial,path={self.serial},server=on,wait=off", "-serial", "chardev:serial",
            "-kernel", str(FOLDER / "vmlinuz"), "-initrd", str(image), "-append", "console=none quiet rdinit=/init",
        ]  # fmt: skip
        self.process = subprocess.Popen([*command, *(["-incoming", "defer"] if incoming else [])])
        deadline = time.monotonic() + PATIENCE
        while not (self.monitor.exists() and self.serial.exists()) and time.monotonic() < deadline:
            time.sleep(0.01)

    def wait_for(self, *letters: str, say: bytes = b"") -> str:
        """Says something to the guest, and waits for a line of its that begins with one of `letters`."""
        with contextlib.closing(Line(self.serial)) as line:
            line.say(say)
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline and self.process.poll() is None:
                lines = bytes(line.content).decode("ascii", "replace").split("\n")[:-1]
                for said in lines:
                    if said.startswith(letters):
                        return said
                time.sleep(0.01)
        raise SystemExit(f"the guest did not say {' or '.join(letters)}: {bytes(line.content)[-500:]!r}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder)


def migrate(binary: str, link: str = "400Mbit/s") -> tuple[sw.Report, int]:
    """Moves it while it works; the report, and how many calls redis had answered when its data were checked."""
    with Machine(binary) as source, Machine(binary, incoming=True) as destination, sw.qemu.Relay(link) as relay:
        source.wait_for("F")
        report = sw.qemu.migrate(
            source.monitor, destination.monitor, "pre-copy", "max-rounds:6", through=relay,
            heartbeat=(source.serial, destination.serial), warm_up="2s", cool_down="1s",
        )  # fmt: skip
        report.raise_for_outcome()
        said = destination.wait_for("K", "X", say=b"c")
    if said.startswith("X"):
        raise SystemExit(f"redis has {said[1:]} wrong rows of {KEYS}")
    return report, int(said[1:], 16)


def main() -> None:
    """Prints the report."""
    if not (FOLDER / "redis").exists():
        raise SystemExit("no Linux for the guest here: scripts/install-linux fetches one")
    report, calls = migrate(sys.argv[1] if len(sys.argv) > 1 else "qemu-system-x86_64")
    screen = show.console()
    screen.print(show.table([(f"Linux and redis, QEMU {report.data['qemu']['versions']['source']}", report)]))
    before, after = report.guest_cost["before"], report.guest_cost["after"]
    print(f"redis answered {before:.0f} calls a second before and {after:.0f} afterwards, {calls} in all")
    print(f"each of its {KEYS} rows is what it wrote last")


if __name__ == "__main__":
    main()
