"""The package as a whole: documentation that runs, types that are true, names that stay."""

import ast
import doctest
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import switchover as sw

ROOT = Path(__file__).resolve().parent.parent
MODULES = ["switchover"] + [
    module.name
    for module in pkgutil.walk_packages(sw.__path__, "switchover.")
    if not module.name.startswith(("switchover._native", "switchover.cli"))
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name):
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_all_names_are_there():
    assert {name for name in sw.__all__ if not hasattr(sw, name)} == set()
    assert set(sw.__all__) <= set(dir(sw))
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = sw.nope


def test_importing_takes_nothing_along():
    code = "import sys, switchover; print([m for m in sys.modules if m in ('numpy', 'rich', 'click', 'json')])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_the_engines_stub_names_what_the_module_has():
    """`make lint` runs stubtest, which also compares signatures but takes its time."""
    from switchover import _native

    tree = ast.parse((ROOT / "python/switchover/_native.pyi").read_text())
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert set(_native.__all__) == set(classes) | functions | {"PAGE", "VERSION"}
    for name, node in classes.items():
        stubbed = {item.name for item in node.body if isinstance(item, ast.FunctionDef)} - {"__new__"}
        public = {member for member in vars(getattr(_native, name)) if not member.startswith("__")}
        assert stubbed - {"__array_interface__", "__iter__", "__next__"} == public, name


def test_the_types_of_generated_classes_are_current():
    done = subprocess.run(
        [sys.executable, "scripts/stubs.py", "--check"], check=False, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_errors_are_one_tree_with_codes():
    from switchover import errors

    catalogue = errors.catalogue()
    assert set(catalogue) == {"system", "usage", "tracker", "stream", "link", "policy", "qmp", "verification"}
    assert {error.__name__ for error in catalogue.values()} == set(errors.__all__) - {"catalogue"}
    assert all(issubclass(error, sw.SwitchoverError) and error.__doc__ for error in catalogue.values())
    assert sw.StreamError("text", 7).offset == 7
    assert str(sw.TrackerUnavailable("text", "a", "b")) == "text"
