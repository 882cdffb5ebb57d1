import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from switchover import units
from switchover.errors import UsageError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1GiB", 2**30),
        ("64 MiB", 2**26),
        ("1.5kB", 1500),
        ("4096", 4096),
        ("4096B", 4096),
        (4096, 4096),
        ("1e3B", 1000),
    ],
)
def test_sizes(text, size):
    assert units.parse_size(text) == size
    assert isinstance(units.parse_size(text), int)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("300ms", 0.3),
        ("2min", 120),
        ("1.5s", 1.5),
        ("0.5us", 5e-7),
        ("3ns", 3e-9),
        (0.25, 0.25),
        ("0.25", 0.25),
        ("1h", 3600),
    ],
)
def test_times(text, seconds):
    assert units.parse_time(text) == seconds


@pytest.mark.parametrize(
    ("text", "rate"), [("1Gbit/s", 1.25e8), ("200MB/s", 2e8), ("1KiB/s", 1024), ("800bit/s", 100), (7, 7)]
)
def test_rates(text, rate):
    assert units.parse_rate(text) == rate


@pytest.mark.parametrize(
    ("parse", "bad"),
    [
        (units.parse_size, bad)
        for bad in (
            "",
            "GiB",
            "-1",
            -1,
            "1Gb",
            "1G",
            "1GiB/s",
            "nan",
            math.nan,
            math.inf,
            None,
            True,
            [],
            "0.5",
            "1e400",
        )
    ]
    + [(units.parse_time, bad) for bad in ("1GiB", "-3ms", "1m", "five", None, "1e999s", "3 0ms")]
    + [(units.parse_rate, bad) for bad in ("1Gbit", "1GB", "1Gbps", "-1MB/s", object())]
    + [(units.parse_count, bad) for bad in ("1.5", 1.5, "x", -1)]
    + [(units.parse_flag, bad) for bad in ("maybe", 2, None)],
)
def test_wrong_texts_are_answered_with_the_forms(parse, bad):
    with pytest.raises(UsageError, match="the thing must be"):
        parse(bad, "the thing")


def test_the_message_names_quantity_forms_and_value():
    with pytest.raises(UsageError) as caught:
        units.parse_time("1m", "stall_timeout")
    text = str(caught.value)
    assert text.startswith("stall_timeout must be seconds")
    assert '"300ms"' in text
    assert "'1m'" in text


@given(st.text(max_size=12) | st.floats() | st.integers() | st.none() | st.booleans() | st.binary(max_size=4))
def test_anything_is_a_quantity_or_a_usage_error(value):
    for parse in (units.parse_size, units.parse_time, units.parse_rate, units.parse_number, units.parse_count):
        try:
            result = parse(value)
        except UsageError:
            continue
        assert result >= 0
        assert math.isfinite(result)


@given(st.integers(0, 2**63))
def test_sizes_are_shown_near_what_they_are(size):
    assert units.parse_rate(units.format_size(size) + "/s") == pytest.approx(size, rel=0.01)


@given(st.floats(1e-9, 1e7))
def test_times_are_shown_near_what_they_are(seconds):
    assert units.parse_time(units.format_time(seconds)) == pytest.approx(seconds, rel=0.01)


@given(st.integers(0, 2**62), st.sampled_from(["B", "kB", "KiB", "MiB", "GB"]))
def test_whole_numbers_with_units_are_exact(count, unit):
    factor = {"B": 1, "kB": 1000, "KiB": 1024, "MiB": 2**20, "GB": 10**9}[unit]
    assert units.parse_size(f"{count % 1000}{unit}") == count % 1000 * factor


def test_what_is_unknown_or_endless_is_shown_as_such():
    assert units.format_time(None) == "-"
    assert units.format_time(math.inf) == "unbounded"
    assert units.format_rate(0.0) == "0 B/s"
