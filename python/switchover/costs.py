"""What a migration costs beside sending: known, fitted, kept in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from switchover import units
from switchover.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from switchover.report import Report

KEY = "switchover.costs"
SCHEMA = 1


@dataclass(frozen=True)
class Costs:
    """What a migration costs beside sending pages and the link's round trips; nothing by default.

    Args:
        setup: From the start to the first page: the destination's memory, arming the tracker.
        setup_per_gib: The same for each GiB of memory.
        scan_per_gib: Reading the dirty log of a GiB of memory.
        round: Ending a round, the dirty log not counted.
        reaction: From a decision to switch over to the guest's being stopped; the live copy goes on meanwhile. A QEMU
            looks at its limit every 100 ms.
        stop: Stopping the vCPUs.
        load: Sending, loading and acknowledging the execution state.
        resume: From the word to run to the guest's first instruction.
        buffer: Bytes that buffers on the way take before the link has carried them.
        errors: By name, the standard errors of what was fitted.
        about: Where they come from: `world`, `runs`, `machine`.

    Examples:
        >>> Costs(stop="2ms").stop
        0.002
    """

    setup: units.Time = 0.0
    setup_per_gib: units.Time = 0.0
    scan_per_gib: units.Time = 0.0
    round: units.Time = 0.0
    reaction: units.Time = 0.0
    stop: units.Time = 0.0
    load: units.Time = 0.0
    resume: units.Time = 0.0
    buffer: units.Size = 0
    errors: Mapping[str, float] = field(default_factory=dict, compare=False, repr=False)
    about: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name in NAMES:
            parse = units.parse_size if name == "buffer" else units.parse_time
            object.__setattr__(self, name, parse(getattr(self, name), f"Costs: {name}"))

    def spec(self) -> dict[str, float]:
        """Seconds, and the buffer's bytes, by name."""
        return {name: float(getattr(self, name)) for name in NAMES}

    @classmethod
    def fit(cls, reports: Iterable[Report]) -> Costs:
        """The costs that real runs had, with their standard errors in `errors`.

        Of completed pre-copy or stop-and-copy runs over links of a known bandwidth. Runs of several sizes of memory
        tell `setup` from `setup_per_gib`; runs over links of several bandwidths tell `buffer` from the rest. Each is
        a least-absolute-deviations estimate, which a few runs that were disturbed do not move; its standard error is
        that of a bootstrap over the runs.

        Args:
            reports: Runs of one world on one machine, three or more.

        Raises:
            UsageError: Fewer than three runs can be used.
        """
        from switchover.calibration import fit

        return fit(reports)

    def save(self, path: str | Path) -> None:
        """Writes them to a small JSON file."""
        content = {"schema": SCHEMA, "costs": self.spec(), "errors": dict(self.errors), "about": dict(self.about)}
        Path(path).write_text(json.dumps({KEY: content}, indent=2) + "\n")

    @classmethod
    def load_file(cls, path: str | Path) -> Costs:
        """Reads what `save` wrote.

        Raises:
            UsageError: The file cannot be read, or is not one of costs.
        """
        try:
            content = json.loads(Path(path).read_text())[KEY]
            if content["schema"] != SCHEMA:
                raise UsageError(f"{path}: costs of schema {content['schema']!r} cannot be read, only {SCHEMA}")
            given = {str(name): float(value) for name, value in content["costs"].items()}
            errors = {str(name): float(value) for name, value in content["errors"].items()}
            about = {str(name): str(value) for name, value in content["about"].items()}
            return cls(**given, errors=errors, about=about)  # type: ignore[arg-type]
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{path}: not a file of costs, as `switchover calibrate` writes: {error}") from error

    @classmethod
    def of(cls, given: Costs | str | Path | None) -> Costs:
        """Costs out of what users may give: costs, the path of a file of them, or nothing."""
        if given is None or isinstance(given, Costs):
            return given or cls()
        if not isinstance(given, str | Path):
            raise UsageError(f"costs were expected, or the path of a file of them, not {given!r}")
        return cls.load_file(given)


NAMES = tuple(item.name for item in fields(Costs) if item.name not in ("errors", "about"))
"""The costs: seconds, but for `buffer`, which is bytes."""


def as_text(value: Any, name: str) -> str:
    """A cost for people."""
    return units.format_size(int(value)) if name == "buffer" else units.format_time(float(value))
