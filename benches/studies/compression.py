"""When does compression pay: codec x link x guest.

``python benches/studies/compression.py [--quick]`` writes docs/studies/compression.md and its data. Sizes
are those of samples of the recorded guests' pages; how fast an encoder is, is measured first, on one thread of this
machine.
"""

from __future__ import annotations

import sys

import numpy as np
import switchover as sw
from guests import dirty_rate, machine, recorded
from page import DOCS, interval, publish, save, table
from switchover.units import format_bits, format_rate

GUESTS = ("redis", "sqlite", "postgres", "gcc", "stress-ng", "numpy")
CODECS = ("zero", "lz4", "zstd", "xbzrle", "delta-zstd")
LINKS = tuple(0.0125e9 * 2**step for step in range(9))
"""100 Mbit/s to 25.6 Gbit/s."""
MEMORY, DIRTY = 1 << 30, 60e6
"""Each guest in a machine of so much memory, in which it dirties so much a second."""
LIMIT = sw.policies.DowntimeLimit("100ms") | sw.policies.MaxRounds(30)


def encode_rates(quick: bool) -> dict[str, float]:
    """Bytes of memory a second that one thread encodes: the mean of pages sent first and again."""
    with sw.Guest("8MiB" if quick else "64MiB", sw.workloads.Kv(rate="60MB/s"), seed=7) as guest:
        found = sw.codecs.bakeoff(guest, ["raw", *CODECS], interval="200ms", passes=1 if quick else 5)
    return {codec: float(np.mean(found.rows["encode_rate"][found.rows["codec"] == codec])) for codec in CODECS}


def runs(trace: sw.Trace, rates: dict[str, float], starts: int) -> list[dict[str, object]]:
    """Every codec over every link, from several moments."""
    cases = [(codec, link) for codec in CODECS for link in LINKS]
    trials = [
        {
            "strategy": sw.PreCopy(codec=codec), "policy": LIMIT, "link": sw.Link(link), "encode_rate": rates[codec],
            "start": trace.duration * number / starts,
        }
        for codec, link in cases
        for number in range(starts)
    ]  # fmt: skip
    found = sw.simulate_many(trace, trials, sample=4).reshape(len(cases), starts)
    return [
        {
            "codec": codec, "link": link, "start": number, "total_time": float(row["total_time"]),
            "blackout": float(row["blackout"]), "sent_bytes": int(row["sent_bytes"]),
        }
        for (codec, link), part in zip(cases, found, strict=True)
        for number, row in enumerate(part)
    ]  # fmt: skip


def gains(rows: list[dict[str, object]], guest: str, codec: str, link: float, what: str) -> list[float]:
    """How many times as good as without a codec, from each start."""

    def of(name: str) -> list[float]:
        return [float(str(r[what])) for r in rows if (r["guest"], r["codec"], r["link"]) == (guest, name, link)]

    return [plain / each for plain, each in zip(of("zero"), of(codec), strict=True) if each > 0]


def break_even(rows: list[dict[str, object]], guest: str, codec: str) -> str:
    """The fastest of the links over which a migration is at least 5 % quicker with the codec."""
    paying = [link for link in LINKS if np.median(gains(rows, guest, codec, link, "total_time")) >= 1.05]
    return format_bits(max(paying)) if paying else "never"


def tables(rows: list[dict[str, object]], rates: dict[str, float]) -> str:
    """Break-evens, then gains over three links."""
    guests = list(dict.fromkeys(str(row["guest"]) for row in rows))
    parts = [
        table(("codec", "one thread encodes"), [(codec, f"{rate / 1e6:.0f} MB/s") for codec, rate in rates.items()]),
        "### The fastest link over which it pays",
        table(("guest", *CODECS[1:]), [(g, *(break_even(rows, g, c) for c in CODECS[1:])) for g in guests]),
    ]
    for link in (LINKS[0], LINKS[3], LINKS[6]):
        lines = [
            (guest, *(interval(gains(rows, guest, codec, link, "total_time"), "{:.2f}".format) for codec in CODECS[1:]))
            for guest in guests
        ]
        parts += [f"### Times as quick over {format_bits(link)}", table(("guest", *CODECS[1:]), lines)]
    return "\n\n".join(parts)


def checked(repeats: int) -> str:
    """Real runs of a key-value store beside simulations of it from a trace recorded before."""
    lines = []
    for link in ("200Mbit/s", "1600Mbit/s"):
        for codec in ("zero", "lz4", "zstd"):
            real, told = [], []
            for seed in range(repeats):
                with sw.Guest("32MiB", sw.workloads.Kv(rate="10MB/s"), seed=seed) as guest:
                    guest.start()
                    trace = sw.Trace.record(guest=guest, duration="1s", interval="50ms")
                    guest.pause()
                    real.append(sw.migrate(guest, sw.PreCopy(codec=codec), LIMIT, link, warm_up="20ms", cool_down="0s"))
                told.append(sw.simulate(trace, sw.PreCopy(codec=codec), LIMIT, link))
            cells = [link, codec]
            for what, unit in (("total_time", 1.0), ("sent_bytes", 1e6)):
                pair = [np.median([getattr(report, what) for report in side]) / unit for side in (told, real)]
                cells.append(" / ".join(f"{value:.2f}" for value in pair))
            lines.append(cells)
    return table(("link", "codec", "total time, s: simulated / real", "sent, MB: simulated / real"), lines)


def main(quick: bool = False) -> None:
    rates, rows = encode_rates(quick), []
    for name, trace in recorded(("postgres", "sqlite") if quick else GUESTS).items():
        vm = machine(trace, DIRTY, MEMORY)
        sys.stderr.write(f"{name}: {format_rate(dirty_rate(vm))}\n")
        rows += [{"guest": name, **row} for row in runs(vm, rates, 2 if quick else 6)]
    text = tables(rows, rates)
    if quick:
        print(text)
        return
    save("compression", rows)
    publish("compression", f"{text}\n\n### Real memory beside the simulator\n\n{checked(3)}", DOCS)


if __name__ == "__main__":
    main("--quick" in sys.argv)
