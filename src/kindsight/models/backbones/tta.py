"""Views of an image, of which all tell the same to an eye: flipped, and seen from closer by.

A view is a number: that of a crop times how many flips there are, plus that of the flip. The first
ones are the flips of the whole image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["AXES", "CROPS", "FLIPS", "crop_box", "crop_of", "flip", "look", "name_of", "views_of"]

FLIPS = ("as-is", "left-right", "up-down", "turned")
"""The flips, in the order in which they are taken; the last is turned by 180 degrees."""

AXES: tuple[tuple[int, ...], ...] = ((), (2,), (1,), (1, 2))
"""Which axes of (batch, height, width, channels) each flip reverses."""

CROPS = ("whole", "middle", "top-left", "top-right", "bottom-left", "bottom-right")
"""The crops, in the order in which they are taken."""

# The share of the sides that a crop shows: 224 of 256 pixels, as A. Krizhevsky, I. Sutskever and
# G. Hinton had it ("ImageNet classification with deep convolutional neural networks", 2012).
SEEN = 7 / 8


def views_of(flips: Sequence[int], crops: int) -> tuple[int, ...]:
    """Return the views of some flips of each of so many crops, the image as it is first."""
    return tuple(crop * len(FLIPS) + turn for crop in range(crops) for turn in flips)


def name_of(view: int) -> str:
    """Return the name of a view, fit for a file's."""
    turn = FLIPS[view % len(FLIPS)]
    if not (crop := crop_of(view)):
        return turn
    return f"{CROPS[crop]}-{turn}" if view % len(FLIPS) else CROPS[crop]


def crop_of(view: int) -> int:
    """Return the number of a view's crop."""
    return view // len(FLIPS)


def crop_box(crop: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return what a crop shows of an image of a size: (top, left, height, width) in pixels."""
    height, width = (max(1, round(SEEN * side)) for side in size)
    down, right = size[0] - height, size[1] - width
    places = {
        "whole": (0, 0), "middle": (down // 2, right // 2), "top-left": (0, 0),
        "top-right": (0, right), "bottom-left": (down, 0), "bottom-right": (down, right),
    }  # fmt: skip
    top, left = places[CROPS[crop]]
    return (top, left, height, width) if crop else (0, 0, *size)


def flip(pixels: NDArray[Any], view: int) -> NDArray[Any]:
    """Return a flip of an image, (height, width, 3)."""
    if not view:
        return pixels
    return np.ascontiguousarray(np.flip(pixels, tuple(axis - 1 for axis in AXES[view])))


def look(pixels: NDArray[np.uint8], view: int) -> NDArray[Any]:
    """Return a view of an image, (height, width, 3).

    Parameters
    ----------
    pixels : array
        uint8 (height, width, 3).
    view : int

    Returns
    -------
    array
        uint8 of a flip of the whole image. float32 of a crop, enlarged to the image's size:
        each pixel from the four around it, as joined networks do it themselves.
    """
    if not crop_of(view):
        return flip(pixels, view)
    import cv2

    size = pixels.shape[0], pixels.shape[1]
    top, left, height, width = crop_box(crop_of(view), size)
    part = pixels[top : top + height, left : left + width].astype(np.float32)
    enlarged = cv2.resize(part, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return flip(enlarged, view % len(FLIPS))
