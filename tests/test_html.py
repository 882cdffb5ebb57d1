"""Reports as HTML: what is in the file, and what a browser makes of it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
import switchover as sw
from browser import browser, look
from switchover import html, pareto
from switchover.comparison import METRICS, Run, Table


class Outline(HTMLParser):
    """Tags, references to elsewhere, and the charts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.elsewhere: list[str] = []
        self.charts: list[dict] = []
        self._in_charts = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append(tag)
        self.elsewhere += [given[name] for name in ("src", "href") if name in given]
        self._in_charts = given.get("id") == "charts"

    def handle_data(self, data):
        if self._in_charts:
            self.charts, self._in_charts = json.loads(data), False


@pytest.fixture(scope="module")
def trace() -> sw.Trace:
    return sw.Trace.generate("32MiB", sw.workloads.HotCold(rate="40MB/s"), duration="5s", seed=5)


@pytest.fixture(scope="module")
def table(trace) -> Table:
    return sw.compare(
        {"<i>store</i>": trace}, ["pre-copy", "post-copy"], "300Mbit/s", policies=["qemu-auto-converge:20ms"]
    )


@pytest.fixture(scope="module")
def page(table, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "table.html"
    table.to_html(path, "Two & two <b>")
    return path


def test_the_file_stands_alone_and_holds_every_chart(page):
    text = page.read_text()
    outline = Outline(text)
    assert outline.elsewhere == []
    assert "default-src 'none'" in text
    assert "<i>store" not in text
    assert "Two &amp; two &lt;b&gt;" in text
    # The Pareto plot; of each of two runs time, bytes and page map; of post-copy's its faults.
    assert len(outline.charts) == 8
    assert outline.tags.count("details") == 2
    assert all(metric.doc in text for metric in METRICS.values())
    for chart in outline.charts:
        for trace in chart["traces"]:
            assert len(trace["x"]) == len(trace["z"][0]) + 1 if "z" in trace else len(trace["x"]) == len(trace["y"]) > 0


def test_a_run_shows_what_happened(trace, tmp_path):
    policy = "qemu-auto-converge:limit=10ms,period=200ms"
    report = sw.simulate(trace, "pre-copy", policy, "250Mbit/s", shadow=["max-rounds:2"])
    assert any(row["throttle"] for row in report.rounds)
    report.to_html(tmp_path / "run.html", "a run")
    over_time, kinds, page_map = Outline((tmp_path / "run.html").read_text()).charts
    traces = {trace["name"]: trace for trace in over_time["traces"]}
    assert set(traces) == {"remaining", "decisions", "dirty rate", "bandwidth", "guest's speed", "throttle"}
    assert traces["remaining"]["y"][1:] == pytest.approx(report.rounds["remaining_bytes"], rel=1e-5)
    assert max(traces["throttle"]["y"]) > 0
    assert any("throttle" in text for text in traces["decisions"]["text"])
    (paused,) = [event["time"] for event in report.events if event["event"] == "paused"]
    gaps = [
        shape
        for shape in over_time["layout"]["shapes"]
        if shape["fillcolor" if "fillcolor" in shape else "type"] == "--blackout"
    ]
    assert [(gap["x0"], gap["x1"]) for gap in gaps] == [pytest.approx((paused, paused + report.blackout), rel=1e-5)]
    sent = sum(sum(trace["y"]) for trace in kinds["traces"])
    assert sent == pytest.approx(report.sent_bytes, rel=1e-4)
    (heat,) = page_map["traces"]
    # Columns are rounds: all is blue in the first, and nothing after it.
    assert heat["x"][1:] == pytest.approx(report.rounds["elapsed"], rel=1e-2)
    columns = list(zip(*heat["z"], strict=True))
    assert set(columns[0]) == {-1}
    assert min(map(min, columns[1:])) == 0 < max(columns[1]) <= 1


def test_runs_of_every_outcome_and_world_have_a_page(trace, tmp_path, guest):
    real = sw.migrate(guest, sw.PreCopy(codec="zero+lz4"), "max-rounds:2", "1Gbit/s", warm_up="5ms")
    given_up = sw.simulate(trace, "pre-copy", "max-rounds:rounds=1,then=abort", "300Mbit/s")
    moved = sw.simulate(trace, "post-copy", link="300Mbit/s,1ms")
    for number, report in enumerate((real, given_up, moved)):
        report.to_html(tmp_path / f"{number}.html")
        charts = Outline((tmp_path / f"{number}.html").read_text()).charts
        assert len(charts) == (4 if report is moved else 3)
    assert "aborted" in (tmp_path / "1.html").read_text()


def test_fifty_runs_fit_in_eight_megabytes(table, tmp_path):
    runs = [
        Run({**run.data, "case": f"{copy} {run.case}", "names": {**run.names, "policy": str(copy)}})
        for copy in range(25)
        for run in table.runs
    ]
    Table(runs).to_html(tmp_path / "fifty.html")
    assert (tmp_path / "fifty.html").stat().st_size < 8e6
    assert (tmp_path / "fifty.html").read_text().count("<details") == 50


def test_what_is_not_dominated_is_the_front():
    assert pareto.front([(1, 1), (1, 1), (2, 0), (2, 2), (float("inf"), 0)]).tolist() == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert pareto.front([]).tolist() == []


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (500, False)], ids=["wide", "dark", "phone"])
def test_a_browser_draws_it(page, width, dark):
    seen = look(page, width=width, dark=dark)
    probe = json.loads(seen.probe)
    assert seen.console == []
    assert seen.count(r'class="chart js-plotly-plot"') == seen.count("data-chart=") == 8
    assert seen.count('class="main-svg"') >= 8
    assert probe["width"] == width
    assert probe["overflow"] <= 0
    light, night = "rgb(255, 255, 255)", "rgb(18, 22, 28)"
    assert (probe["ground"], probe["other"]) == ((night, light) if dark else (light, night))
    assert probe["theme"] == ("light" if dark else "dark")


def test_the_page_needs_its_library_and_says_so(monkeypatch, trace):
    monkeypatch.setitem(__import__("sys").modules, "plotly", None)
    document = html.Document("x", [html.of_report(sw.simulate(trace), "run")])
    with pytest.raises(sw.UsageError, match=re.escape("pip install 'switchover[report]'")):
        document.render()


def test_a_run_is_an_image_for_papers(trace, tmp_path):
    browser()
    report = sw.simulate(trace, "pre-copy", "max-rounds:3", "250Mbit/s")
    report.plot(tmp_path / "run.svg")
    drawn = ElementTree.parse(tmp_path / "run.svg")
    texts = {element.text for element in drawn.iter() if element.tag.endswith("text")}
    assert {"remaining", "dirty rate", "switch over", "time since the start, s"} <= texts
    assert any(text and text.startswith("switchover, blackout") for text in texts)
    report.plot(tmp_path / "run.png")
    head = (tmp_path / "run.png").read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(head[16:20], "big") == 960
    with pytest.raises(sw.UsageError, match=r"images end in \.svg, \.png, \.pdf"):
        report.plot(tmp_path / "run.gif")


def test_a_figure_is_what_a_notebook_draws(trace):
    figure = sw.simulate(trace, "pre-copy", "max-rounds:3", "250Mbit/s").figure()
    assert {each.name for each in figure.data} >= {"remaining", "dirty rate", "bandwidth"}
    assert "text/html" in figure._repr_mimebundle_() or figure._repr_html_()
    assert not [value for value in str(figure.to_dict()).split("'") if value.startswith("--")]
