"""Where a warp's pixels come from when they lie outside the picture: SciPy's rules, to the bit.

SciPy's ``wrap`` repeats the picture with a period of one pixel less than its side, and its
``constant`` does not blend: what lies beyond the middle of an edge pixel is the constant at once.
OpenCV has neither, so the coordinates are computed here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["MODES", "Fill", "fold", "source_places"]

Floats = NDArray[np.float64]

MODES = ("nearest", "reflect", "wrap", "constant")
"""The fill modes that the generator documents; SciPy has more."""


@dataclass(frozen=True)
class Fill:
    """How a warp interpolates, and what it puts where there is no picture.

    Parameters
    ----------
    mode : str
        One of :data:`MODES`, or another one of SciPy's.
    cval : float
        What ``"constant"`` fills with.
    order : int
        0 for the nearest pixel, 1 for linear, 2 to 5 for splines.
    """

    mode: str = "nearest"
    cval: float = 0.0
    order: int = 1


def source_places(matrix: Floats, height: int, width: int) -> tuple[Floats, Floats]:
    """Return the source row and column of each pixel, float64 (height, width) each.

    The sums are made in the order of SciPy 1.17, so that they have the same last bit.
    """
    rows, columns = np.arange(height, dtype=np.float64), np.arange(width, dtype=np.float64)
    row, column = (
        np.add.outer(line[2] + rows * line[0], columns * line[1]) for line in matrix.tolist()
    )
    return row, column


def fold(places: Floats, length: int, mode: str) -> Floats:
    """Bring coordinates along one side of a picture to where SciPy reads for them.

    Parameters
    ----------
    places : float64 array
        Coordinates, any value.
    length : int
        Pixels of the side.
    mode : str
        One of :data:`MODES`; ``"constant"`` is treated as ``"nearest"``.

    Returns
    -------
    float64 array
        In [0, length - 1]; for ``"reflect"`` up to one more on either side, which stands for the
        edge pixel.
    """
    last = length - 1
    if mode in ("nearest", "constant"):
        return np.clip(places, 0, last)
    below, above = places < 0, places > last
    if not (below.any() or above.any()):
        return places
    if length == 1:
        return np.zeros_like(places)
    folded = places.copy()
    low, high = places[below], places[above]
    if mode == "wrap":
        folded[below] = low + last * (np.trunc(-low / last) + 1)
        folded[above] = high - last * np.trunc(high / last)
        return folded
    period = 2 * length
    low = np.where(low < -period, period * np.trunc(-low / period) + low, low)
    mirrored = np.where(low > -1e-15, 1e-15, -low) - 1
    folded[below] = np.where(low < -length, low + period, mirrored)
    high = high - period * np.trunc(high / period)
    folded[above] = np.where(high >= length, period - high - 1, high)
    return folded
