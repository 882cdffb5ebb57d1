"""Quantities with units: texts such as "1GiB", "300ms", "1Gbit/s" in, and out again for people.

Inside, a quantity is a plain number in SI units: bytes, seconds, bytes per second. Wherever the package takes
a quantity, it takes such a number or a text.

    >>> parse_size("1GiB"), parse_time("300ms"), parse_rate("1Gbit/s")
    (1073741824, 0.3, 125000000.0)
    >>> format_size(1073741824), format_time(0.3), format_rate(125e6)
    ('1 GiB', '300 ms', '125 MB/s')
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, TypeAlias

from switchover.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

Size: TypeAlias = int | str
"""Bytes, or a text such as "64MiB", "1GB", "4096"."""
Time: TypeAlias = float | str
"""Seconds, or a text such as "300ms", "1.5s", "2min"."""
Rate: TypeAlias = float | str
"""Bytes per second, or a text such as "1Gbit/s", "200MB/s"."""
Number: TypeAlias = float | str
"""A plain number, or a text such as "0.99" or "80%"."""

SIZES = 'bytes as a number, or a text such as "64MiB", "1GiB", "1.5GB" (kB, MB, GB, TB; KiB, MiB, GiB, TiB)'
TIMES = 'seconds as a number, or a text such as "300ms", "1.5s" (ns, us, ms, s, min, h)'
RATES = 'bytes per second as a number, or a text such as "200MB/s", "1Gbit/s"'
COUNTS = "a whole number"
RATIOS = 'a number, or a text such as "0.99" or "80%"'
FLAGS = "true or false"

_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([^\d\s]\S*)?\s*")
_PREFIXES = {"": 1} | {
    letter + mark: base**power
    for power, letters in enumerate(("kK", "M", "G", "T", "P"), 1)
    for letter in letters
    for mark, base in (("", 1000), ("i", 1024))
}
_BYTES = {prefix + "B": float(factor) for prefix, factor in _PREFIXES.items()}
_BITS = {prefix + "bit": factor / 8 for prefix, factor in _PREFIXES.items()}
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_RATES = {unit + "/s": factor for unit, factor in (_BYTES | _BITS).items()}


def _parse(value: object, units: dict[str, float], forms: str, what: str) -> float:
    def wrong() -> UsageError:
        return UsageError(f"{what} must be {forms}; not {value!r}")

    if isinstance(value, bool) or not isinstance(value, str | int | float):
        # NumPy's numbers are as good as Python's.
        value = getattr(value, "item", lambda: None)()
    if isinstance(value, str):
        number, unit = _split(value, wrong)
        if unit and unit not in units:
            raise wrong()
        result = number / 1e9 if unit == "ns" else number * units.get(unit, 1.0)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        result = float(value)
    else:
        raise wrong()
    if not math.isfinite(result) or result < 0:
        raise wrong()
    return result


def _split(text: str, wrong: Callable[[], UsageError]) -> tuple[float, str]:
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise wrong()
    return float(match[1]), match[2] or ""


def parse_size(value: Size, what: str = "a size") -> int:
    """Bytes out of a number or a text; `what` names the quantity in the error.

    >>> parse_size("1.5KiB")
    1536
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    size = _parse(value, _BYTES, SIZES, what)
    if size != int(size):
        raise UsageError(f"{what} must be a whole number of bytes; {value!r} is {size}")
    return int(size)


def parse_time(value: Time, what: str = "a time") -> float:
    """Seconds out of a number or a text.

    >>> parse_time("2min")
    120.0
    """
    return _parse(value, _SECONDS, TIMES, what)


def parse_rate(value: Rate, what: str = "a rate") -> float:
    """Bytes per second out of a number or a text.

    >>> parse_rate("8kbit/s")
    1000.0
    """
    return _parse(value, _RATES, RATES, what)


def parse_number(value: Number, what: str = "a ratio") -> float:
    """A plain number out of a number or a text.

    >>> parse_number("80%")
    0.8
    """
    return _parse(value, {"%": 0.01}, RATIOS, what)


def parse_count(value: int | str, what: str = "a count") -> int:
    """A whole number out of a number or a text.

    >>> parse_count("30")
    30
    """
    count = _parse(value, {}, COUNTS, what)
    if count != int(count):
        raise UsageError(f"{what} must be {COUNTS}; not {value!r}")
    return int(value) if isinstance(value, int) else int(count)


def parse_flag(value: bool | str, what: str = "a flag") -> bool:
    """True or false out of a truth value or a text.

    >>> parse_flag("false")
    False
    """
    known = {
        "true": True,
        "yes": True,
        "on": True,
        "1": True,
        "false": False,
        "no": False,
        "off": False,
        "0": False,
    }
    flag = known.get(str(value).strip().lower())
    if flag is None:
        raise UsageError(f"{what} must be {FLAGS}; not {value!r}")
    return flag


def _format(value: float | None, steps: list[tuple[float, str]]) -> str:
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value):
        return "unbounded"
    factor, unit = next((step for step in steps if abs(value) >= step[0]), steps[-1])
    scaled = value / factor
    digits = max(0, 3 - len(str(int(abs(scaled)))))
    text = f"{scaled:.{digits}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} {unit}"


def format_size(size: float | None) -> str:
    """Bytes for people.

    >>> format_size(1536), format_size(0)
    ('1.5 KiB', '0 B')
    """
    return _format(
        size, [(1024.0**n, unit) for n, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB"))] + [(1, "B")]
    )


def format_time(seconds: float | None) -> str:
    """Seconds for people.

    >>> format_time(0.0123), format_time(None)
    ('12.3 ms', '-')
    """
    steps = [(3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")]
    return _format(seconds, steps) if seconds else ("-" if seconds is None else "0 s")


def format_rate(rate: float | None) -> str:
    """Bytes per second for people.

    >>> format_rate(2e8)
    '200 MB/s'
    """
    return _format(rate, [(1e12, "TB/s"), (1e9, "GB/s"), (1e6, "MB/s"), (1e3, "kB/s"), (1, "B/s")])


def format_bits(rate: float | None) -> str:
    """Bytes per second for people, as links are sold: in bits per second.

    >>> format_bits(125e6)
    '1 Gbit/s'
    """
    steps = [(1e12, "Tbit/s"), (1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s"), (1, "bit/s")]
    return _format(None if rate is None else rate * 8, steps)
