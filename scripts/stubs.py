#!/usr/bin/env python3
"""Writes the types of the classes that come out of the core's registries: `switchover/_classes/*.pyi`.

Run it after a part, or a knob, was added to the core. With `--check` it only says what is stale.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "python" / "switchover" / "_classes"
MODULES = ("codecs", "contents", "policies", "strategies", "trackers", "workloads")
TYPES = {
    "bytes": "Size",
    "bytes_per_second": "Rate",
    "seconds": "Time",
    "count": "int | str",
    "ratio": "Number",
    "flag": "bool | str",
    "text": "str",
    "parts": "Any",
}
HEAD = '''"""Types of the classes of `switchover.{module}`. Written by scripts/stubs.py."""

from typing import Any

{imports}
from switchover.units import Number, Rate, Size, Time
'''


def parameter(knob: Any) -> str:
    """A knob as a parameter."""
    optional = " | None" if knob.default is None else ""
    default = knob.default if isinstance(knob.default, bool | int | float | str | None) else ...
    return f"{knob.name}: {TYPES[knob.unit]}{optional} = {'...' if default is ... else repr(default)}"


def face(part: type, base: str) -> str:
    """A class with its signature and documentation."""
    knobs = [parameter(knob) for knob in part.knobs]
    marked = [*knobs[:1], *(["*", *knobs[1:]] if knobs[1:] else [])]
    if base == "Strategy":
        marked += ([] if "*" in marked else ["*"]) + ['codec: str | Codec | None = "zero"']
    lines = [f"class {part.__name__}({base}):", '    """' + part.__doc__.replace("\n", "\n    ") + '\n    """']
    lines += [f"    def __init__({', '.join(['self', *marked])}) -> None: ..."]
    lines += [f"    {knob.name}: Any" for knob in part.knobs]
    return "\n".join(line.rstrip() for line in "\n".join(lines).splitlines())


def text(module: str) -> str:
    """The stub of a module's classes."""
    home = import_module(f"switchover.{module}")
    base = next(iter(home.registry)).__mro__[1].__name__
    imports = [f"from switchover.{module} import {base}"]
    if base == "Strategy":
        imports.insert(0, "from switchover.codecs import Codec")
    parts = [face(part, base) for part in home.registry]
    return HEAD.format(module=module, imports="\n".join(imports)) + "\n" + "\n\n".join(parts) + "\n"


def main() -> int:
    """Writes, or checks."""
    check = "--check" in sys.argv
    texts = {FOLDER / "__init__.pyi": ""} | {FOLDER / f"{module}.pyi": text(module) for module in MODULES}
    stale = [path for path, wanted in texts.items() if not path.exists() or path.read_text() != wanted]
    FOLDER.mkdir(exist_ok=True)
    for path in stale:
        sys.stdout.write(f"{path.name} {'is stale: run scripts/stubs.py' if check else 'written'}\n")
        if not check:
            path.write_text(texts[path])
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
