"""Examples in README and docs run as they are printed, and tables name every part."""

import re
import shutil
from pathlib import Path

import pytest
import switchover as sw

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_examples(page, tmp_path, monkeypatch, request):
    """All Python blocks of a page in order, in one namespace. Where they read vm.mig, a real QEMU writes it."""
    monkeypatch.chdir(tmp_path)
    if '"vm.mig"' in page.read_text():
        shutil.copy(request.getfixturevalue("captured")("plain", "10.0").main, "vm.mig")
    space = {"__name__": "example"}
    for block in BLOCK.findall(page.read_text()):
        exec(compile(block, str(page), "exec"), space)


@pytest.mark.parametrize("kind", ["workloads", "policies", "strategies", "codecs", "trackers"])
def test_each_kind_has_a_page_that_names_every_part(kind):
    page = (ROOT / "docs" / f"{kind}.md").read_text()
    missing = [name for name in getattr(sw, kind).names() if f"`{name}`" not in page]
    assert not missing


def test_prepaging_orders_are_on_the_page_of_strategies():
    page = (ROOT / "docs" / "strategies.md").read_text()
    assert not [name for name in sw.prepaging.names() if f"`{name}`" not in page]


def test_the_reference_has_every_public_name():
    """By what each name is defined as: the site has a heading for it."""
    pages = "".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    shown = re.findall(r"^::: (.*)$", pages, re.MULTILINE)
    public = {name: getattr(sw, name) for name in sw.__all__ if name != "__version__"}
    homes = {name: f"{getattr(it, '__module__', None) or it.__name__}" for name, it in public.items()}
    missing = [
        name
        for name, home in homes.items()
        if not any(
            home == place or f"{home}.{name}".startswith(f"{place}.") or place == f"{home}.{name}" for place in shown
        )
    ]
    assert not missing
    assert "switchover.testing" in shown


def test_every_page_is_in_the_site():
    """What is not in the menu is found by nobody."""
    menu = (ROOT / "mkdocs.yml").read_text()
    assert not [page for page in (ROOT / "docs").glob("**/*.md") if str(page.relative_to(ROOT / "docs")) not in menu]
