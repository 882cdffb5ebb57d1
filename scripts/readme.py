"""Writes the demo's real output into the README, between its marks, and draws the picture of one of its runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import switchover as sw

ROOT = Path(__file__).parent.parent
DRAWN = "6-storm-pre-copy-dirty-limit-50-ms.json"
PICTURE = ROOT / "docs" / "charts" / "storm.svg"


def main() -> None:
    """Runs the demo, replaces what stands between the marks, and draws."""
    command = [sys.executable, "-m", "switchover", "demo", "--reports", str(ROOT / "reports")]
    wide = os.environ | {"COLUMNS": "142"}
    output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=wide).stdout
    # The rounds of the last run, and the table.
    lines = output.splitlines()
    start = max(i for i, line in enumerate(lines) if " over " in line and line.endswith("/s"))
    shown = "\n".join(line.rstrip() for line in lines[start:] if not line.startswith("The reports"))
    readme = ROOT / "README.md"
    block = f"<!-- demo -->\n```text\n{shown}\n```\n<!-- /demo -->"
    text = re.sub(r"<!-- demo -->.*?<!-- /demo -->", lambda _: block, readme.read_text(), flags=re.DOTALL)
    readme.write_text(text)
    sw.Report.from_json((ROOT / "reports" / DRAWN).read_text()).plot(PICTURE)


if __name__ == "__main__":
    main()
