"""One affine warp of one image, with SciPy's answers.

The usual cases (linear, pixels of float32 or uint8) are OpenCV's; from version 5 on it computes
them without rounding the coordinates. Older ones round to 1/32 of a pixel, which a probe notices:
then, and for other types, NumPy does the work. Splines are SciPy's own.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.errors import MissingExtraError

__all__ = [
    "MODES",
    "Fill",
    "affine_matrices",
    "fold",
    "opencv_is_exact",
    "source_places",
    "transform_matrix_offset_center",
    "warp",
    "warp_into",
]

# SECTION: Where a warp's pixels come from when they lie outside the image: SciPy's rules, to the
# bit.
#
# SciPy's ``wrap`` repeats the image with a period of one pixel less than its side, and its
# ``constant`` does not blend: what lies beyond the middle of an edge pixel is the constant at once.
# OpenCV has neither, so the coordinates are computed here.

Floats = NDArray[np.float64]

MODES = ("nearest", "reflect", "wrap", "constant")
"""The fill modes that the generator documents; SciPy has more."""


@dataclass(frozen=True)
class Fill:
    """How a warp interpolates, and what it puts where there is no image.

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
    """Bring coordinates along one side of an image to where SciPy reads for them.

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


Pixels = NDArray[Any]

_BORDERS = {
    "nearest": cv2.BORDER_REPLICATE,
    "reflect": cv2.BORDER_REFLECT,
    "constant": cv2.BORDER_REPLICATE,
}
_LINEAR = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
_LONGEST = 32_000  # OpenCV's coordinates have 16 bits
_EXACT = 0.02


def warp(x: Pixels, matrix: Floats, fill: Fill) -> Pixels:
    """Warp an image of any type.

    Parameters
    ----------
    x : array of shape (height, width, channels)
        Any real type; floating types keep their range.
    matrix : float64 array of shape (2, 3)
        Source row and column of each row and column.
    fill : Fill
        Interpolation and borders.

    Returns
    -------
    array
        Of the same shape and type; whole numbers are rounded, halves up.

    Raises
    ------
    MissingExtraError
        For splines and for modes of SciPy's own, without SciPy.
    """
    if fill.order not in (0, 1) or fill.mode not in MODES:
        return _warp_scipy(x, matrix, fill)
    if fill.order == 0:
        return _nearest(x, matrix, fill)
    if x.dtype in (np.float32, np.uint8) and _suits_opencv(x):
        out = np.empty(x.shape, np.float32)
        warp_into(out, x, matrix, fill)
        return out if x.dtype == np.float32 else _rounded(out, x.dtype)
    return _rounded(_linear(x, matrix, fill), x.dtype)


def warp_into(
    out: NDArray[np.float32],
    source: Pixels,
    matrix: Floats,
    fill: Fill,
    flips: tuple[bool, bool] = (False, False),
) -> bool:
    """Warp an image of uint8 or float32 into an array, then flip it.

    Parameters
    ----------
    out : float32 array of shape (height, width, channels)
        C-contiguous; what is in it is lost.
    source : uint8 or float32 array of the same shape
    matrix, fill
        As for :func:`warp`.
    flips : pair of bool
        Horizontal, vertical.

    Returns
    -------
    bool
        Whether the last digits may differ from SciPy's, since OpenCV computes in float32.
    """
    if fill.order != 1 or fill.mode not in MODES or not _suits_opencv(source):
        result = warp(source.astype(np.float32), matrix, fill)
        out[...] = result[_flipping(flips)]
        return False
    height, width, channels = source.shape
    plane = out[:, :, 0] if channels == 1 else out
    source = np.ascontiguousarray(source, np.float32)
    if fill.mode == "wrap":
        row, column = source_places(matrix, height, width)
        x, y = (
            np.ascontiguousarray(fold(side, length, "wrap")[_flipping(flips)], np.float32)
            for side, length in ((column, width), (row, height))
        )
        cv2.remap(source, x, y, cv2.INTER_LINEAR, dst=plane, borderMode=cv2.BORDER_REPLICATE)
        return True
    turned = _as_opencv(matrix, height, width, flips)
    border = _BORDERS[fill.mode]
    cv2.warpAffine(source, turned, (width, height), dst=plane, flags=_LINEAR, borderMode=border)
    if fill.mode == "constant":
        out[_outside(matrix, height, width)[_flipping(flips)]] = fill.cval
    return True


@functools.cache
def opencv_is_exact() -> bool:
    """Whether this OpenCV warps without rounding the coordinates, as version 5 does."""
    rng = np.random.RandomState(0)
    matrix = np.array([[0.9, 0.31, 2.17], [-0.27, 1.13, 5.29]])
    for channels in (1, 3, 4):
        image = rng.uniform(0, 255, (64, 64, channels)).astype(np.float32)
        right = _linear(image, matrix, Fill())
        turned = _as_opencv(matrix, 64, 64, (False, False))
        warped = cv2.warpAffine(
            image, turned, (64, 64), flags=_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        row, column = (side.astype(np.float32) for side in source_places(matrix, 64, 64))
        mapped = cv2.remap(image, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for found in (warped, mapped):
            if np.abs(found.reshape(right.shape) - right).max() > _EXACT:
                return False
    return True


def _suits_opencv(x: Pixels) -> bool:
    return max(x.shape[:2]) <= _LONGEST and x.shape[2] in (1, 3, 4) and opencv_is_exact()


def _flipping(flips: tuple[bool, bool]) -> tuple[slice, slice]:
    horizontal, vertical = flips
    return slice(None, None, -1 if vertical else 1), slice(None, None, -1 if horizontal else 1)


def _as_opencv(matrix: Floats, height: int, width: int, flips: tuple[bool, bool]) -> Floats:
    """Turn (row, column) into OpenCV's (x, y), reading the result's pixels in flipped order."""
    (rr, rc, r0), (cr, cc, c0) = matrix.tolist()
    horizontal, vertical = flips
    if horizontal:
        r0, c0, rc, cc = r0 + rc * (width - 1), c0 + cc * (width - 1), -rc, -cc
    if vertical:
        r0, c0, rr, cr = r0 + rr * (height - 1), c0 + cr * (height - 1), -rr, -cr
    return np.array([[cc, cr, c0], [rc, rr, r0]])


def _outside(matrix: Floats, height: int, width: int) -> NDArray[np.bool_]:
    row, column = source_places(matrix, height, width)
    return (row < 0) | (row > height - 1) | (column < 0) | (column > width - 1)


def _nearest(x: Pixels, matrix: Floats, fill: Fill) -> Pixels:
    height, width = x.shape[:2]
    row, column = (
        np.clip(np.floor(fold(side, length, fill.mode) + 0.5).astype(np.intp), 0, length - 1)
        for side, length in zip(source_places(matrix, height, width), (height, width), strict=True)
    )
    result = x[row, column]
    if fill.mode == "constant":
        outside = _outside(matrix, height, width)
        result[outside] = _rounded(np.full(1, fill.cval, np.float64), x.dtype)
    return result


def _linear(x: Pixels, matrix: Floats, fill: Fill) -> Floats:
    """Interpolate in float64, term by term as SciPy does."""
    height, width = x.shape[:2]
    corners, weights = [], []
    for side, length in zip(source_places(matrix, height, width), (height, width), strict=True):
        place = fold(side, length, fill.mode)
        floor = np.floor(place)
        before = 1 - (place - floor)[..., None]
        first = floor.astype(np.intp)
        corners.append([np.clip(first + step, 0, length - 1) for step in (0, 1)])
        weights.append([before, 1 - before])
    result = np.zeros(x.shape)
    for row, row_weight in zip(corners[0], weights[0], strict=True):
        for column, column_weight in zip(corners[1], weights[1], strict=True):
            result += x[row, column] * row_weight * column_weight
    if fill.mode == "constant":
        result[_outside(matrix, height, width)] = fill.cval
    return result


def _rounded(values: Pixels, dtype: np.dtype[Any]) -> Pixels:
    """Bring values to a type: whole numbers rounded, halves away from zero, within the range."""
    if dtype.kind not in "iu":
        return values.astype(np.uint8 if dtype.kind == "b" else dtype).astype(dtype)
    limits = np.iinfo(dtype)
    whole = np.trunc(values + np.copysign(0.5, values))
    result: Pixels = np.clip(whole, limits.min, limits.max).astype(dtype)
    return result


def _warp_scipy(x: Pixels, matrix: Floats, fill: Fill) -> Pixels:
    try:
        from scipy.ndimage import affine_transform
    except ModuleNotFoundError as error:
        asked = "An interpolation_order above 1 or a fill_mode of SciPy's own"
        raise MissingExtraError(asked, "scipy") from error
    planes = [
        affine_transform(
            x[..., channel],
            matrix[:, :2],
            matrix[:, 2],
            order=fill.order,
            mode=fill.mode,
            cval=fill.cval,
        )
        for channel in range(x.shape[2])
    ]
    return np.stack(planes, axis=-1)


# SECTION: From the numbers that were drawn to the matrices of the warps: Keras's, quirks and all.
#
# A matrix takes (row, column, 1) of a pixel of the result to the place in the source that it comes
# from. Keras composes it in coordinates that it calls x and y, about the centre (height/2 - 0.5,
# width/2 - 0.5), and then swaps the two: so a shift "tx" that was drawn for the height moves along
# the width, and images that are not square turn about a point beside their middle.


def affine_matrices(
    affine: Floats, height: int, width: int, swap: bool = True
) -> tuple[Floats, NDArray[np.bool_]]:
    """Compose the warps of n images of one size.

    Parameters
    ----------
    affine : float64 array of shape (n, 6)
        Columns theta (degrees), tx, ty (pixels), shear (degrees), zx, zy (factors).
    height, width : int
        Of the images.
    swap : bool, default=True
        Whether the row axis comes before the column axis.

    Returns
    -------
    matrices : float64 array of shape (n, 2, 3)
        Source row and column of each row and column.
    still : bool array of shape (n,)
        Which of the images stay as they are, so that no warp is needed.
    """
    theta, tx, ty, shear, zx, zy = affine.T
    turn, lean = np.deg2rad(theta), np.deg2rad(shear)
    cos, sin = np.cos(turn), np.sin(turn)
    # In Keras's order, and multiplied as Keras does: where a pixel falls on an edge of the image
    # to the last bit decides what it is filled with.
    product = _stack([[cos, -sin, 0], [sin, cos, 0]], len(affine))
    for part in (
        [[1, 0, tx], [0, 1, ty]],
        [[1, -np.sin(lean), 0], [0, np.cos(lean), 0]],
        [[zx, 0, 0], [0, zy, 0]],
    ):
        product = np.matmul(product, _stack(part, len(affine)))
    product = transform_matrix_offset_center(product, height, width)
    if swap:
        product = product[:, [1, 0, 2]][:, :, [1, 0, 2]]
    still = (affine == [0, 0, 0, 0, 1, 1]).all(axis=1)
    return np.ascontiguousarray(product[:, :2]), still


def transform_matrix_offset_center(matrix: Floats, x: float, y: float) -> Floats:
    """Let a transformation turn about the middle of `x` by `y` pixels in place of the first one.

    Parameters
    ----------
    matrix : float64 array of shape (..., 3, 3)
    x, y : float
        Height and width.
    """
    x, y = float(x) / 2 - 0.5, float(y) / 2 - 0.5
    there = np.array([[1, 0, x], [0, 1, y], [0, 0, 1]])
    back = np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]])
    centred: Floats = np.matmul(np.matmul(there, matrix), back)
    return centred


def _stack(rows: list[list[float | Floats]], count: int) -> Floats:
    """Make n matrices of shape (3, 3) whose first two rows are given."""
    stack = np.zeros((count, 3, 3))
    for place, row in enumerate(rows):
        for column, value in enumerate(row):
            stack[:, place, column] = value
    stack[:, 2, 2] = 1
    return stack
