import json
import sys

import pytest
import switchover as sw
from conftest import QUICK


@pytest.fixture(scope="module")
def report():
    with sw.Guest("4MiB", "sweep:rate=20MB/s", seed=3) as guest:
        return sw.migrate(guest, sw.PreCopy("early"), sw.policies.MaxRounds(3), link="1Gbit/s,1ms", **QUICK)


def test_it_comes_back_out_of_its_json(report):
    again = sw.Report.from_json(report.to_json())
    assert again == report
    assert (again.rounds == report.rounds).all()
    assert again.to_json() == report.to_json()


def test_it_says_what_was_run(report):
    assert report.data["strategy"] == {"name": "pre-copy", "clear": "early", "codec": {"name": "zero"}}
    assert report.data["policy"] == {"name": "max-rounds", "rounds": 3}
    assert report.data["guest"]["seed"] == 3
    assert report.data["link"]["rtt"] == 0.001
    assert report.data["world"] == "memory"


def test_rounds_are_an_array_with_the_fields_of_a_round(report):
    assert report.rounds.dtype.names == tuple(sw.Round.__dataclass_fields__)
    assert report.rounds["sent_bytes"].sum() == pytest.approx(report.sent_bytes, rel=0.01)
    assert list(report.rounds["live"]) == [True] * 3 + [False]


def test_the_python_round_has_every_field_of_the_cores(report):
    assert set(report.data["rounds"][0]) == set(sw.Round.__dataclass_fields__)


def test_people_can_read_it(report):
    assert "completed" in repr(report)
    for word in ("outcome", "blackout", "verified", "yes"):
        assert word in str(report)
    chart = report.chart().splitlines()
    assert len(chart) == 1 + len(report.rounds) + 1
    assert "3*" in chart[-2]


def test_plot_shows_the_chart(report, capsys):
    report.plot()
    assert "sent in the blackout" in capsys.readouterr().out


def test_infinities_survive():
    round = sw.Round(expected_blackout=float("inf"), remaining_bytes=4096)
    assert sw.Round.from_json(round.to_json()) == round
    json.loads(round.to_json(), parse_constant=pytest.fail)


def test_frames_need_pandas(report, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(sw.UsageError, match=r"switchover\[frame\]"):
        report.to_frame()


@pytest.mark.parametrize("text", ["", "[]", "{}", "3", '{"schema": 99}', '{"schema": 1}', '{"schema": "1"}', "null"])
def test_what_is_no_report_is_refused(text):
    with pytest.raises(sw.UsageError, match="report"):
        sw.Report.from_json(text)
