"""Write the screenshot of docs/serve.md: drawn leaves on the page of ``kindsight serve``.

    python docs/make_serve_image.py

Draws images of leaves, trains on some of them, and photographs the page in headless Chromium.
"""

from __future__ import annotations

import base64
import io
import sys
import tempfile
from pathlib import Path

from make_studio_images import COUNT, KINDS, draw_leaf, write_leaves
from PIL import Image

from kindsight.export.web.chromium import Chromium, find_browser
from kindsight.runs.train import TrainSettings, train

sys.path += [str(Path(__file__).parents[1] / "tests" / each) for each in ("", "browser")]
from driven_page import view
from test_served_page import choose, load, until

from running_server import RunningServer, serving

FILE = Path(__file__).parent / "images" / "serve-page.webp"
QUALITY = 85


def photograph(chromium: Chromium, server: RunningServer, images: list[Path]) -> None:
    """Classify images, show the heat map of one, and write what the window shows."""
    view(chromium, 1280, still=True)
    load(chromium, server)
    choose(chromium, images)
    chromium.evaluate("document.querySelectorAll('.card')[1].click()")
    chromium.evaluate("document.getElementById('heat').click()")
    until(chromium, "!document.getElementById('map').hidden")
    chromium.evaluate("scrollTo(0, 0)")
    chromium.evaluate("new Promise((done) => setTimeout(done, 500))")
    data = chromium.call("Page.captureScreenshot", format="png")["data"]
    image = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
    image.save(FILE, "WEBP", quality=QUALITY, method=6)


def main() -> None:
    """Write the screenshot."""
    browser = find_browser()
    if browser is None:
        sys.exit("Needs Chromium.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_leaves(folder / "leaves")
        result = train(TrainSettings(str(folder / "leaves"), runs=str(folder / "runs"), size=64))
        images = []
        for number in range(12):
            kind = KINDS[number % len(KINDS)]
            images.append(folder / f"garden {number + 1}.jpg")
            draw_leaf(kind, 3 * COUNT + number).save(images[-1], quality=92)
        with serving(result.run) as server:
            chromium = Chromium(browser, network=True)
            try:
                photograph(chromium, server, images)
            finally:
                chromium.close()
    print(FILE)


if __name__ == "__main__":
    main()
