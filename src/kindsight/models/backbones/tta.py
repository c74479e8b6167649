"""Test-time augmentation (TTA): flips and crops of an image whose features are averaged.

A variant is an int that stands for a crop and a flip: ``crop * len(FLIPS) + flip``. Variants
below ``len(FLIPS)`` are flips of the whole image, and 0 is the image itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FLIPS",
    "FLIP_AXES",
    "crop_box",
    "crop_index",
    "flip_image",
    "transform_image",
    "tta_variants",
    "variant_name",
]

FLIPS = ("original", "left-right", "up-down", "rotated")
"""The flips, in the order in which they are used; the last is a rotation by 180 degrees."""

FLIP_AXES: tuple[tuple[int, ...], ...] = ((), (2,), (1,), (1, 2))
"""The axes of (batch, height, width, channels) that each flip reverses."""

CROPS = ("whole", "center", "top-left", "top-right", "bottom-left", "bottom-right")
"""The crops, in the order in which they are used."""

# The side of a crop as a fraction of the image's: 224 of 256 pixels, as in A. Krizhevsky,
# I. Sutskever and G. Hinton, "ImageNet classification with deep convolutional neural networks",
# 2012.
CROP_FRACTION = 7 / 8


def tta_variants(flips: Sequence[int], crops: int) -> tuple[int, ...]:
    """Return the variants of the given flips of each of the first `crops` crops."""
    return tuple(crop * len(FLIPS) + flip for crop in range(crops) for flip in flips)


def variant_name(variant: int) -> str:
    """Return the name of a variant, usable in a file name."""
    flip = FLIPS[variant % len(FLIPS)]
    if not (crop := crop_index(variant)):
        return flip
    return f"{CROPS[crop]}-{flip}" if variant % len(FLIPS) else CROPS[crop]


def crop_index(variant: int) -> int:
    """Return the index in :data:`CROPS` of a variant's crop."""
    return variant // len(FLIPS)


def crop_box(crop: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the box (top, left, height, width) in pixels that a crop cuts from an image."""
    height, width = (max(1, round(CROP_FRACTION * side)) for side in size)
    down, right = size[0] - height, size[1] - width
    corners = {
        "whole": (0, 0), "center": (down // 2, right // 2), "top-left": (0, 0),
        "top-right": (0, right), "bottom-left": (down, 0), "bottom-right": (down, right),
    }  # fmt: skip
    top, left = corners[CROPS[crop]]
    return (top, left, height, width) if crop else (0, 0, *size)


def flip_image(pixels: NDArray[Any], flip: int) -> NDArray[Any]:
    """Flip an image, (height, width, 3)."""
    if not flip:
        return pixels
    return np.ascontiguousarray(np.flip(pixels, tuple(axis - 1 for axis in FLIP_AXES[flip])))


def transform_image(pixels: NDArray[np.uint8], variant: int) -> NDArray[Any]:
    """Return a variant of an image, uint8 (height, width, 3).

    uint8 for a flip of the whole image; float32 for a crop, enlarged to the image's size with
    bilinear interpolation, as the layers of :mod:`.ensemble` do it.
    """
    if not crop_index(variant):
        return flip_image(pixels, variant)
    import cv2

    size = pixels.shape[0], pixels.shape[1]
    top, left, height, width = crop_box(crop_index(variant), size)
    crop = pixels[top : top + height, left : left + width].astype(np.float32)
    enlarged = cv2.resize(crop, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return flip_image(enlarged, variant % len(FLIPS))
