"""The studies run from end to end in a small setting, and their pages are what they say they are."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "studies"
STUDIES = ("clear-disciplines", "compression", "kubevirt-stall", "not-converging")


def command(study: str) -> Path:
    return ROOT / "benches" / "studies" / f"{study.replace('-', '_')}.py"


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_runs(study):
    done = subprocess.run(
        [sys.executable, command(study), "--quick"], check=False, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stderr
    table = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(table) > 2
    assert "nan" not in done.stdout


@pytest.mark.parametrize("study", STUDIES)
def test_a_page_says_how_it_was_made_and_has_its_data(study):
    text = (PAGES / f"{study}.md").read_text()
    for part in ("**Question.**", "**Answer.**", "**Data.**", "**Method.**", "**What would change it.**"):
        assert part in text
    assert f"python {command(study).relative_to(ROOT)}" in text
    measured = re.search(r"<!-- measured -->\n(.*)<!-- /measured -->", text, re.DOTALL)
    assert measured
    assert measured[1].count("\n| ") > 5
    assert (PAGES / "data" / f"{study}.csv").read_text().count("\n") > 50


def test_each_study_is_listed_and_made_by_one_command():
    index, rules = (PAGES / "index.md").read_text(), (ROOT / "Makefile").read_text()
    assert not [study for study in STUDIES if f"({study}.md)" not in index or command(study).name not in rules]
