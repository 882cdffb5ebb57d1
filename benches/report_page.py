"""The page of a comparison of fifty cases: its size, and how long Chromium takes to draw it.

``python benches/report_page.py [REPEATS]``. Drawn means: from the navigation's start until every chart in sight has
been painted; and, after it, until all charts of the page are, unfolded one after the other. The targets are 8 MB, 2 s.
"""

from __future__ import annotations

import json
import queue
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import switchover as sw
from switchover.comparison import Run, Table

PROBE = """<script>addEventListener("load", () => {
  const drawn = () => [...document.querySelectorAll(".chart")].filter((place) => place.dataset.drawn).length;
  const painted = (then) => requestAnimationFrame(() => setTimeout(then, 0));
  const settled = (before, then) => painted(() => drawn() === before ? then() : settled(drawn(), then));
  settled(-1, () => {
    const told = { first: performance.now() / 1e3, charts: drawn() };
    const folds = [...document.querySelectorAll("details")], began = performance.now();
    const next = () => {
      const fold = folds.shift();
      if (!fold) {
        told.all = (performance.now() - began) / 1e3; told.every = drawn();
        fetch("/", { method: "POST", body: JSON.stringify(told) }); return;
      }
      fold.open = true; fold.scrollIntoView(); settled(-1, next);
    };
    next();
  });
});</script>"""


def page(folder: Path) -> Path:
    """Fifty cases: one in memory and one in the simulator, twenty-five times under other names."""
    guest = {"memory": "64MiB", "workload": sw.workloads.HotCold(rate="30MB/s"), "seed": 5}
    runs = sw.compare(guest, "pre-copy", "400Mbit/s", policies="max-rounds:8").runs
    copies = [
        Run({**run.data, "case": f"{copy} {run.case}", "names": {**run.names, "policy": str(copy)}})
        for copy in range(25)
        for run in runs
    ]
    Table(copies).to_html(folder / "fifty.html")
    return folder / "fifty.html"


class Host(ThreadingHTTPServer):
    """Gives the page with its probe to a browser, and hears what that has to tell."""

    def __init__(self, page: str) -> None:
        super().__init__(("127.0.0.1", 0), Visit)
        # The page forbids itself every connection; the probe's is to say what it saw.
        heard = page.replace("default-src 'none'", "default-src 'none'; connect-src 'self'")
        self.page, self.told = heard.replace("</body>", f"{PROBE}</body>").encode(), queue.Queue()


class Visit(BaseHTTPRequestHandler):
    """One request."""

    server: Host

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(self.server.page)))
        self.end_headers()
        self.wfile.write(self.server.page)

    def do_POST(self) -> None:
        self.server.told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def drawn(chromium: str, host: Host) -> dict[str, float]:
    """Seconds, and charts, as the page itself tells."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,3000",
            f"--user-data-dir={profile}", "--remote-debugging-port=0",
        ]  # fmt: skip
        quiet = subprocess.DEVNULL
        browser = subprocess.Popen(
            [chromium, *options, f"http://127.0.0.1:{host.server_port}/"], stdout=quiet, stderr=quiet
        )
        try:
            return host.told.get(timeout=120)
        finally:
            browser.kill()
            browser.wait()


def main(repeats: int = 7) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("no chromium to draw with: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        written = page(Path(folder))
        size, host = written.stat().st_size / 1e6, Host(written.read_text())
        threading.Thread(target=host.serve_forever, daemon=True).start()
        told = [drawn(chromium, host) for _ in range(repeats)]
    print(f"size: {size:.1f} MB (target 8)")
    for name, charts, what in (("first", "charts", "in sight at first"), ("all", "every", "of all runs, unfolded")):
        times = sorted(each[name] for each in told)
        middle = statistics.median(times)
        print(f"{told[0][charts]:.0f} charts, {what}: {middle:.2f} s ({times[0]:.2f} to {times[-1]:.2f})")


if __name__ == "__main__":
    main(*(int(text) for text in sys.argv[1:]))
