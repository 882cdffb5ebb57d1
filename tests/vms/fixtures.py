"""Fixtures over captures; `conftest.py` takes them in."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from vms.capture import Capture, cached
from vms.installed import Qemu, require

# Where captures are kept: all workers of one run share them. Set by hand, they outlive the run.
HOME = "SWITCHOVER_CAPTURES"
made_here = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    if HOME not in os.environ:
        os.environ[HOME] = tempfile.mkdtemp(prefix="switchover-captures-")
        config.stash[made_here] = os.environ[HOME]


def pytest_unconfigure(config: pytest.Config) -> None:
    if made_here in config.stash:
        os.environ.pop(HOME)
        shutil.rmtree(config.stash[made_here], ignore_errors=True)


@pytest.fixture(scope="session")
def captured() -> Callable[[str, str], Capture]:
    """The capture of a kind by a QEMU release: `captured("xbzrle", "10.0")`."""
    return lambda kind, release: cached(kind, require(release), Path(os.environ[HOME]))


@pytest.fixture(params=["7.2", "10.0"])
def qemu(request: pytest.FixtureRequest) -> Qemu:
    """Each of the QEMUs, one after the other."""
    return require(request.param)
