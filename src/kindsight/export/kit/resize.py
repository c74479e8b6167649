"""Read and resize images for a classifier with NumPy and Pillow alone, as resize.md specifies.

This file is copied into every export. It is the specification as a program: short rather than fast.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageOps

__all__ = ["read", "resize"]

Pixels: TypeAlias = "np.ndarray[Any, np.dtype[np.uint8]]"
Weights: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"


def read(file: str | Path, resize: dict[str, Any]) -> Pixels:
    """Return an image file as uint8 (height, width, 3), RGB, upright, on white.

    `resize` is the resize rule: a dictionary with ``height`` and ``width``, and perhaps
    ``value_range``.
    """
    image: Any = Image.open(file)
    if image.format == "JPEG":
        image = _reduced(image, resize["height"], resize["width"])
    if image.mode.startswith("I;16"):
        low, high = resize.get("value_range") or (0, 65535)
        values = (np.array(image, np.float64) - low) / (high - low) * 255
        image = Image.fromarray(np.floor(values.clip(0, 255) + 0.5).astype(np.uint8))
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def _reduced(image: Any, height: int, width: int) -> Any:
    """Decode a large JPEG at 1/2, 1/4 or 1/8, the smallest with no side below the input's."""
    whole = image.size
    turned = image.getexif().get(0x0112, 1) >= 5
    image.draft(None, (height, width) if turned else (width, height))
    factor = image.decoderconfig[0] if image.decoderconfig else 1
    sides = ((side + factor // 2) // factor for side in whole)
    return image.crop((0, 0, *sides)) if factor > 1 else image


def resize(
    image: Pixels,
    height: int,
    width: int,
    fit: str = "stretch",
    interpolation: str = "auto",
    value_range: object = None,  # for read
) -> Pixels:
    """Return an image, uint8 (tall, wide, 3), as uint8 (height, width, 3)."""
    tall, wide = image.shape[:2]
    if (tall, wide) == (height, width):
        return image
    if fit == "crop":  # the largest centre crop with the aspect ratio of the input
        inner = min(tall, max(1, round(wide * height / width)))
        across = min(wide, max(1, round(tall * width / height)))
        top, left = (tall - inner) // 2, (wide - across) // 2
        image = image[top : top + inner, left : left + across]
    if fit != "pad":
        return _resample(image, height, width, interpolation)
    scale = min(height / tall, width / wide)
    inner = min(height, max(1, round(tall * scale)))
    across = min(width, max(1, round(wide * scale)))
    top, left = (height - inner) // 2, (width - across) // 2
    padded = np.full((height, width, 3), 127, np.uint8)
    padded[top : top + inner, left : left + across] = _resample(image, inner, across, interpolation)
    return padded


def _resample(image: Pixels, height: int, width: int, interpolation: str) -> Pixels:
    tall, wide = image.shape[:2]
    if interpolation == "auto":
        interpolation = "area" if tall > 2 * height or wide > 2 * width else "linear"
    if interpolation == "area":  # shrink first, then enlarge
        image = _area(image, min(tall, height), min(wide, width))
        return _linear(image, height, width)
    return {"linear": _linear, "cubic": _cubic, "nearest": _nearest}[interpolation](
        image, height, width
    )


def _area(image: Pixels, height: int, width: int) -> Pixels:
    """Average all covered pixels, weighted by the covered area; no side grows."""
    tall, wide = image.shape[:2]
    sums = _weighted(image, _shares(tall, height), _shares(wide, width))
    if (tall, wide) == (2 * height, 2 * width):
        return np.floor(sums + 0.5).astype(np.uint8)
    return np.rint(sums).astype(np.uint8)  # halves to the even number


def _shares(before: int, after: int) -> Weights:
    """Return the share of each source pixel in each average, float64 (after, before)."""
    edges = np.arange(after + 1) * before / after
    pixels = np.arange(before)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return covered.clip(0) * after / before


def _weighted(image: Pixels, rows: Weights, columns: Weights) -> Weights:
    """Return rows @ image @ columns.T for each channel, without floating-point noise."""
    values = np.tensordot(rows, image.astype(np.float64), axes=1)
    found: Weights = np.tensordot(values, columns, axes=(1, 1)).transpose(0, 2, 1).round(9)
    return found


def _linear(image: Pixels, height: int, width: int) -> Pixels:
    """Interpolate between 2 x 2 pixels, in integers with weights in 1/2048."""
    tall, wide = image.shape[:2]
    if (tall, wide) == (height, width):
        return image
    if (tall, wide) == (2 * height, 2 * width):
        return _area(image, height, width)
    left, weight = _between(wide, width)
    weight[(left < 0) | (left >= wide - 1)] = 2048, 0
    left = left.clip(0, wide - 1)
    right = (left + 1).clip(0, wide - 1)
    whole = image.astype(np.int64)
    sums = whole[:, left] * weight[:, :1] + whole[:, right] * weight[:, 1:]
    top, weight = _between(tall, height)
    upper, lower = (sums[(top + step).clip(0, tall - 1)] >> 4 for step in (0, 1))
    weight = weight[:, :, None, None]
    quarters = (upper * weight[:, 0] >> 16) + (lower * weight[:, 1] >> 16)
    found: Pixels = (quarters + 2 >> 2).astype(np.uint8)
    return found


def _between(before: int, after: int) -> tuple[Weights, Weights]:
    """Return the first of two neighbours of each output pixel, and their weights in 1/2048."""
    position = ((np.arange(after) + 0.5) * before / after - 0.5).astype(np.float32)
    first = np.floor(position)
    second = position - first
    weights = np.stack([np.rint((1 - second) * 2048), np.rint(second * 2048)], axis=1)
    return first.astype(int), weights.astype(int)


def _cubic(image: Pixels, height: int, width: int) -> Pixels:
    """Interpolate between 4 x 4 pixels by Keys's kernel with a = -0.75."""

    def weights(before: int, after: int) -> Weights:
        position = (np.arange(after) + 0.5) * before / after - 0.5
        first = np.floor(position).astype(int)
        found = np.zeros((after, before))
        for pixel in (first - 1, first, first + 1, first + 2):
            d = np.abs(pixel - position)
            near = (1.25 * d - 2.25) * d * d + 1
            far = -0.75 * (((d - 5) * d + 8) * d - 4)
            # Beyond the border, its pixels are repeated.
            column = pixel.clip(0, before - 1)
            np.add.at(found, (np.arange(after), column), np.where(d <= 1, near, far))
        return found

    tall, wide = image.shape[:2]
    values = _weighted(image, weights(tall, height), weights(wide, width))
    found: Pixels = np.rint(values.clip(0, 255)).astype(np.uint8)
    return found


def _nearest(image: Pixels, height: int, width: int) -> Pixels:
    """Take the pixel under each output pixel's centre; if that is on a border, the second pixel."""
    tall, wide = image.shape[:2]
    rows = (2 * np.arange(height) + 1) * tall // (2 * height)
    columns = (2 * np.arange(width) + 1) * wide // (2 * width)
    found: Pixels = image[rows][:, columns]
    return found
