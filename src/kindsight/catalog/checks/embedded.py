"""What a file holds beside the picture that is seen: transparency, and a small one in EXIF data."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.catalog.checks.pixels import SIZE
from kindsight.errors import PictureError
from kindsight.pictures._convert import turn
from kindsight.pictures.perceptual import small_grey
from kindsight.pictures.read import read_picture

__all__ = ["difference", "transparency"]

MAX_THUMBNAIL = 1_000_000
"""Pixels that the small picture in EXIF data may have; the standard says 160 x 120."""


def transparency(data: bytes, on_white: NDArray[np.uint8]) -> float:
    """Return how transparent a picture is on average, 0 to 1: laid on black it is that darker.

    Parameters
    ----------
    data : bytes
        Its file.
    on_white : uint8 array (height, width, 3)
        The picture, as it is read otherwise.
    """
    on_black = read_picture(data, target=SIZE, background=(0, 0, 0))
    return float(on_white.mean(dtype=np.float64) - on_black.mean(dtype=np.float64)) / 255


def difference(
    thumbnail: bytes, small: NDArray[np.uint8], orientation: int, proportion: float
) -> float:
    """Return how a photograph differs from the small picture in its EXIF data.

    Parameters
    ----------
    thumbnail : bytes
        The small picture: a JPEG.
    small : uint8 array (32, 32)
        The photograph in small and grey, turned upright.
    orientation : int
        EXIF's, which holds for both.
    proportion : float
        Height / width of the photograph, turned upright.

    Returns
    -------
    float
        One minus the correlation of both at 32 x 32 pixels, 0 to 2; NaN where it cannot be told.
    """
    try:
        shown = turn(read_picture(thumbnail, max_pixels=MAX_THUMBNAIL), orientation)
    except PictureError:
        return math.nan
    grey = np.asarray(cv2.cvtColor(shown, cv2.COLOR_RGB2GRAY), np.uint8)
    # Cameras fill the rest of a thumbnail with black where its proportions are not the picture's.
    whole = small_grey(grey)
    inner = small_grey(_cropped(grey, proportion))
    return min(_distance(whole, small), _distance(inner, small))


def _cropped(grey: NDArray[np.uint8], proportion: float) -> NDArray[np.uint8]:
    """Return the middle of a picture, as large as can be, of a proportion (height / width)."""
    height, width = grey.shape
    high, wide = min(height, round(width * proportion)), min(width, round(height / proportion))
    top, left = (height - high) // 2, (width - wide) // 2
    return grey[top : top + max(1, high), left : left + max(1, wide)]


def _distance(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """One minus the correlation of two pictures of one size; 1 where one has no contrast."""
    one, other = first.astype(np.float64), second.astype(np.float64)
    one, other = one - one.mean(), other - other.mean()
    size = math.sqrt(float((one * one).sum()) * float((other * other).sum()))
    return 1 - float((one * other).sum()) / size if size > 0 else 1.0
