"""Draw docs/images/checks/, the images of the checks' pages, from the examples.

Run it after changing an example: ``python docs/make_check_examples.py``. Tests compare the findings
of each check with its example, and the example with its page and image.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

DOCS = Path(__file__).parent
FOLDER = DOCS / "images" / "checks"

TILE = (132, 176)
"""Height and width of a tile; images are resized to fit, tiny ones at most doubled."""

GAP, MARGIN, LINE = 16, 14, 15
COLUMNS = 4
PAPER, INK, FAINT, BED, RING = "#ffffff", "#1c2024", "#69717a", "#eceff1", "#c62828"
QUALITY = 72


def sheet(example: object) -> Image.Image:
    """Draw the images of an example side by side, findings outlined, names below."""
    shown = list(example.shown or example.files)
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    high = TILE[0] + 2 * LINE + GAP + 8
    size = (2 * MARGIN + columns * (TILE[1] + GAP) - GAP, 2 * MARGIN + rows * high - GAP)
    image = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(image)
    for index, name in enumerate(shown):
        row, column = divmod(index, columns)
        left, top = MARGIN + column * (TILE[1] + GAP), MARGIN + row * high
        _tile(image, draw, example, name, (left, top))
    return image


def _tile(
    image: Image.Image, draw: ImageDraw.ImageDraw, example: object, name: str, at: tuple[int, int]
) -> None:
    left, top = at
    draw.rectangle((left, top, left + TILE[1] - 1, top + TILE[0] - 1), BED)
    note = example.notes.get(name, "")
    face = example.faces.get(name)
    pixels = face if face is not None else _pixels(example.files[name])
    if pixels is None:
        words = "\n".join(textwrap.wrap(note, 20))
        middle = (left + TILE[1] // 2, top + TILE[0] // 2)
        draw.multiline_text(middle, words, FAINT, _font(13), "mm", align="center")
        note = ""
    else:
        drawn = _fitted(pixels)
        position = (left + (TILE[1] - drawn.width) // 2, top + (TILE[0] - drawn.height) // 2)
        image.paste(drawn, position)
    found = _is_found(example, name)
    if found:
        ring = (left - 4, top - 4, left + TILE[1] + 3, top + TILE[0] + 3)
        draw.rectangle(ring, outline=RING, width=3)
    below = top + TILE[0] + 8
    draw.text((left, below), name, RING if found else INK, _font(12))
    draw.text((left, below + LINE), note, FAINT, _font(11))


def _is_found(example: object, name: str) -> bool:
    """Return whether a file, or one of its folders, is a finding."""
    return name in example.found or any(folder in example.found for folder in name.split("/")[:-1])


def _fitted(pixels: np.ndarray) -> Image.Image:
    image = Image.fromarray(pixels)
    scale = min(TILE[1] / image.width, TILE[0] / image.height)
    if min(image.size) < 24:  # keep icons small
        scale = min(scale, 2)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def _pixels(data: bytes) -> np.ndarray | None:
    from kindsight.errors import ImageError
    from kindsight.images import read_image

    try:
        return read_image(data)
    except ImageError:
        return None


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def main() -> None:
    """Draw the images of all checks."""
    sys.path.insert(0, str(DOCS))
    from check_examples import EXAMPLES

    FOLDER.mkdir(parents=True, exist_ok=True)
    for code, make in EXAMPLES.items():
        sheet(make()).save(FOLDER / f"{code}.webp", "WEBP", quality=QUALITY, method=6)


if __name__ == "__main__":
    main()
