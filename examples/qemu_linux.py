"""A real Linux with a program at work moves from one QEMU to another, and the program checks its data there.

    scripts/install-linux                        # once: a kernel, a busybox and the programs, out of Debian's packages
    python examples/qemu_linux.py [redis|stress-ng] [QEMU]

The guest's system is made on the spot: an initial file system with the program, its libraries and a few lines of
shell. How far it has come goes out on the serial port, fifty times a second: the report has the blackout as the guest
saw it, and what the migration cost it.

Under redis, redis-benchmark runs a script again and again: each call counts itself and writes what follows from its
number, so that all data can be checked at any time. stress-ng writes its memory by a method of its own and verifies
each pass; how far it has come is a counter of the shell beside it.
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
# Each says on the serial port `F` once it is at work, then `p` and how far it is in base 16, a line each; when a `c`
# comes in, it ends, and says `K` and how far it came, or `X` and how much is not what it should be.
REDIS = f"""
redis='redis-cli -s /tmp/redis'
redis-server --port 0 --unixsocket /tmp/redis --save '' --appendonly no >/dev/ttyS0 &
until $redis ping >/dev/null 2>&1; do sleep 0.1; done
load() {{ redis-benchmark -s /tmp/redis -c 4 -P 4 -q "$@" eval "$(cat /write)" 0 >/dev/null 2>&1; }}
load -n {KEYS}
echo F >/dev/ttyS0
load -l &
loader=$!
$redis -r -1 -i 0.02 get calls | while read -r calls; do printf 'p%x\\n' "$calls"; done >/dev/ttyS0 &
await_c
kill $loader
killall redis-benchmark redis-cli
wrong=$($redis eval "$(cat /check)" 0)
[ "$wrong" = 0 ] && printf 'K%x\\n' "$($redis get calls)" >/dev/ttyS0 || echo "X$wrong" >/dev/ttyS0
"""
STRESS = """
stress-ng --vm 1 --vm-bytes 24M --vm-method inc-nybble --vm-keep --verify --metrics --yaml /tmp/log >/dev/null 2>&1 &
stress=$!
until pidof stress-ng-vm >/dev/null; do sleep 0.1; done
echo F >/dev/ttyS0
steps() { step=0; while :; do usleep 20000; step=$((step + 1)); printf 'p%x\\n' $step; done; }
steps >/dev/ttyS0 &
counter=$!
await_c
kill $counter
kill -INT $stress
wait $stress
wrong=$?
[ "$wrong" = 0 ] && printf 'K%x\\n' $(awk '/bogo-ops:/ { print $2 }' /tmp/log) >/dev/ttyS0 || echo "X$wrong" >/dev/ttyS0
"""
BODIES = {"redis": REDIS, "stress-ng": STRESS}
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs none /dev
mount -t proc none /proc
stty -F /dev/ttyS0 raw -echo
exec 2>/dev/ttyS0
export LD_LIBRARY_PATH=/lib64
await_c() { while [ "$(dd if=/dev/ttyS0 bs=1 count=1 2>/dev/null)" != c ]; do :; done; }
"""
AT_LAST = "while :; do sleep 1000; done\n"


def initial_file_system(program: str) -> bytes:
    """What the guest has: a program, its libraries, and what it is to do."""
    folder, init = FOLDER / program, INIT + BODIES[program] + AT_LAST
    files: dict[str, bytes | None] = dict.fromkeys(("bin", "dev", "proc", "tmp", "lib64"))
    files |= {"init": init.encode(), "write": WRITE.encode(), "check": CHECK.encode()}
    files["bin/busybox"] = (FOLDER / "busybox").read_bytes()
    files |= {f"bin/{path.name}": path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
    files |= {f"lib64/{path.name}": path.read_bytes() for path in sorted((folder / "lib").iterdir())}
    return archive(files)


class Machine:
    """A QEMU with that Linux, gone at the end of its `with` block.

    Args:
        binary: Which QEMU.
        program: What is at work in it; none waits for a migration, rather than start.
    """

    def __init__(self, binary: str, program: str | None = None) -> None:
        # The path of a socket has at most 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="switchover-linux-"))
        self.monitor, self.serial = self.folder / "qmp", self.folder / "serial"
        image = self.folder / "initrd"
        image.write_bytes(initial_file_system(program) if program else b"")
        command = [
            binary, "-accel", "tcg", "-cpu", "max", "-m", MEMORY, "-nodefaults", "-display", "none",
            "-qmp", f"unix:{self.monitor},server=on,wait=off",
            "-chardev", f"socket,id=serial,path={self.serial},server=on,wait=off", "-serial", "chardev:serial",
            "-kernel", str(FOLDER / "vmlinuz"), "-initrd", str(image), "-append", "console=none quiet rdinit=/init",
        ]  # fmt: skip
        self.process = subprocess.Popen([*command, *([] if program else ["-incoming", "defer"])])
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


def migrate(binary: str, program: str = "redis", link: str = "400Mbit/s") -> tuple[sw.Report, int]:
    """Moves it while it works; the report, and how far the program had come when its data were checked."""
    with Machine(binary, program) as source, Machine(binary) as destination, sw.qemu.Relay(link) as relay:
        source.wait_for("F")
        report = sw.qemu.migrate(
            source.monitor, destination.monitor, "pre-copy", "max-rounds:6", through=relay,
            heartbeat=(source.serial, destination.serial), warm_up="2s", cool_down="1s",
        )  # fmt: skip
        report.raise_for_outcome()
        said = destination.wait_for("K", "X", say=b"c")
    if said.startswith("X"):
        raise SystemExit(f"{program} finds its data damaged: {said[1:]}")
    return report, int(said[1:], 16)


def main(program: str = "redis", binary: str = "qemu-system-x86_64") -> None:
    """Prints the report."""
    if not (FOLDER / program).exists():
        raise SystemExit(f"no Linux with {program} for the guest here: scripts/install-linux fetches one")
    report, done = migrate(binary, program)
    screen = show.console()
    screen.print(show.table([(f"Linux and {program}, QEMU {report.data['qemu']['versions']['source']}", report)]))
    before, after = report.guest_cost["before"], report.guest_cost["after"]
    if program == "redis":
        print(f"redis answered {before:.0f} calls a second before and {after:.0f} afterwards, {done} in all")
        print(f"each of its {KEYS} rows is what it wrote last")
    else:
        print(f"the guest's counter went {before:.0f} steps a second before and {after:.0f} afterwards")
        print(f"stress-ng did {done} operations on its memory and found nothing damaged")


if __name__ == "__main__":
    main(*sys.argv[1:])
