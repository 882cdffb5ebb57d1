"""Real captures with changed bytes and cut ends: an error with its place or another stream, and never a crash."""

import os
import shutil
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
import switchover as sw
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from switchover.stream.events import SectionsEnd

KINDS = ["plain", "xbzrle", "multifd-zlib", "mapped-ram", "postcopy", "recovery"]
# Bytes of a record that say what it is.
HEAD = 24


@cache
def structure(*files):
    """Where things begin: file and position; and the files' bytes."""
    places = [(event.channel, event.offset) for event in sw.stream.open(files)]
    return sorted(set(places)), [Path(file).read_bytes() for file in sw.stream.open(files).files]


CHANGES = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, HEAD), st.integers(0, 255)), max_size=3)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES, end=st.none() | st.floats(0, 1))
def test_a_changed_capture_is_an_error_with_its_place_or_another_stream(captured, tmp_path, kind, changes, end):
    capture = captured(kind, "10.0")
    places, contents = structure(*(str(c.there) for c in capture.channels if c.there.stat().st_size))
    changed = [bytearray(content) for content in contents]
    for index, further, byte in changes:
        channel, offset = places[index % len(places)]
        changed[channel][(offset + further) % len(contents[channel])] = byte
    if end is not None:
        del changed[0][int(end * len(changed[0])) :]
    files = [tmp_path / str(number) for number in range(len(changed))]
    for file, content in zip(files, changed, strict=True):
        file.write_bytes(content)
    try:
        found = sw.stream.open(files)
    except (sw.StreamError, sw.UsageError):
        return
    if found.problem:
        assert 0 <= found.problem.offset <= max(map(len, changed))
        with suppress(sw.StreamError, sw.UsageError):
            _ = found.devices
    else:
        _ = found.devices
        _ = sum(len(rows) for rows in found.pages())


@pytest.mark.parametrize("kind", ["plain", "multifd-zstd", "mapped-ram", "postcopy"])
def test_a_capture_that_ends_at_any_byte_is_not_whole(captured, tmp_path, kind):
    capture = captured(kind, "10.0")
    others = [str(c.there) for c in capture.channels if c.role != "main"]
    size, cut = capture.main.stat().st_size, shutil.copy(capture.main, tmp_path / "cut")
    places, _ = structure(*(str(c.there) for c in capture.channels if c.there.stat().st_size))
    ends = {offset + more for _, offset in places[:: max(1, len(places) // 3)] for more in (0, 1)}
    # Old machine types end with their sections.
    ends -= {event.offset + 1 for event in sw.stream.open(capture.paths()) if isinstance(event, SectionsEnd)}
    for end in sorted(ends & set(range(8, size - 1)), reverse=True):
        os.truncate(cut, end)
        found = sw.stream.open([cut, *others])
        assert found.problem, end
        if not others:
            assert found.problem.offset == end
            assert "ends here" in found.problem.reason
