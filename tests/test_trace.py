"""Traces: what they hold, and their file."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet
import pytest
import switchover as sw
from hypothesis import given
from hypothesis import strategies as st
from switchover.trace import ROW


def spread(pages: int, intervals: int, seed: int) -> list[tuple[int, int, int, int]]:
    """Rows of random runs, in order, without overlap."""
    random, rows = np.random.default_rng(seed), []
    for interval in range(intervals):
        edges = np.unique(random.integers(0, pages, 6))
        rows += [(interval, 0, int(a), int(b - a)) for a, b in zip(edges[::2], edges[1::2], strict=False)]
    return rows


@given(st.integers(0, 2**32), st.integers(1, 30))
def test_what_is_saved_is_what_is_loaded(tmp_path_factory: pytest.TempPathFactory, seed: int, intervals: int) -> None:
    path = tmp_path_factory.mktemp("trace") / "t.parquet"
    trace = sw.Trace(spread(300, intervals, seed), {"ram": 300, "rom": 5}, "50ms", intervals, {"source": "a test"})
    trace.save(path)
    again = sw.Trace.load(path)
    assert again == trace
    assert again.metadata == {"source": "a test"}


def test_the_file_is_plain_parquet(tmp_path) -> None:
    path = tmp_path / "t.parquet"
    sw.Trace([(0, 1, 3, 4), (2, 0, 0, 1)], {"low": 16, "high": 16}, 0.1).save(path)
    table = pyarrow.parquet.read_table(path)
    assert table.to_pydict() == {
        "interval": [0, 2],
        "block": ["high", "low"],
        "first_page": [3, 0],
        "pages": [4, 1],
    }
    head = json.loads(table.schema.metadata[b"switchover.trace"])
    assert (head["intervals"], head["blocks"][1]) == (3, {"name": "high", "pages": 16})


def test_files_that_are_no_traces_are_named(tmp_path) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1 or not")
    with pytest.raises(sw.UsageError, match=r"t\.parquet: not a trace"):
        sw.Trace.load(path)
    pyarrow.parquet.write_table(pyarrow.table({"interval": [1]}), path)
    with pytest.raises(sw.UsageError, match=r"switchover\.trace"):
        sw.Trace.load(path)


def damaged(head: dict[str, object], column: str, values: list[object]) -> pyarrow.Table:
    columns = {"interval": [0], "block": ["ram"], "first_page": [0], "pages": [1], column: values}
    base = {"schema": 1, "page_size": 4096, "interval": 1.0, "intervals": 1, "metadata": {}}
    meta = {**base, "blocks": [{"name": "ram", "pages": 8}], **head}
    return pyarrow.table(columns).replace_schema_metadata({b"switchover.trace": json.dumps(meta)})


@pytest.mark.parametrize(
    ("head", "column", "values"),
    [
        ({"schema": 99}, "pages", [1]),
        ({"page_size": 16384}, "pages", [1]),
        ({"interval": -1}, "pages", [1]),
        ({"intervals": -4}, "pages", [1]),
        ({"intervals": 2**40}, "pages", [1]),
        ({"blocks": "ram"}, "pages", [1]),
        ({"blocks": [{"name": "ram", "pages": 2**63}]}, "pages", [1]),
        ({}, "pages", [9]),
        ({}, "pages", [0]),
        ({}, "pages", [-1]),
        ({}, "pages", [None]),
        ({}, "first_page", [2**62]),
        ({}, "interval", [1]),
        ({}, "block", ["rom"]),
    ],
)
def test_damaged_files_are_refused_in_words(tmp_path, head, column, values) -> None:
    path = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(damaged(head, column, values), path)
    with pytest.raises(sw.UsageError):
        sw.Trace.load(path)


def test_rows_that_are_no_trace_are_named() -> None:
    with pytest.raises(sw.UsageError, match="row 1 of the trace"):
        sw.Trace([(0, 0, 4, 4), (0, 0, 6, 1)], {"ram": 16}, 1)
    with pytest.raises(sw.UsageError, match="fields"):
        sw.Trace(np.zeros(3), {"ram": 16}, 1)
    with pytest.raises(sw.UsageError, match="interval"):
        sw.Trace([], {"ram": 16}, 0)


def test_figures_of_a_trace() -> None:
    trace = sw.Trace([(0, 0, 0, 10), (1, 0, 5, 10), (3, 0, 0, 1)], {"ram": 64}, 0.5)
    assert trace.written_pages.tolist() == [10, 10, 0, 1]
    assert trace.dirty_rate.tolist() == [81920, 81920, 0, 8192]
    assert trace.unique_pages(["1s", "2s"]).tolist() == pytest.approx([(15 + 10 + 1) / 3, 15])
    frame_rows = trace.rows
    assert frame_rows.dtype == ROW
    assert "4 intervals" in repr(trace)


def test_a_program_is_generated_by_running_it() -> None:
    trace = sw.Trace.generate("8MiB", sw.workloads.Kv(rate="1MB/s"), duration="500ms", seed=3)
    assert trace.intervals == 5
    assert (trace.written_pages > 0).all()
    with pytest.raises(sw.UsageError, match="needs a rate"):
        sw.Trace.generate("8MiB", sw.workloads.Sweep(rate=0))
