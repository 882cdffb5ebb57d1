"""A real redis under its benchmark: its working set, and what eight policies would make of its migration.

    python examples/redis.py [--record] [--write]

Uses examples/traces/redis.parquet; `--record` records it anew first (scripts/record-library.py, by process id, the
server taking no part). `--write` writes docs/redis.md.
"""

import subprocess
import sys
from pathlib import Path

import switchover as sw
from switchover import samples
from switchover.cli import chart
from switchover.cli.record import cost_line, describe
from switchover.cli.show import span
from switchover.units import format_size

ROOT = Path(__file__).resolve().parent.parent
TRACE = ROOT / "examples" / "traces" / "redis.parquet"
LINK = "500Mbit/s,0.5ms"
STARTS = ("0s", "2s", "4s")
POLICIES = (
    "downtime-limit:50ms",
    "downtime-limit:300ms",
    "max-rounds:5",
    "xen",
    "qemu-auto-converge:limit=50ms",
    "no-progress",
    "local-minimum",
    "proxmox",
)
LONGEST = "2min"


def outcomes(trace):
    """A row for each policy: the verdicts from all starts. One call simulates them all."""
    policies = [sw.policies.parse(name) for name in POLICIES]
    runs = [
        {"strategy": "pre-copy", "policy": policy, "link": LINK, "start": start, "longest": LONGEST}
        for policy in policies
        for start in STARTS
    ]
    rows = sw.simulate_many(trace, runs)
    return {name: rows[i * len(STARTS) : (i + 1) * len(STARTS)] for i, name in enumerate(POLICIES)}


def between(values, text):
    """Least to most, as people read it."""
    least, most = text(min(values)), text(max(values))
    return least if least == most else f"{least} to {most}"


def table(found):
    """The outcomes in Markdown."""
    head = ("policy", "completed", "total time", "blackout", "sent", "rounds", "slowdown")
    lines = [f"| {' | '.join(head)} |", "|---|---|---|---|---|---|---|"]
    for name, rows in found.items():
        done = rows[rows["outcome"] == "completed"]
        cells = [f"`{name}`", f"{len(done)} of {len(rows)}"]
        if len(done):
            cells += [between(done[field].tolist(), span) for field in ("total_time", "blackout")]
            cells += [between(done["sent_bytes"].tolist(), format_size), between(done["rounds"].tolist(), str)]
            cells += [between(done["slowdown"].tolist(), lambda share: f"{share * 100:.0f} %")]
        else:
            cells += [f"not within {LONGEST}", "-", "-", "-", "-"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def page(trace):
    """The page of the docs."""
    content = samples.shares(trace.samples)
    sizes = ", ".join(
        f"{name} {content[name]:.2f}" for name in ("lz4", "zstd", "xbzrle", "delta") if content[name] is not None
    )
    return f"""# A real redis

{trace.metadata["how"]}. Recorded by process id while it ran, on {trace.metadata["machine"]}:
{describe(trace)}.
{cost_line(trace)[0].upper()}{cost_line(trace)[1:]}.

```
python examples/redis.py --record --write        # makes this page
```

```
{chart.dirty_rate(trace)}

{chart.working_set(trace)}
```

Of the written pages {content["zero"] * 100:.1f} % were zero; of the size of the others remains by {sizes}.

## Eight policies

One `sw.simulate_many` call of {len(POLICIES)} policies from {len(STARTS)} moments of the trace each, pre-copy over
{LINK}, costs of nothing but the link. Least to most of the starts.

{table(outcomes(trace))}
"""


def main():
    """Prints the page, or writes it."""
    if "--record" in sys.argv:
        subprocess.run([sys.executable, ROOT / "scripts" / "record-library.py", "redis"], check=True)
    text = page(sw.Trace.load(TRACE))
    print(text)
    if "--write" in sys.argv:
        (ROOT / "docs" / "redis.md").write_text(text)


if __name__ == "__main__":
    main()
