"""Write the screenshots of docs/studio.md: drawn leaves on their way through the studio.

    python docs/make_studio_images.py

Draws images of leaves, opens them in ``kindsight studio``, and photographs each step of the page
in headless Chromium.
"""

from __future__ import annotations

import base64
import io
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageFilter

from kindsight.export.web.chromium import Chromium, find_browser

sys.path.append(str(Path(__file__).parents[1] / "tests" / "browser"))
from studio_browser import SHIFT, StudioPage, StudioServer

FOLDER = Path(__file__).parent / "images"
KINDS = ("birch", "maple", "willow")
COUNT = 44
QUALITY = 88

Line = list[tuple[float, float]]


def draw_leaf(kind: str, seed: int) -> Image.Image:
    """Return a drawn leaf on paper, 240 x 320 pixels."""
    random = np.random.default_rng([seed, KINDS.index(kind)])
    height, width, scale = 480, 640, random.uniform(150, 200)
    shade = np.linspace(0, 1, width)[None] * np.linspace(1, 0.3, height)[:, None]
    paper = np.array((238, 234, 225)) * random.uniform(0.84, 1.04)
    canvas = np.clip(
        paper - 26 * shade[..., None] + random.normal(0, 2.5, (height, width, 1)), 0, 255
    )
    canvas = np.ascontiguousarray(canvas.astype(np.uint8))
    centre = np.array([width / 2, height / 2]) + random.uniform(-45, 45, 2)
    turn = random.uniform(-1.1, 1.1) + (np.pi if random.random() < 0.3 else 0)
    axes = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])

    def place(points: np.ndarray, shift: float = 0) -> np.ndarray:
        return (centre + scale * np.asarray(points) @ axes + shift).round().astype(np.int32)

    colour = np.array(random.uniform((70, 110, 30), (130, 165, 70)))
    if random.random() < 0.35:  # autumn
        colour = np.array(random.uniform((170, 95, 25), (225, 165, 60)))
    dark = tuple(map(float, 0.68 * colour))
    outline, veins = _shape(kind, random)
    shadow = canvas.copy()
    cv2.fillPoly(shadow, [place(outline, 9)], tuple(map(float, 0.72 * paper)))
    canvas = cv2.addWeighted(cv2.GaussianBlur(shadow, (0, 0), 7), 0.75, canvas, 0.25, 0)
    cv2.fillPoly(canvas, [place(outline)], tuple(map(float, colour)), cv2.LINE_AA)
    inside, veined = np.zeros((height, width), np.uint8), canvas.copy()
    cv2.fillPoly(inside, [place(0.97 * outline)], 1)
    for vein in veins:
        cv2.polylines(veined, [place(vein)], False, dark, 3, cv2.LINE_AA)
    canvas[inside > 0] = veined[inside > 0]
    cv2.polylines(canvas, [place([(0.9, 0), (1.35, 0.06)])], False, dark, 6, cv2.LINE_AA)
    return Image.fromarray(canvas).resize((width // 2, height // 2), Image.Resampling.LANCZOS)


def _shape(kind: str, random: np.random.Generator) -> tuple[np.ndarray, list[Line]]:
    """Return a leaf's outline, stalk to the right, and its veins."""
    angle = np.linspace(0, 2 * np.pi, 240)
    if kind == "maple":
        radius = 0.62 + 0.3 * np.abs(np.cos(2.5 * angle)) ** 1.6 + 0.035 * np.cos(25 * angle)
        outline = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
        ends = [np.pi + step * 2 * np.pi / 5 for step in (-2, -1, 0, 1, 2)]
        veins = [[(0.55, 0.0), (0.75 * np.cos(end), 0.75 * np.sin(end))] for end in ends]
        return outline, veins
    broad = random.uniform(0.5, 0.62) if kind == "birch" else random.uniform(0.15, 0.2)
    along = np.cos(angle)
    across = broad * np.sin(angle) * (1 + 0.35 * along) * np.abs(np.sin(angle)) ** 0.25
    teeth = 0.025 if kind == "birch" else 0.0
    outline = np.stack([along, across * (1 + teeth * np.sin(60 * angle))], 1)
    veins = [[(0.95, 0.0), (-0.9, 0.0)]]
    for start in np.linspace(-0.55, 0.6, 6):
        for side in (-1, 1):
            veins.append([(start, 0.0), (start - 0.28, side * broad * 0.72)])
    return outline, veins


def write_leaves(folder: Path) -> None:
    """Write class folders; in them are a copy, a blurred image and a wrong label."""
    for kind in KINDS:
        (folder / kind).mkdir(parents=True)
        for seed in range(COUNT):
            draw_leaf(kind, seed).save(folder / kind / f"{kind} {seed:02d}.jpg", quality=92)
    draw_leaf("birch", 3).save(folder / "birch" / "birch 03 by mail.jpg", quality=60)
    blurred = draw_leaf("maple", 90).filter(ImageFilter.GaussianBlur(9))
    blurred.save(folder / "maple" / "out of focus.jpg")
    draw_leaf("willow", 91).save(folder / "birch" / "birch 91.jpg", quality=92)


def photograph(page: StudioPage, name: str) -> None:
    """Write a screenshot of the window."""
    page.chromium.evaluate("new Promise((done) => setTimeout(done, 700))")
    data = page.chromium.call("Page.captureScreenshot", format="png")["data"]
    image = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
    image.save(FOLDER / f"studio-{name}.webp", "WEBP", quality=QUALITY, method=6)
    print(FOLDER / f"studio-{name}.webp")


def walk(page: StudioPage, leaves: Path) -> None:
    """Go through all steps."""
    page.choose("#directory", leaves)
    page.wait("document.querySelector('dialog[open]') !== null")
    photograph(page, "folder")
    page.click("Use as classes")
    page.wait("store.images.ids.length > 100 && store.upload == null")
    page.settle()
    page.wait("document.querySelectorAll('.thumb img').length > 15")
    page.chromium.evaluate("document.querySelector('.grid').focus()")
    page.key("Home")
    for _ in range(3):
        page.key("ArrowRight", SHIFT)
    photograph(page, "images")
    page.key("Escape")
    page.go("check")
    page.click("Check thoroughly")
    page.wait("store.jobs[0]?.state === 'done' && store.findings.checked !== null", 300)
    page.wait("document.querySelectorAll('.case .thumb img').length > 3")
    page.chromium.evaluate("scrollTo(0, 700)")
    photograph(page, "check")
    page.go("train")
    page.click("Train")
    page.wait("store.jobs[0]?.kind === 'train' && store.jobs[0]?.state === 'done'", 300)
    page.wait("document.querySelector('.headline') !== null")
    photograph(page, "train")
    page.go("mistakes")
    page.wait("document.querySelector('.matrix') !== null")
    photograph(page, "mistakes")
    page.go("try")
    draw_leaf("maple", 700).save(leaves.parent / "from the park.jpg", quality=92)
    page.choose("#try-file", leaves.parent / "from the park.jpg")
    page.wait("document.querySelectorAll('.bars li').length === 3")
    page.click("Heat map")
    page.wait("document.querySelector('.heat')?.naturalWidth > 0")
    photograph(page, "try")
    page.go("export")
    page.wait("document.querySelectorAll('.formats input').length > 5")
    page.click("Export")
    page.wait("store.jobs[0]?.kind === 'export' && store.jobs[0]?.state === 'done'", 300)
    page.wait("document.querySelector('.proof') !== null")
    page.chromium.evaluate("scrollTo(0, 1e5)")
    photograph(page, "export")
    page.go("images")
    page.view(390, dark=True, height=844)
    page.wait("document.querySelectorAll('.thumb img').length > 3")
    photograph(page, "phone")


def main() -> None:
    """Write all screenshots."""
    browser = find_browser()
    if browser is None:
        raise SystemExit("Chromium is not installed.")
    with tempfile.TemporaryDirectory(prefix="kindsight-studio-") as name:
        write_leaves(Path(name) / "leaves")
        server = StudioServer(Path(name) / "Leaves of the park")
        chromium = Chromium(browser, network=True)
        try:
            walk(StudioPage(chromium, server.address), Path(name) / "leaves")
        finally:
            chromium.close()
            server.close()


if __name__ == "__main__":
    main()
