"""Optional dependencies: imported where they are used, with a line that says what to install."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from switchover.errors import UsageError


def load(module: str, extra: str) -> Any:
    """The module, or the extra of this package that brings it.

    >>> load("json", "tune").__name__
    'json'

    Raises:
        UsageError: It is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise UsageError(f"this needs {error.name}: pip install 'switchover[{extra}]'") from error
