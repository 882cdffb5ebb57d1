"""A browser without a window, for pages that draw themselves."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

PROBE = """
<script>addEventListener("load", () => setTimeout(() => {
  const told = { width: innerWidth, overflow: document.documentElement.scrollWidth - innerWidth };
  const ground = () => getComputedStyle(document.body).backgroundColor;
  told.ground = ground();
  document.getElementById("theme").click();
  told.other = ground(); told.theme = document.documentElement.dataset.theme;
  document.querySelectorAll("details:not([open]) > summary").forEach((one) => one.click());
  // A busy machine draws late: at most half a minute.
  const left = () => document.querySelectorAll(".chart:not([data-drawn])").length;
  const tell = (times) => left() && times ? setTimeout(tell, 500, times - 1)
    : setTimeout(() => { document.body.dataset.probe = JSON.stringify(told); }, 1000);
  tell(60);
}, 4000));</script>
"""


class Seen:
    """What a page came to in the browser: its document afterwards, and what the console said."""

    def __init__(self, document: str, console: list[str]) -> None:
        self.document, self.console = document, console

    def count(self, pattern: str) -> int:
        """How often a pattern occurs in the document."""
        return len(re.findall(pattern, self.document))

    @property
    def probe(self) -> str:
        """What the probe found, as JSON."""
        found = re.search(r'data-probe="([^"]*)"', self.document)
        assert found, "the page did not come to its end"
        return found.group(1).replace("&quot;", '"')


def browser() -> str:
    """The browser's path; without one it skips the test, and fails it where CI=true."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        if os.environ.get("CI") == "true":
            pytest.fail("chromium is missing")
        pytest.skip("no chromium to look at pages with: apt-get install chromium")
    return chromium


def look(page: Path, *, width: int, dark: bool = False, height: int = 9000) -> Seen:
    """Opens a copy of the page with a probe in it, which presses its button and unfolds all."""
    chromium = browser()
    probed = page.with_name(f"probed-{width}-{dark}.html")
    probed.write_text(page.read_text().replace("</body>", f"{PROBE}</body>"))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr",
            f"--user-data-dir={profile}", f"--window-size={width},{height}", "--dump-dom",
            "--virtual-time-budget=40000",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        ]  # fmt: skip
        done = subprocess.run(
            [chromium, *options, probed.as_uri()], capture_output=True, text=True, timeout=55, check=True
        )
    return Seen(done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line])
