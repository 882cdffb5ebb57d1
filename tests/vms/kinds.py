"""The kinds of migration that are captured: what is set, which guest runs, and how it goes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from vms.boot import BUSY, IDLE, Boot

MIB = 1 << 20
# Slow enough for several passes over a guest of 16 MiB that writes all the time, in a second or two.
LIMITED = {"max-bandwidth": 32 * MIB, "downtime-limit": 1}
MULTIFD = {**LIMITED, "multifd-channels": 3}
# What is compressed is counted as it is sent.
SLOW = 14 * MIB
POSTCOPY = {**LIMITED, "max-postcopy-bandwidth": 24 * MIB}
BOTH = ("7.2", "10.0")

DEVICES = (
    "-device", "VGA", "-netdev", "hubport,hubid=1,id=n1", "-device", "virtio-net-pci,netdev=n1,romfile=",
    "-netdev", "hubport,hubid=1,id=n2", "-device", "e1000,netdev=n2,romfile=", "-device", "virtio-rng-pci",
    "-device", "virtio-balloon-pci", "-device", "virtio-serial-pci", "-device", "virtio-scsi-pci",
    "-device", "qemu-xhci", "-device", "usb-tablet", "-device", "intel-hda",
    "-audiodev", "none,id=a1", "-device", "hda-duplex,audiodev=a1",
)  # fmt: skip

# {files} is a folder of the capture's; {side} is `source` or `destination`.
BLOCKS = (
    "-object", "memory-backend-ram,id=low,size=8M", "-numa", "node,memdev=low",
    "-object", "memory-backend-ram,id=high,size=8M", "-numa", "node,memdev=high",
    "-object", "memory-backend-file,id=stick,size=4M,share=off,mem-path={files}/stick-{side}",
    "-device", "pc-dimm,id=dimm,memdev=stick",
)  # fmt: skip
SHARED = ("-object", "memory-backend-file,id=shared,size=16M,share=on,mem-path={files}/shared")


@dataclass(frozen=True)
class Kind:
    """A kind of capture.

    Fields:
        way: `stream` (between two QEMUs), `postcopy`, `recovery`, or `file` (written, then loaded).
        passes: After so many the guest is told to rest; 0: it rests anyhow.
        releases: The QEMUs that have it.
    """

    name: str
    way: str = "stream"
    releases: tuple[str, ...] = BOTH
    capabilities: tuple[str, ...] = ()
    only_source: tuple[str, ...] = ()
    parameters: dict[str, Any] = field(default_factory=lambda: dict(LIMITED))
    boot: Boot = BUSY
    passes: int = 4
    machine: str = "pc"
    memory: str = "16M"
    devices: tuple[str, ...] = ()
    paused: bool = False
    linux: bool = False


def idle(name: str, **more: Any) -> Kind:
    """A guest that has done its work: one pass suffices."""
    return Kind(name, boot=IDLE, passes=0, **more)


def multifd(name: str, **more: Any) -> Kind:
    parameters = {**MULTIFD, **more.pop("parameters", {})}
    return Kind(name, capabilities=("multifd", *more.pop("capabilities", ())), parameters=parameters, **more)


ALL = (
    Kind("plain"),
    Kind("return-path", only_source=("return-path",)),
    # A few words of each page change, in three quarters of the passes.
    Kind("xbzrle", capabilities=("xbzrle",), only_source=("return-path",), boot=replace(BUSY, words=9), passes=5),
    # Each rewrite fills most of a page: longer encoded than raw.
    Kind("xbzrle-overflow", capabilities=("xbzrle",), boot=replace(BUSY, words=1000, zeroes=7, burst=16)),
    Kind("compress", releases=("7.2",), capabilities=("compress",), parameters={**LIMITED, "max-bandwidth": SLOW}),
    multifd("multifd", only_source=("return-path",)),
    multifd("multifd-zlib", parameters={"multifd-compression": "zlib", "max-bandwidth": SLOW}),
    multifd("multifd-zstd", parameters={"multifd-compression": "zstd", "max-bandwidth": SLOW}),
    multifd("multifd-old-type", releases=("10.0",), machine="pc-i440fx-7.2"),
    multifd("multifd-legacy-zero", releases=("10.0",), parameters={"zero-page-detection": "legacy"}),
    Kind("postcopy", way="postcopy", capabilities=("postcopy-ram",), parameters=POSTCOPY),
    Kind("preempt", way="postcopy", capabilities=("postcopy-ram", "postcopy-preempt"), parameters=POSTCOPY),
    Kind("recovery", way="recovery", capabilities=("postcopy-ram",), parameters=POSTCOPY),
    Kind("mapped-ram", way="file", releases=("10.0",), capabilities=("mapped-ram",)),
    Kind("mapped-ram-multifd", way="file", releases=("10.0",), capabilities=("mapped-ram", "multifd")),
    Kind("file", way="file"),
    Kind("background-snapshot", way="file", only_source=("background-snapshot",), passes=0),
    idle("paused", paused=True, only_source=("return-path",)),
    idle("uuid", capabilities=("validate-uuid",), devices=("-uuid", "7c0ffee0-0000-4000-8000-5eed5eed5eed")),
    idle("blocks", memory="16M,slots=2,maxmem=64M", devices=BLOCKS),
    idle("blocks-multifd", memory="16M,slots=2,maxmem=64M", devices=BLOCKS, capabilities=("multifd",)),
    idle("ignore-shared", capabilities=("x-ignore-shared",), machine="pc,memory-backend=shared", devices=SHARED),
    idle("devices", devices=DEVICES),
    idle("devices-q35", machine="q35", devices=DEVICES),
    idle("smp", devices=("-smp", "4")),
    idle("type-2.2", releases=("7.2",), machine="pc-i440fx-2.2"),
    idle("type-2.3", releases=("7.2",), machine="pc-i440fx-2.3"),
    idle("type-2.4", machine="pc-i440fx-2.4"),
    idle("type-4.2", machine="pc-q35-4.2"),
    idle("type-8.0", releases=("10.0",), machine="pc-q35-8.0"),
)
# Takes a kernel and some seconds to start: for slow tests.
LINUX = Kind("linux", linux=True, memory="128M", parameters={**LIMITED, "max-bandwidth": 128 * MIB}, passes=3)
BY_NAME = {kind.name: kind for kind in (*ALL, LINUX)}
CASES = [(kind.name, release) for kind in ALL for release in kind.releases]
