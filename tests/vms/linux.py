"""A guest that is a real Linux: Debian's kernel with a busybox, in an initial file system made on the spot."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from switchover.qemu.initramfs import archive

FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "switchover/linux"

# Fills two files in memory, one with noise and one with text, and writes them again and again, until something comes
# in at the serial port. It says what the tests' other guest says.
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs none /dev
mount -t proc none /proc
mount -t tmpfs none /tmp
stty -F /dev/ttyS0 raw -echo
dd if=/dev/urandom of=/tmp/noise bs=1M count=8 2>/dev/null
(yes switchover | head -c 4194304) >/tmp/text
echo -n F >/dev/ttyS0
while ! read -t 0 line </dev/ttyS0; do
    dd if=/dev/urandom of=/tmp/noise bs=64k count=16 seek=$((RANDOM % 8)) conv=notrunc 2>/dev/null
    md5sum /tmp/text >/tmp/sum
    echo -n P >/dev/ttyS0
done
echo -n H >/dev/ttyS0
exec sleep 1000000
"""


def require(*more: str) -> tuple[Path, Path]:
    """The kernel and the busybox; without them, and `more`, it skips the test, and fails it where CI=true."""
    if any(not (FOLDER / name).exists() for name in ("vmlinuz", "busybox", *more)):
        text = "no Linux for a guest here: scripts/install-linux fetches it"
        if os.environ.get("CI") == "true":
            pytest.fail(text, pytrace=False)
        pytest.skip(text)
    return FOLDER / "vmlinuz", FOLDER / "busybox"


def arguments(folder: Path) -> tuple[str, ...]:
    """QEMU's arguments to start it, with the file system written into `folder`."""
    kernel, busybox = require()
    image = folder / "initrd"
    image.write_bytes(archive({"bin": None, "dev": None, "proc": None, "tmp": None, "init": INIT.encode(),
                               "bin/busybox": busybox.read_bytes()}))  # fmt: skip
    command = "console=ttyS0 quiet rdinit=/init"
    return ("-kernel", str(kernel), "-initrd", str(image), "-append", command)
