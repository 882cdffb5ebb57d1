"""Dirty traces out of streams: pages that were sent again, when they may have been written."""

import json
import math

import numpy as np
import pytest
import switchover as sw
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from switchover.cli import group
from switchover.stream import written
from test_stream_receive import LIMITED, migrate, receiving
from vms.boot import BUSY
from vms.machine import Machine

# Each pass: which pages of 32 come, and how long it takes.
PASSES = st.lists(st.tuples(st.sets(st.integers(0, 31), min_size=1), st.integers(1, 50)), min_size=1, max_size=6)


@settings(deadline=None)
@given(PASSES)
def test_a_page_is_in_the_trace_once_for_each_pass_it_came_again_in(passes):
    rows, seen, start, begins = [], set(), 0, []
    for number, (pages, lasts) in enumerate(passes):
        begins.append(start / 10)
        rows += [
            (start / 10 + index * lasts / 10 / len(pages), 0, page, number, page in seen)
            for index, page in enumerate(sorted(pages))
        ]
        seen |= pages
        start += lasts
    trace = written.build(np.array(rows, written.PAGE), {"ram": 32 * 4096}, 4096, 0.1, {})
    assert trace.intervals == max(1, math.ceil(begins[-1] / 0.1 - 1e-9))
    left = [(number, page) for _, _, page, number, again in rows if again]
    for row in trace.rows:
        for page in range(row["first_page"], row["first_page"] + row["pages"]):
            # An interval may be of two passes.
            of = [
                (number, other)
                for number, other in left
                if other == page
                and begins[number - 1] < (row["interval"] + 1.001) / 10
                and begins[number] > (row["interval"] - 0.001) / 10
            ]
            assert of, (row, left)
            left.remove(of[0])
    # What is left was in one interval twice.
    pages = {
        (row["interval"], page)
        for row in trace.rows
        for page in range(row["first_page"], row["first_page"] + row["pages"])
    }
    assert all(any(page == other for _, other in pages) for _, page in left)


@pytest.mark.parametrize("kind", ["plain", "multifd-zstd", "postcopy", "xbzrle"])
def test_the_trace_of_a_capture_has_what_the_guest_wrote(captured, kind):
    capture = sw.stream.open([channel.there for channel in captured(kind, "10.0").channels])
    trace = sw.Trace.from_stream(capture, interval="20ms", bandwidth="32MB/s")
    assert trace.metadata["times"] == "assumed: 32 MB/s"
    assert trace.metadata["ended"] == "complete"
    assert trace.blocks["pc.ram"] == 4096
    ram = list(trace.blocks).index("pc.ram")
    own = trace.rows[trace.rows["block"] == ram]
    # The guest writes the pages from 0x400 to 0xc00, and one for its stack.
    inside = (own["first_page"] >= BUSY.first) & (own["first_page"] + own["pages"] <= BUSY.first + BUSY.pages)
    assert own[inside]["pages"].sum() >= 0.95 * trace.written_pages.sum() > 500
    again = np.concatenate(list(capture.pages()))["sent_again"].sum()
    assert 0.8 * again <= trace.written_pages.sum() <= again
    assert sw.simulate(trace, sw.PreCopy(), link=sw.Link("1Gbit/s")).outcome == "completed"


def test_a_page_log_is_the_same_trace_as_what_was_kept(tmp_path):
    from vms.installed import require

    kept, log = tmp_path / "kept", tmp_path / "log"
    with sw.stream.Receiver() as receiver, Machine(require("10.0"), BUSY) as machine:
        machine.hear("F")
        with receiving(receiver, output=kept, log=log) as found:
            migrate(machine, receiver, ("return-path",), LIMITED)
            machine.wait_for_passes(4)
            machine.rest()
            machine.wait_for("completed")
    capture, pages = sw.stream.open(found[0].files), sw.stream.read_log(log)
    assert pages.blocks == found[0].blocks
    assert int(pages.rows["pages"].sum()) == found[0].pages.total
    ours, theirs = written.spread_out(pages.rows), np.concatenate(list(capture.pages()))
    for field in ("block", "page", "pass", "sent_again"):
        assert (ours[field] == theirs[field]).all(), field
    a, b = (sw.Trace.from_stream(source, interval="50ms") for source in (log, kept))
    assert a.metadata["times"] == b.metadata["times"] == "recorded"
    assert abs(a.written_pages.sum() / b.written_pages.sum() - 1) < 0.1
    assert a.duration > 0 < b.duration


def test_a_rehearsal_that_was_dropped_is_a_trace(tmp_path):
    from vms.installed import require

    kept = tmp_path / "kept"
    with sw.stream.Receiver() as receiver, Machine(require("10.0"), BUSY) as machine:
        machine.hear("F")
        with receiving(receiver, output=kept, log=tmp_path / "log", ending="drop") as found:
            migrate(machine, receiver, ("return-path",), LIMITED)
            machine.wait_for_passes(4)
            machine.rest()
            machine.wait_for("failed")
        assert machine.ask("query-status")["running"]
    assert found[0].outcome == "dropped"
    for source in (kept, tmp_path / "log"):
        trace = sw.Trace.from_stream(source)
        assert trace.written_pages.sum() > 500
    # What the source sends between its guest's stop and the news of the loss is little, and may have come as a whole.
    ended = sw.Trace.from_stream(kept).metadata["ended"]
    assert ended == "complete" or "ends here" in ended


def test_the_command(captured, tmp_path):
    main, out = str(captured("plain", "10.0").main), tmp_path / "trace.parquet"
    run = lambda *arguments: CliRunner().invoke(group, ["record", *arguments, "-o", str(out)])  # noqa: E731
    done = run("--stream", main, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert found["metadata"]["times"] == "assumed: 1 Gbit/s" or found["metadata"]["times"].startswith("assumed")
    assert sw.Trace.load(out) == sw.Trace.from_stream(main)
    assert isinstance(run().exception, sw.UsageError)
    assert isinstance(run("--stream", main, "--pid", "1").exception, sw.UsageError)


def test_files_that_are_no_page_log(tmp_path):
    path = tmp_path / "log"
    for text in (b"", b"{}\n", b'{"switchover.pages":1}\n', b'{"switchover.pages"'):
        path.write_bytes(text)
        with pytest.raises(sw.StreamError):
            sw.stream.read_log(path)
    path.write_bytes(b'{"switchover.pages":9}\n')
    with pytest.raises(sw.StreamError, match="version 9"):
        sw.stream.read_log(path)
    with pytest.raises(sw.UsageError, match="cannot read"):
        sw.stream.read_log(tmp_path / "missing")
