"""Flipped views of a picture, of which all tell the same to an eye."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["AXES", "VIEWS", "flip"]

VIEWS = ("as-is", "left-right", "up-down", "turned")
"""The views, in the order in which they are taken; the last is turned by 180 degrees."""

AXES: tuple[tuple[int, ...], ...] = ((), (2,), (1,), (1, 2))
"""Which axes of (batch, height, width, channels) each view reverses."""


def flip(pixels: NDArray[np.uint8], view: int) -> NDArray[np.uint8]:
    """Return a view of a picture, uint8 (height, width, 3)."""
    if not view:
        return pixels
    return np.ascontiguousarray(np.flip(pixels, tuple(axis - 1 for axis in AXES[view])))
