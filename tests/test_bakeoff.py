"""The bake-off: figures that are those of the codecs, from every source, in Python and on the command line."""

import json
import math
import os
import subprocess
import sys
import xml.dom.minidom

import numpy as np
import page_sets
import pytest
import switchover as sw
from hypothesis import given, settings
from hypothesis import strategies as st

PAGE = 4096
SIZE = 1 << 20
ONCE = {"passes": 1, "interval": "10ms"}
COMMAND = [sys.executable, "-m", "switchover", "codecs"]


def pages_of(memory):
    return [memory[at : at + PAGE] for at in range(0, len(memory), PAGE)]


def call(*arguments, code=0):
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.mark.parametrize("name", page_sets.SETS)
def test_bytes_are_those_of_the_codecs_on_every_set(name):
    versions = page_sets.SETS[name](SIZE)
    compared = ["raw", "zero", "xbzrle", "lz4", "zstd", "delta-lz4"]
    found = sw.codecs.bakeoff(versions, compared, together=False, **ONCE)
    assert found.facts["pages"] == SIZE // PAGE
    for codec in compared[2:]:
        own = sw.codecs.parse(codec)
        sent = {"first": 0, "again": 0}
        kept = [None] * (SIZE // PAGE)
        for index, version in enumerate(versions):
            for number, page in enumerate(pages_of(version)):
                if index and page == versions[index - 1][number * PAGE : (number + 1) * PAGE]:
                    continue
                if any(page):
                    data = own.encode(page, base=kept[number])
                    sent["again" if index else "first"] += PAGE if data is None else len(data)
                kept[number] = page if any(page) else None
        for part in found.parts:
            assert found.row(codec, part).bytes == sent[part], (codec, part)
    first = found.row("raw")
    assert (first.bytes_per_page, first.ratio) == (PAGE, 1)
    assert math.isnan(first.break_even)
    assert math.isnan(first.hit_rate)


def test_sets_are_what_they_say():
    sets = {name: make(SIZE) for name, make in page_sets.SETS.items()}
    assert {len(version) for versions in sets.values() for version in versions} == {SIZE}
    ratio = {
        name: sw.codecs.bakeoff(versions[0], ["zstd"], **ONCE).row("zstd").ratio for name, versions in sets.items()
    }
    assert ratio["text"] < 0.5
    assert ratio["executable"] < 0.7
    assert ratio["media"] > 0.97
    assert ratio["heap"] < 0.5
    for name in ("heap", "store"):
        again = sw.codecs.bakeoff(sets[name], ["xbzrle"], **ONCE).row("xbzrle", "again")
        assert 0 < again.pages < (len(sets[name]) - 1) * SIZE // PAGE
        assert again.ratio < 0.8
        assert again.hit_rate > 0.95


def test_batches_shorten_what_pages_share():
    sent = {
        together: sw.codecs.bakeoff(page_sets.text(SIZE), "zstd", together=together, **ONCE).row("zstd").bytes
        for together in (True, False)
    }
    assert sent[True] < 0.9 * sent[False]


def test_figures_fit_each_other():
    found = sw.codecs.bakeoff(page_sets.store(SIZE), passes=3)
    rows = found.rows
    assert found.parts == ["first", "again"]
    for what in ("encode", "decode"):
        median, rate = rows[f"{what}_ns"], rows[f"{what}_rate"]
        assert (rows[f"{what}_ns_least"] <= median).all()
        assert (median <= rows[f"{what}_ns_most"]).all()
        busy = median > 0
        assert np.isnan(rate[~busy]).all()
        np.testing.assert_allclose(rate[busy], PAGE * 1e9 / median[busy])
    np.testing.assert_allclose(rows["cpu_seconds_per_gib"], (rows["encode_ns"] + rows["decode_ns"]) * 2**18 / 1e9)
    slower = np.fmin(rows["encode_rate"], rows["decode_rate"])
    np.testing.assert_allclose(rows["break_even"], np.where(rows["ratio"] < 1, slower, slower * 0))


def test_a_codec_pays_below_its_break_even_and_not_above():
    found = sw.codecs.bakeoff(page_sets.text(SIZE), ["raw", "lz4", "zstd"], **ONCE)
    for codec in ("lz4", "zstd"):
        even = float(found.row(codec).break_even)
        assert found.rates(0.9 * even)[codec] > found.rates(0.9 * even)["raw"]
        assert found.rates(1.1 * even)[codec] < found.rates(1.1 * even)["raw"]
        # Two channels have two encoders.
        assert found.rates(1.1 * even, channels=2)[codec] > found.rates(1.1 * even, channels=2)["raw"]
    assert found.best("1kB/s") == "zstd"
    assert found.best("1TB/s") == "raw"
    with pytest.raises(sw.UsageError, match="above 0"):
        found.best(0)


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_migrations_go_as_the_table_says(codec):
    """Compression pays iff the codec is faster than the link: the sign of the gain, well away from where it turns."""
    size = 4 << 20
    contents = page_sets.text(size)[0]
    even = float(sw.codecs.bakeoff(contents, codec).row(codec).break_even)

    def seconds(codec, link):
        with sw.Guest(size, sw.workloads.Idle(rate=4096), seed=1, fill="zero") as guest:
            guest.memory[:] = np.frombuffer(contents, dtype=np.uint8)
            report = sw.migrate(guest, sw.StopAndCopy(codec=codec), link=link, warm_up="1ms")
        report.raise_for_outcome()
        return report.total_time - report.data["setup_time"]

    def gain(link):
        """Of the best of three in turns: other work on the machine only lengthens."""
        turns = [(seconds("zero", link), seconds(codec, link)) for _ in range(3)]
        plain, coded = (min(column) for column in zip(*turns, strict=True))
        return plain / coded

    slow, fast = sw.Link(even / 8), sw.Link(even * 8)
    assert gain(slow) > 1.2, f"{codec} pays up to {even:.3g} B/s, and did not at an eighth"
    assert gain(fast) < 0.8, f"{codec} pays up to {even:.3g} B/s, and did at eight times that"


def test_a_process_is_read_while_it_runs():
    program = (
        "import time; text = (b'some text, ' * 400)[:4096]; memory = bytearray(text * 512); print(flush=True)\n"
        "while True:\n"
        "    for at in range(0, len(memory), 4096): memory[at] = (memory[at] + 1) % 256\n"
        "    time.sleep(0.001)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child:
        try:
            child.stdout.readline()
            found = sw.codecs.bakeoff(child.pid, ["raw", "xbzrle", "zstd"], rounds=2, **ONCE)
        finally:
            child.kill()
    assert found.facts["pages"] >= 512
    assert found.row("zstd").ratio < 0.9
    again = found.row("xbzrle", "again")
    assert again.pages >= 512
    assert again.bytes_per_page < 200


def test_a_large_memory_is_sampled(tmp_path):
    image = tmp_path / "image"
    image.write_bytes(b"".join(bytes([number % 251 + 1]) * PAGE for number in range(2000)))
    found = sw.codecs.bakeoff(image, ["raw", "dedup"], memory="1MiB", **ONCE)
    assert found.facts == {"memory_pages": 2000, "pages": 256, "versions": 256, "zero_pages": 0, "rounds": 1}
    # A file of 2^50 bytes, all of it a hole.
    with image.open("wb") as file:
        os.truncate(file.fileno(), 1 << 40)
    found = sw.codecs.bakeoff(image, ["zero"], memory="1MiB", **ONCE)
    assert (found.facts["zero_pages"], found.row("zero").bytes) == (256, 0)
    assert found.rates("1Gbit/s")["zero"] > 125e6


def test_caches_keep_within_their_budget():
    versions = page_sets.store(4 << 20)
    for cache in (64 << 10, 1 << 20, 64 << 20):
        found = sw.codecs.bakeoff(versions, [f"xbzrle:cache={cache}", f"dedup:window={cache}"], passes=1)
        assert all(detail["held_bytes"] <= cache for detail in found.details.values())
        if cache < 1 << 20:
            assert found.row(f"xbzrle:cache={cache}", "again").hit_rate < 0.05


def test_adaptive_takes_part_where_there_is_a_link():
    found = sw.codecs.bakeoff(page_sets.text(SIZE), link="100Mbit/s", **ONCE)
    assert "adaptive" in found.choices
    assert sum(found.choices["adaptive"].values()) == SIZE // PAGE
    assert "adaptive" not in sw.codecs.bakeoff(page_sets.text(SIZE), **ONCE).details


def test_parts_and_texts_name_codecs():
    found = sw.codecs.bakeoff(page_sets.text(SIZE), [sw.codecs.Zstd(level=3), "zstd:level=3"], **ONCE)
    assert list(found.details) == ["zstd:level=3"]
    with pytest.raises(sw.UsageError, match="no figures of 'lz4'"):
        found.row("lz4")
    with pytest.raises(sw.UsageError, match="'again'"):
        found.row("zstd:level=3", "again")


def test_frames_and_charts():
    found = sw.codecs.bakeoff(page_sets.store(SIZE), ["raw", "xbzrle", "zstd"], passes=1)
    drawn = xml.dom.minidom.parseString(found.chart("again", "a < b"))
    assert len(drawn.getElementsByTagName("polyline")) == 3
    pandas = pytest.importorskip("pandas")
    assert isinstance(found.to_frame(), pandas.DataFrame)


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ("/nonexistent", {}, "No such file"),
        ("/proc", {}, "not a plain file"),
        (2**40, {}, "no process"),
        (-3, {}, "no process"),
        ([], {}, "no version"),
        (b"", {}, "no page"),
        (b"x" * 5000, {}, "beyond whole pages"),
        ([b"x" * PAGE, "file"], {}, "all files or all bytes"),
        (bytes(PAGE), {"passes": 0}, "passes"),
        (bytes(PAGE), {"memory": 0}, "pages to take"),
        (bytes(PAGE), {"memory": "1TiB"}, "8 GiB"),
        (bytes(PAGE), {"compared": []}, "needs a codec"),
        (bytes(PAGE), {"compared": ["gzip"]}, "no codec is called `gzip`"),
        (bytes(PAGE), {"link": "fast"}, "fast"),
    ],
)
def test_what_cannot_be_is_refused(source, options, said):
    with pytest.raises(sw.UsageError, match=said):
        sw.codecs.bakeoff(source, **options)


