"""Pages of studies: the part that a command writes, its data, its charts."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import bootstrap

DOCS = Path(__file__).resolve().parents[2] / "docs" / "studies"
BEGIN, END = "<!-- measured -->", "<!-- /measured -->"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """In Markdown."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def publish(name: str, text: str, folder: Path = DOCS) -> None:
    """Writes what was measured between the marks of the page, and prints it."""
    print(text)
    page = folder / f"{name}.md"
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}")


def save(name: str, rows: Sequence[Mapping[str, object]], folder: Path = DOCS) -> None:
    """Every run, as CSV."""
    with (folder / "data" / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def load(name: str, folder: Path = DOCS) -> list[dict[str, object]]:
    """The runs that were saved."""

    def value(text: str) -> object:
        try:
            return float(text)
        except ValueError:
            return text

    with (folder / "data" / f"{name}.csv").open() as file:
        return [{name: value(text) for name, text in row.items()} for row in csv.DictReader(file)]


def interval(
    values: Sequence[float],
    show: Callable[[float], str] = "{:.3g}".format,
    middle_of: Callable[..., float] = np.median,
) -> str:
    """The median or mean, and the 95 % interval of it by bootstrap, seeded."""
    found = np.asarray(values, dtype=float)
    if not len(found):
        return "-"
    middle = show(float(middle_of(found)))
    if len(found) < 3 or np.ptp(found) == 0 or not np.isfinite(found).all():
        return middle
    spread = bootstrap((found,), middle_of, n_resamples=2000, method="percentile", rng=np.random.default_rng(7))
    low, high = spread.confidence_interval
    return f"{middle} ({show(float(low))} to {show(float(high))})"
