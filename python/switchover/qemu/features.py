"""What QEMU is to use on the way: its own capabilities and parameters, in the units of everything else here."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, ClassVar

from switchover import units
from switchover.errors import UsageError


@dataclass(frozen=True)
class Features:
    """What QEMU uses on the way. What is left out stays as it is on the VM.

    Attributes:
        xbzrle: Send the differences of pages that were sent before; `True`, or the size of the cache of old pages.
        multifd: So many connections side by side; 0 for the main one alone.
        compression: Of what goes over them, such as `zlib` or `zstd`.
        compression_level: How hard it tries.
        zero_pages: Who looks for pages of zeros: `none`, `legacy` (the main thread) or `multifd` (the senders).
        auto_converge: QEMU's own throttling of vCPUs.
        dirty_limit: QEMU's own limit on what each vCPU may dirty, in bytes per second; needs KVM with a dirty ring.
        preempt: In post-copy, pages that are asked for take a connection of their own.
        mapped_ram: In a file, each page has its place; pages that are written again do not make it grow.
        direct_io: Past the page cache; needs `mapped_ram` and `multifd`.
        zero_copy: Without copying pages to the kernel; needs `multifd` without compression.
        tls: The id of a `tls-creds` object of the VM.
        tls_there: The same at the destination; as here if left out.
        tls_hostname: Whom the destination's certificate must name.
        bandwidth: The most to use, in bytes per second; 0 for no limit.
        postcopy_bandwidth: The same after post-copy was started.
        switchover_bandwidth: What the last, unlimited phase can use: QEMU's estimate takes it (8.2 and later).
        downtime_limit: When QEMU switches over by itself, in seconds of its estimate.
        return_path: Have the destination say that it runs before the source lets go.
        capabilities: Others, by QEMU's names.
        parameters: Others, by QEMU's names and in its units.

    >>> Features(multifd=4, compression="zstd", bandwidth="1Gbit/s").bandwidth
    125000000.0
    """

    xbzrle: bool | units.Size = False
    multifd: int = 0
    compression: str | None = None
    compression_level: int | None = None
    zero_pages: str | None = None
    auto_converge: bool = False
    dirty_limit: units.Rate | None = None
    preempt: bool = False
    mapped_ram: bool = False
    direct_io: bool = False
    zero_copy: bool = False
    tls: str | None = None
    tls_there: str | None = None
    tls_hostname: str | None = None
    bandwidth: units.Rate | None = None
    postcopy_bandwidth: units.Rate | None = None
    switchover_bandwidth: units.Rate | None = None
    downtime_limit: units.Time | None = None
    return_path: bool = True
    capabilities: dict[str, bool] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)

    _RATES: ClassVar = ("dirty_limit", "bandwidth", "postcopy_bandwidth", "switchover_bandwidth")
    _FLAGS: ClassVar = ("auto_converge", "preempt", "mapped_ram", "direct_io", "zero_copy", "return_path")

    def __post_init__(self) -> None:
        for name in self._RATES:
            self._parse(name, units.parse_rate)
        for name in self._FLAGS:
            self._parse(name, units.parse_flag)
        self._parse("downtime_limit", units.parse_time)
        self._parse("multifd", _parse_whole)
        self._parse("compression_level", _parse_whole)
        if str(self.xbzrle).lower() in ("yes", "true", "on", "no", "false", "off"):
            self._parse("xbzrle", units.parse_flag)
        else:
            self._parse("xbzrle", units.parse_size)
        if not 0 <= self.multifd <= 255:
            raise UsageError(f"multifd must be from 0 to 255 connections, not {self.multifd}")

    def _parse(self, name: str, parser: Any) -> None:
        value = getattr(self, name)
        if value is not None:
            object.__setattr__(self, name, parser(value, name))

    def given(self) -> dict[str, Any]:
        """Those that are not as by default, as JSON has them."""
        plain = asdict(Features())
        return {name: value for name, value in asdict(self).items() if value != plain[name]}

    @classmethod
    def of(cls, given: Features | dict[str, Any] | str | None) -> Features:
        """Out of what users may give: features, a dict of them, a text such as `multifd=4,compression=zstd`.

        A name that is none of these is one of QEMU's own: `x-ignore-shared=on`, `cpu-throttle-initial=30`.
        """
        if given is None:
            return cls()
        if isinstance(given, Features):
            return given
        if isinstance(given, str):
            pairs = [piece.partition("=") for piece in given.split(",") if piece]
            given = {name.strip(): value.strip() if mark else True for name, mark, value in pairs}
        if not isinstance(given, dict):
            raise UsageError(f"features are Features, a dict or a text such as multifd=4, not {given!r}")
        known = {each.name for each in fields(cls)}
        ours = {name.replace("-", "_"): value for name, value in given.items() if name.replace("-", "_") in known}
        theirs = {name: value for name, value in given.items() if name.replace("-", "_") not in known}
        return replace(cls(**ours), **_of_qemu(cls(**ours), theirs))


def _of_qemu(ours: Features, theirs: dict[str, Any]) -> dict[str, Any]:
    capabilities, parameters = dict(ours.capabilities), dict(ours.parameters)
    for name, value in theirs.items():
        if value in (True, False, "on", "off"):
            capabilities[name] = value in (True, "on")
        else:
            parameters[name] = _literal(value)
    return {"capabilities": capabilities, "parameters": parameters}


def _literal(value: Any) -> Any:
    """A number where it reads as one."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _parse_whole(value: Any, name: str) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise UsageError(f"{name} must be a whole number, not {value!r}") from None
