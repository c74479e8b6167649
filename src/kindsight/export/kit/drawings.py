"""Twenty drawn image files, of the kinds that are most often read or resized wrongly.

They are drawn, so that an export can be distributed whatever the licence of the training images.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kindsight.images import InputSpec, read_image, resize_image

__all__ = ["Drawing", "draw_files", "draw_pixels"]

MAX_SIDE = 2000
"""Longest side of a drawing, in pixels."""

ORIENTATION = 0x0112
"""The EXIF tag of the orientation."""

JPEG_QUALITY = 85


@dataclass(frozen=True)
class Drawing:
    """One image file of the kit.

    Parameters
    ----------
    name : str
        Name of the file.
    what : str
        What it tests.
    data : bytes
        The file.
    lossless : bool
        Whether every decoder returns the same pixels.
    """

    name: str
    what: str
    data: bytes
    lossless: bool


def draw_files(spec: InputSpec) -> list[Drawing]:
    """Return the files, the same in every call; their sizes depend on the input size."""
    drawings = [*_sizes(spec), *_kinds(spec), *_jpegs(spec)]
    return [
        Drawing(f"{number:02d}-{name}", what, data, name.endswith((".png", ".gif")))
        for number, (name, what, data) in enumerate(drawings, 1)
    ]


def draw_pixels(spec: InputSpec) -> NDArray[np.uint8]:
    """Return the files' images, resized: uint8 (n, height, width, 3)."""
    return np.stack([
        resize_image(
            read_image(drawing.data, target=spec.size, value_range=spec.value_range), spec
        )
        for drawing in draw_files(spec)
    ])  # fmt: skip


def _sizes(spec: InputSpec) -> Iterator[tuple[str, str, bytes]]:
    """Yield colour images of several sizes, as multiples of the input's height and width."""
    for name, what, high, wide in (
        ("shrunk", "much larger than the input, not by an integer factor", 2.6, 3.1),
        ("thirds", "three times the input", 3, 3),
        ("half", "exactly twice the input", 2, 2),
        ("larger", "a little larger than the input", 1.4, 1.3),
        ("same", "the size of the input", 1, 1),
        ("smaller", "smaller than the input", 0.6, 0.7),
        ("wide", "one side much larger, the other smaller", 0.3, 3.7),
        ("tall", "one side much larger, the other smaller", 3.7, 0.3),
    ):
        size = _side(spec.height, high), _side(spec.width, wide)
        yield f"{name}.png", what, _png(_drawing(*size))
    yield "tiny.png", "5 x 4 pixels", _png(_drawing(4, 5))
    yield "pixel.png", "one pixel", _png(_drawing(1, 1))


def _kinds(spec: InputSpec) -> Iterator[tuple[str, str, bytes]]:
    """Yield images of other modes than RGB."""
    pixels = _drawing(_side(spec.height, 1.7), _side(spec.width, 1.5))
    height, width = pixels.shape[:2]
    grey = pixels[..., 1]
    yield "grey.png", "grey, 8 bits", _png(grey)
    yield "grey-16-bit.png", "grey, 16 bits", _png(grey.astype(np.uint16) * 256 + grey[::-1])
    alpha = np.arange(width) * 255 // max(1, width - 1)
    alpha = np.broadcast_to(alpha.astype(np.uint8), (height, width))
    yield "transparent.png", "partly transparent", _png(np.dstack([pixels, alpha]))
    palette = Image.fromarray(pixels[..., 0] // 16, "P")
    palette.putpalette([value for k in range(16) for value in (17 * k, 255 - 9 * k, 60 + 7 * k)])
    yield (
        "palette.png",
        "a palette with one transparent colour",
        _saved(palette, "PNG", transparency=7),
    )
    second = palette.transpose(Image.Transpose.ROTATE_180)
    yield (
        "animation.gif",
        "two images, of which the first is used",
        _saved(palette, "GIF", save_all=True, append_images=[second]),
    )


def _jpegs(spec: InputSpec) -> Iterator[tuple[str, str, bytes]]:
    image = Image.fromarray(_drawing(_side(spec.height, 1.5), _side(spec.width, 1.8)))
    # Stored on its side: its height is the width of the upright image.
    turned = Image.fromarray(_drawing(_side(spec.width, 1.6), _side(spec.height, 1.2)))
    yield "turned.jpg", "to be rotated, EXIF orientation 6", _jpeg(turned, orientation=6)
    yield (
        "mirrored.jpg",
        "progressive, to be mirrored and rotated, EXIF orientation 5",
        _jpeg(turned, orientation=5, progressive=True),
    )
    yield "cmyk.jpg", "CMYK", _jpeg(image.convert("CMYK"))
    yield "grey.jpg", "grey", _jpeg(image.convert("L"))
    large = _drawing(_side(spec.height, 4.3), _side(spec.width, 4.6))
    yield (
        "large.jpg",
        "so large that it may be decoded at a fraction of its size",
        _jpeg(Image.fromarray(large)),
    )


def _side(side: int, factor: float) -> int:
    return max(1, min(MAX_SIDE, round(side * factor)))


def _drawing(height: int, width: int) -> NDArray[np.uint8]:
    """Return gradients, a disc, stripes and a chequer, uint8 (height, width, 3).

    Only integers are used, so that all machines draw the same pixels.
    """
    y, x = np.mgrid[:height, :width]
    pixels = np.empty((height, width, 3), np.int64)
    pixels[..., 0] = 40 + x * 200 // max(1, width - 1)
    pixels[..., 1] = 220 - y * 180 // max(1, height - 1)
    pixels[..., 2] = 60 + (x * height + y * width) * 70 // max(1, height * width)
    disc = (4 * y - 2 * height) ** 2 * width**2 + (4 * x - 2 * width) ** 2 * height**2
    pixels[disc < (height * width) ** 2] = 230, 120, 30
    lower, right = y >= height - height // 4, x >= width - width // 3
    pixels[lower & (x // 3 % 2 == 0)] = 20, 30, 90  # stripes of three pixels
    pixels[(y < height // 4) & right & ((x + y) % 2 == 0)] = 250, 250, 240  # a chequer of one
    pixels[(y // 7 + x // 5) % 6 == 0] += 12
    return np.asarray(pixels.clip(0, 255), np.uint8)


def _png(pixels: NDArray[Any]) -> bytes:
    return _saved(Image.fromarray(pixels), "PNG")


def _jpeg(image: Image.Image, orientation: int = 1, **options: Any) -> bytes:
    if orientation != 1:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        options["exif"] = exif
    return _saved(image, "JPEG", quality=JPEG_QUALITY, **options)


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