def test_looks_that_cannot_be_are_refused():
    for options, said in (({"rounds": 1000}, "from 1 to 64 versions"), ({"interval": -1}, "interval")):
        with pytest.raises(sw.UsageError, match=said):
            sw.codecs.bakeoff(os.getpid(), **options)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(min_size=0, max_size=64), min_size=1, max_size=6), st.integers(1, 3))
def test_any_bytes_come_back_whole(seeds, versions):
    """The engine compares every page that it decodes, whatever is in it."""
    memory = b"".join((seed * (PAGE // max(1, len(seed)) + 1) + bytes(PAGE))[:PAGE] for seed in seeds)
    shifted = [memory[-7 * turn :] + memory[: -7 * turn] if turn else memory for turn in range(versions)]
    found = sw.codecs.bakeoff(shifted, passes=1)
    assert found.row("raw").bytes == len(memory)


def test_the_command_says_who_wins(tmp_path):
    images = [tmp_path / str(index) for index in range(2)]
    for image, version in zip(images, page_sets.store(SIZE), strict=False):
        image.write_bytes(version)
    chart = tmp_path / "chart.svg"
    done = call(*map(str, images), "--link", "100Mbit/s", "--passes", "1", "--chart", str(chart))
    assert "pages that came again, changed" in done.stdout
    assert " wins, " in done.stdout.splitlines()[-1]
    assert "adaptive chose" in done.stdout
    assert chart.exists()
    assert (tmp_path / "chart-again.svg").exists()
    found = json.loads(call(*map(str, images), "-c", "raw", "-c", "zstd", "-l", "100Mbit/s", "--json").stdout)
    assert found["winner"] == {"first": "zstd", "again": "zstd"}
    assert set(found["codecs"]) == {"raw", "zstd"}


def test_the_command_takes_a_workload_and_a_process():
    done = call("-w", "sweep:rate=20MB/s", "-m", "2MiB", "--interval", "10ms", "--passes", "1", "-c", "lz4", "--alone")
    assert "512 pages, 2 MiB of 2 MiB in use" in done.stdout
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        found = json.loads(call(str(child.pid), "--rounds", "1", "--passes", "1", "-c", "zero", "--json").stdout)
        child.stdin.close()
    assert found["pages"]["rounds"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["/nonexistent"], "/nonexistent"),
        (["999999999"], "no process"),
        (["--link", "1Gbit/s"], "say what to take pages from"),
        (["1", "-w", "sweep"], "one place"),
        (["1", "--stream", "x"], "one place"),
        (["--stream", "/nonexistent"], "/nonexistent"),
        (["-w", "sweep", "-l", "0.5ms"], "0.5ms"),
        (["-w", "sweep", "-l", ",0.5ms"], "bandwidth above 0"),
        (["-w", "sweep", "--chart", "/nonexistent/chart.svg"], "folder does not exist"),
        (["-w", "zipp"], "did you mean `zipf`"),
    ],
)
def test_bad_input_is_one_line(arguments, said):
    done = call(*arguments, code=2)
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_stream_is_no_image(tmp_path):
    stream = tmp_path / "vm.mig"
    stream.write_bytes(b"QEVM" + bytes(8192))
    assert "--stream" in call(str(stream), code=2).stderr


def test_a_captured_stream_is_baked(captured):
    capture = captured("xbzrle", "10.0")
    found = sw.codecs.bakeoff(sw.stream.open(capture.paths()), ["raw", "zero", "xbzrle", "zstd"], passes=1)
    sent = sum(each.counts.pages for each in sw.stream.open(capture.paths()).blocks)
    # All that was sent, for the guest is smaller than what is taken.
    assert found.facts["versions"] == sent
    assert found.facts["rounds"] > 1
    again = found.row("xbzrle", "again")
    assert again.hit_rate > 0.5
    assert again.bytes_per_page < found.row("zstd", "again").bytes_per_page
    call("--stream", str(capture.main), "-m", "1MiB", "-c", "zstd", "--passes", "1")


def test_a_stream_that_is_cut_or_is_none_says_where(captured, tmp_path):
    file = tmp_path / "cut.mig"
    file.write_bytes(captured("plain", "10.0").main.read_bytes()[:100_000])
    with pytest.raises(sw.StreamError, match="at byte"):
        sw.codecs.bakeoff(sw.stream.open(file), ["raw"], passes=1)
    assert "at byte" in call("--stream", str(file), code=2).stderr


def test_a_linux_guest_is_baked():
    versions = page_sets.linux_guest()
    found = sw.codecs.bakeoff(versions, ["zero", "zstd", "xbzrle"], memory="16MiB", passes=1)
    # Most of a small guest's memory is empty, and much of the rest is text and programs.
    assert 0.2 < found.row("zero").ratio < 0.95
    assert found.row("zstd").ratio < 0.8 * found.row("zero").ratio
    assert found.row("xbzrle", "again").hit_rate > 0.5
