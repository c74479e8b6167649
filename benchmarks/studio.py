"""Measure the studio's page on many images: first grid, scrolling, labelling, memory.

    python benchmarks/studio.py
    python benchmarks/studio.py --images 5000 --json studio.json

Writes --images drawn images of 160 pixels in ten class folders to a temporary folder, opens it in
`kindsight studio`, and the page in headless Chromium at 1280 x 800. Frames are the times between
two frames of the browser while the grid scrolls by `pixels a frame`, once over new images and once
back over the same ones. A thumbnail's wait is the time from the end of a jump until all visible
images are shown. Needs Chromium, and an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kindsight.export.web.chromium import Chromium, find_browser
from output import warn_if_busy
from processes import environment

CLASSES = 10
SIDE = 160
STEP = 240  # pixels a frame
FRAMES = 300

READY = """new Promise((done) => {
  const look = () => {
    const cells = document.querySelectorAll('.cell').length;
    const shown = document.querySelectorAll('.cell .thumb img').length;
    if (cells > 0 && shown >= cells) requestAnimationFrame(() => done(performance.now()));
    else setTimeout(look, 10);
  };
  look();
})"""

SCROLL = """new Promise((done) => {
  const grid = document.querySelector('.grid');
  const times = [];
  let before = null;
  const frame = (now) => {
    if (before !== null) times.push(now - before);
    before = now;
    if (times.length >= %d) done(times);
    else {
      grid.scrollTop += %d;
      requestAnimationFrame(frame);
    }
  };
  requestAnimationFrame(frame);
})"""

PRESS = """new Promise((done) => {
  const begin = performance.now();
  document.querySelector('.grid').dispatchEvent(new KeyboardEvent('keydown',
    { key: '%s', ctrlKey: %s, bubbles: true, cancelable: true }));
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - begin), 0));
})"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurement; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=50_000, help="Images. [default: 50000]")
    parser.add_argument("--json", type=Path, help="File for the figures.")
    options = parser.parse_args(arguments)
    browser = find_browser()
    if browser is None:
        parser.error("Chromium is not installed.")
    warn_if_busy()
    with tempfile.TemporaryDirectory(prefix="kindsight-studio-") as name:
        folder = Path(name) / "drawn"
        write_images(folder, options.images)
        figures = measure(browser, folder)
    figures = {"images": options.images, **figures}
    for key, value in figures.items():
        print(f"{key:52} {value:>12,}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    return 0


def write_images(folder: Path, count: int) -> None:
    """Write drawn images, all different, into class folders."""
    random = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"class {number % CLASSES}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = random.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(small).resize((SIDE, SIDE)).save(path, quality=85)


def measure(browser: str, folder: Path) -> dict[str, Any]:
    """Return the figures of a project's page."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "kindsight", "studio", folder.name, "--no-browser"]
    server = subprocess.Popen(
        [*command, "--port", "0"], cwd=folder.parent, stdout=subprocess.PIPE, encoding="utf-8",
        env={**environment(), "PYTHONUNBUFFERED": "1", "KINDSIGHT_CACHE": str(folder.parent / "c")},
        start_new_session=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        line = next(line for line in server.stdout if "http" in line)
        opened = time.perf_counter() - begin
        chromium = Chromium(browser, network=True, seconds=300)
        try:
            figures = walk(chromium, line[line.index("http") :].strip())
            figures["memory of the browser, MB"] = round(
                sum(map(resident, children(chromium._process.pid))) / 1e6
            )
        finally:
            chromium.close()
        figures["memory of the server, MB"] = round(resident(server.pid) / 1e6)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    return {"server: seconds to open the folder": round(opened, 1), **figures}


def walk(chromium: Chromium, address: str) -> dict[str, Any]:
    """Return the figures measured in the page."""
    size: dict[str, Any] = {"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    chromium.call("Emulation.setDeviceMetricsOverride", **size)
    begin = time.perf_counter()
    chromium.open(address)
    first = chromium.evaluate(READY)
    found: dict[str, Any] = {
        "page: seconds from its address to the first grid": round(time.perf_counter() - begin, 2),
        "page: the same by its own clock, ms": round(first),
    }
    for name, step in (("new images", STEP), ("the same images", -STEP)):
        times = sorted(chromium.evaluate(SCROLL % (FRAMES, step)))
        for share in (50, 95, 99):
            key = f"scrolling {name}: frame, {share}th percentile, ms"
            found[key] = round(times[min(len(times) - 1, len(times) * share // 100)], 1)
        found[f"scrolling {name}: longest frame, ms"] = round(times[-1], 1)
    waits = []
    for share in (0.2, 0.9, 0.5, 0.7):
        jump = f"((grid) => {{ grid.scrollTop = {share} * grid.scrollHeight; }})"
        begin = time.perf_counter()
        chromium.evaluate(f"{jump}(document.querySelector('.grid'))")
        chromium.evaluate(f"new Promise((done) => setTimeout(done, 30)).then(() => {READY})")
        waits.append(time.perf_counter() - begin)
    found["jump: longest wait for all thumbnails, ms"] = round(1000 * max(waits))
    found["cells in the page"] = chromium.evaluate("document.querySelectorAll('.cell').length")
    chromium.evaluate("document.querySelector('.grid').focus()")
    for name, key, control in (
        ("move to the first image", "Home", "false"), ("label it", "2", "false"),
        ("select all", "a", "true"), ("label all", "3", "false"),
    ):  # fmt: skip
        found[f"key: {name}, ms"] = round(chromium.evaluate(PRESS % (key, control)))
    begin = time.perf_counter()
    sent = "kindsight.store.waiting === 0 && kindsight.store.images.revision > 0"
    while not chromium.evaluate(sent):
        time.sleep(0.02)
    found["key: label all, until it is on disk, ms"] = round(1000 * (time.perf_counter() - begin))
    chromium.call("HeapProfiler.collectGarbage")
    heap = chromium.call("Runtime.getHeapUsage")["usedSize"]
    return {**found, "memory of the page's scripts, MB": round(heap / 1e6, 1)}


def children(process: int) -> list[int]:
    """Return a process and all of its descendants."""
    parents: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(status.parent.name))
    found = [process]
    for each in found:
        found += parents.get(each, [])
    return found


def resident(process: int) -> int:
    """Return a process's memory in bytes with its share of shared pages; 0 if it ended."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0
    lines = text.splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


if __name__ == "__main__":
    sys.exit(main())
