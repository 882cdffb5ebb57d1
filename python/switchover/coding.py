"""What a codec would make of a trace's pages, by the trace's samples of content."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from switchover import _native, samples, units
from switchover.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from switchover.codecs import Codec
    from switchover.trace import Trace

VERSIONS = 64 << 20
"""Bytes for versions of sent pages, where a codec's own number is not given."""

USUAL = {"chain": ("zero", "dedup", "delta"), "adaptive": ("lz4", "zstd", "xbzrle", "delta")}
"""The parts of codecs made of several, where they are not given."""


class Shares(NamedTuple):
    """What remains of a page that is not zero, as shares of its size.

    Attributes:
        first: When it is sent for the first time.
        again: When it was sent before.
    """

    first: float
    again: float


def of(trace: Trace, codec: Codec, encode_rate: units.Rate | None) -> dict[str, Any] | None:
    """The simulator's model of a codec; nothing for `zero`, which names zero pages and leaves the others."""
    spec = codec.spec()
    rate = None if encode_rate is None else units.parse_rate(encode_rate, "encode_rate")
    if rate == 0:
        raise UsageError("encode_rate must be more than 0")
    if spec["name"] == "zero":
        return None
    if spec["name"] == "raw":
        return model(Shares(1.0, 1.0), False, None)
    found = samples.shares(trace.samples)
    if found["lz4"] is None:
        raise UsageError(
            f"what {spec['name']} makes of the pages is not known: the trace has no samples of their content "
            "(record it with samples, or simulate the codec raw or zero)"
        )
    return model(shares(spec, found, written_bytes(trace)), True, rate)


def known(trace: Trace | None, codec: Codec) -> bool:
    """Whether the trace says what the codec would make of its pages; of `raw` and `zero` that is known without."""
    return codec.name in ("raw", "zero") or (trace is not None and samples.shares(trace.samples)["lz4"] is not None)


def model(left: Shares, names_zeros: bool, rate: float | None) -> dict[str, Any]:
    """As the engine takes it."""
    page = float(_native.PAGE)
    return {
        "names_zeros": names_zeros,
        "first_bytes": page * left.first,
        "again_bytes": page * left.again,
        "seconds": page / rate if rate else 0.0,
    }


def written_bytes(trace: Trace) -> float:
    """Of all pages that are written: the versions that there are to keep."""
    written = trace.unique_pages([trace.duration]) if trace.intervals else [0.0]
    return float(written[0]) * _native.PAGE


def shares(spec: Mapping[str, Any], found: Mapping[str, float | None], written: float) -> Shares:
    """What remains by the codec of `spec`, where samples were `found`.

    A page whose version was kept, by hit ratio h, costs c of itself, and else what it costs the first time: on average
    h c + (1 - h). The hit ratio is the share of written pages whose versions there is room for.

        >>> found = {"lz4": 0.5, "zstd": 0.4, "xbzrle": 0.05, "delta": 0.1, "duplicates": 0.25}
        >>> shares({"name": "xbzrle", "cache": 90}, found, 100.0)
        Shares(first=1.0, again=0.145)
        >>> shares({"name": "chain", "parts": [{"name": "dedup"}, {"name": "lz4"}]}, found, 0.0)
        Shares(first=0.375, again=0.375)
    """
    name = spec["name"]
    size = {key: 1.0 if value is None else min(1.0, value) for key, value in found.items()}
    hit = min(1.0, float(spec.get("cache", VERSIONS)) / max(1.0, written))
    if name in ("lz4", "zstd"):
        return Shares(size[name], size[name])
    if name == "xbzrle":
        return Shares(1.0, round(hit * size["xbzrle"] + (1 - hit), 12))
    if name == "delta":
        whole = size["lz4" if spec.get("inner") == "lz4" else "zstd"]
        return Shares(whole, min(whole, hit * size["delta"] + (1 - hit) * whole))
    if name == "dedup":
        rest = 1.0 - (found["duplicates"] or 0.0)
        return Shares(rest, rest)
    return several(spec, found, written)


def several(spec: Mapping[str, Any], found: Mapping[str, float | None], written: float) -> Shares:
    """What remains by the best of several codecs; duplicates are found by `dedup`, and the others encode the rest."""
    parts = spec.get("parts") or spec.get("candidates") or USUAL[spec["name"]]
    specs = [part if isinstance(part, dict) else {"name": part} for part in parts]
    encoded = [shares(part, found, written) for part in specs if part["name"] not in ("zero", "raw", "dedup")]
    first, again = (min([1.0, *column]) for column in zip(*encoded, strict=True)) if encoded else (1.0, 1.0)
    rest = shares({"name": "dedup"}, found, written).first if any(part["name"] == "dedup" for part in specs) else 1.0
    return Shares(rest * first, rest * again)
