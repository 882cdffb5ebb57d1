"""The codecs on page sets of real things: speeds as ratios, then the bake-off of each set.

``python benches/codecs.py [--size 32MiB] [--sets text,store] [--passes 5] [--linux] [--charts FOLDER] [--no-ratios]``

The ratios are those of `cargo bench --bench page_sets`: zero detection to streaming reads, lz4 and zstd to the bare
libraries, XBZRLE to comparing the pages and to our scalar version. `--linux` adds the RAM of a Linux guest, where QEMU
is.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import page_sets  # noqa: E402
import switchover as sw  # noqa: E402
from switchover.bakeoff import BakeOff  # noqa: E402
from switchover.cli.codecs import report  # noqa: E402


def ratios(sets: dict[str, list[bytes]]) -> None:
    """Has the core measure, on images of the sets."""
    command = ["cargo", "bench", "--quiet", "-p", "migrate_core", "--features", "testing", "--bench", "page_sets", "--"]
    with tempfile.TemporaryDirectory(prefix="sw-sets-") as folder:
        for name, versions in sets.items():
            images = [Path(folder) / f"{name}-{index}" for index in range(min(2, len(versions)))]
            for image, version in zip(images, versions, strict=False):
                image.write_bytes(version)
            command.append(f"{name}={','.join(map(str, images))}")
        subprocess.run(command, cwd=ROOT, check=True)


def chart(found: BakeOff, name: str, folder: Path) -> None:
    """Writes the charts of a set."""
    for part in found.parts:
        title = f"{name}: pages sent {'first' if part == 'first' else 'again'}, times as fast as raw"
        (folder / f"{name}-{part}.svg").write_text(found.chart(part, title))


def main() -> int:
    """Prints everything."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--size", default="32MiB")
    options.add_argument("--sets", default=",".join(page_sets.SETS))
    options.add_argument("--passes", type=int, default=5)
    options.add_argument("--linux", action="store_true")
    options.add_argument("--charts", type=Path)
    options.add_argument("--no-ratios", action="store_true")
    given = options.parse_args()
    size = sw.units.parse_size(given.size)
    sets = {name: page_sets.SETS[name](size) for name in given.sets.split(",") if name}
    if given.linux:
        sets["linux"] = page_sets.linux_guest()
    if not given.no_ratios:
        ratios(sets)
    for name, versions in sets.items():
        found = sw.codecs.bakeoff(versions, memory=given.size, passes=given.passes)
        print()
        report(found, name, None)
        if given.charts:
            chart(found, name, given.charts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
