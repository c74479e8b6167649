"""Draw "glyphs": letters and digits in many fonts, which no pretrained backbone was trained on.

Example::

    python benchmarks/glyphs.py glyphs/

writes ``train`` and ``test`` class folders: 36 classes, 20,000 and 4,000 images of 32 pixels. The
fonts are those of Matplotlib and OpenCV; test images have other fonts than training images. Each
glyph is rotated, sheared, scaled and blurred, on a noisy background, and half of the images are
inverted. The seed determines every pixel.
"""

from __future__ import annotations

import argparse
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ["CLASSES", "TEST_FONTS", "TRAIN_FONTS", "draw_glyph", "write_glyphs"]

CLASSES = string.ascii_uppercase + string.digits
SIDE = 32
TRAIN_IMAGES, TEST_IMAGES = 20_000, 4_000

TRAIN_FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSerif", "DejaVuSerif-Bold",
    "DejaVuSansMono", "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "cmr10", "cmss10",
    "cmb10", "SIMPLEX", "DUPLEX", "TRIPLEX", "SCRIPT_SIMPLEX",
)  # fmt: skip
"""Files of Matplotlib, and Hershey fonts of OpenCV in capitals."""

TEST_FONTS = (
    "DejaVuSansMono-Bold", "DejaVuSerif-Italic", "DejaVuSans-BoldOblique", "STIXGeneralBolIta",
    "cmtt10", "COMPLEX", "COMPLEX_SMALL", "PLAIN",
)  # fmt: skip
"""Fonts of the test images alone."""

# Glyphs are drawn this many times as large, then scaled down.
ENLARGED = 4


@dataclass(frozen=True)
class _GlyphParameters:
    """The random numbers of an image."""

    angle: float  # degrees
    shear: float
    scale: float  # height of the glyph in the image
    shift: tuple[float, float]  # pixels
    blur: float  # standard deviation in pixels
    noise: float  # standard deviation in grey levels
    ground: float
    ink: float

    @classmethod
    def draw(cls, random: np.random.Generator) -> _GlyphParameters:
        """Return random numbers; half of the images have a background lighter than the glyph."""
        dark, light = random.uniform(0, 90), random.uniform(150, 255)
        ground, ink = (dark, light) if random.random() < 0.5 else (light, dark)
        return cls(
            random.uniform(-20, 20), random.uniform(-0.3, 0.3), random.uniform(0.5, 0.85),
            (random.uniform(-3, 3), random.uniform(-3, 3)), random.uniform(0.3, 1.3),
            random.uniform(4, 30), ground, ink,
        )  # fmt: skip


def draw_glyph(character: str, font: str, random: np.random.Generator) -> np.ndarray:
    """Return an image of a character, uint8 (32, 32, 3)."""
    mask, look = _mask(character, font), _GlyphParameters.draw(random)
    big = SIDE * ENLARGED
    scale = look.scale * big / max(mask.shape)
    turn = np.deg2rad(look.angle)
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    linear = scale * turned @ np.array([[1, look.shear], [0, 1]])
    middle = np.array([mask.shape[1], mask.shape[0]]) / 2
    target = np.full(2, big / 2) + ENLARGED * np.array(look.shift)
    matrix = np.column_stack([linear, target - linear @ middle])
    drawn = cv2.warpAffine(mask, matrix, (big, big), flags=cv2.INTER_LINEAR)
    drawn = cv2.GaussianBlur(drawn, (0, 0), look.blur * ENLARGED)
    alpha = cv2.resize(drawn, (SIDE, SIDE), interpolation=cv2.INTER_AREA)[..., None] / 255
    tint = random.uniform(-25, 25, (2, 3))
    # A ground that changes from one side to the other, under noise.
    slope = np.linspace(-1, 1, SIDE)[:, None, None] * random.uniform(-30, 30)
    slope = slope if random.random() < 0.5 else slope.transpose(1, 0, 2)
    ground = look.ground + tint[0] + slope
    pixels = ground * (1 - alpha) + (look.ink + tint[1]) * alpha
    pixels = pixels + random.normal(0, look.noise, (SIDE, SIDE, 3))
    return np.clip(np.round(pixels), 0, 255).astype(np.uint8)


def _mask(character: str, font: str) -> np.ndarray:
    """Return a glyph in white on black, cropped to its bounding box, uint8 (height, width)."""
    canvas = np.zeros((200, 200), np.uint8)
    if font.isupper() or "_" in font:
        face = getattr(cv2, f"FONT_HERSHEY_{font}")
        cv2.putText(canvas, character, (50, 140), face, 4, 255, 8, cv2.LINE_AA)
    else:
        image = Image.fromarray(canvas)
        ImageDraw.Draw(image).text((50, 30), character, 255, ImageFont.truetype(_file(font), 110))
        canvas = np.array(image)
    rows, columns = np.nonzero(canvas.max(1))[0], np.nonzero(canvas.max(0))[0]
    return canvas[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _file(font: str) -> str:
    import matplotlib

    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", f"{font}.ttf"))


def _images(count: int, fonts: Sequence[str], seed: int) -> Iterator[tuple[str, int, np.ndarray]]:
    for number in range(count):
        random = np.random.default_rng([seed, number])
        character = CLASSES[number % len(CLASSES)]
        font = fonts[int(random.integers(len(fonts)))]
        yield character, number, draw_glyph(character, font, random)


def write_glyphs(
    folder: Path, train: int = TRAIN_IMAGES, test: int = TEST_IMAGES, seed: int = 0
) -> Path:
    """Write ``train`` and ``test`` class folders unless they exist; return the folder."""
    for split, count, fonts in (("train", train, TRAIN_FONTS), ("test", test, TEST_FONTS)):
        done = folder / f"{split}-{count}-{seed}.done"
        if done.exists():
            continue
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True, exist_ok=True)
        for name, number, pixels in _images(count, fonts, 2 * seed + (split == "test")):
            Image.fromarray(pixels).save(folder / split / name / f"{number:05d}.png")
        done.touch()
    return folder


def main() -> None:
    """Write the folders."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=TRAIN_IMAGES, metavar="N")
    parser.add_argument("--test", type=int, default=TEST_IMAGES, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write_glyphs(options.folder, options.train, options.test, options.seed)


if __name__ == "__main__":
    main()
