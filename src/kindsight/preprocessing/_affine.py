"""Affine warps of single images with SciPy's results, and their matrices as Keras composes them.

The usual cases (linear interpolation, float32 or uint8) use OpenCV, which from version 5 on does
not round the coordinates. Older versions round them to 1/32 pixel; a test detects this, and then,
and for other types, NumPy computes the warp. Splines use SciPy.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.errors import MissingExtraError

Floats = NDArray[np.float64]

MODES = ("nearest", "reflect", "wrap", "constant")
"""The documented fill modes; SciPy has more."""


@dataclass(frozen=True)
class Fill:
    """Fill mode (of :data:`MODES` or SciPy), constant value, and interpolation order (0 to 5)."""

    mode: str = "nearest"
    cval: float = 0.0
    order: int = 1


def source_coordinates(matrix: Floats, height: int, width: int) -> tuple[Floats, Floats]:
    """Return the source row and column of each pixel, float64 (height, width) each.

    The terms are added in the order of SciPy 1.17, so that the sums are equal to the last bit.
    """
    rows, columns = np.arange(height, dtype=np.float64), np.arange(width, dtype=np.float64)
    row, column = (
        np.add.outer(line[2] + rows * line[0], columns * line[1]) for line in matrix.tolist()
    )
    return row, column


def fold(coordinates: Floats, length: int, mode: str) -> Floats:
    """Map coordinates along a side of `length` pixels into the image, as SciPy does.

    SciPy's ``wrap`` has a period of one pixel less than the side, and its ``constant`` does not
    blend: beyond the centre of an edge pixel the value is constant. OpenCV has neither.
    ``constant`` is treated as ``nearest`` here. The result is in [0, length - 1], for ``reflect``
    up to one beyond.
    """
    last = length - 1
    if mode in ("nearest", "constant"):
        return np.clip(coordinates, 0, last)
    below, above = coordinates < 0, coordinates > last
    if not (below.any() or above.any()):
        return coordinates
    if length == 1:
        return np.zeros_like(coordinates)
    folded = coordinates.copy()
    low, high = coordinates[below], coordinates[above]
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
_LONGEST = 32_000  # pixels; OpenCV's coordinates have 16 bits
_EXACT = 0.02  # of 255: larger differences come from rounded coordinates


def warp(x: Pixels, matrix: Floats, fill: Fill) -> Pixels:
    """Return a warped image of the same shape (height, width, channels) and any real type.

    `matrix`, float64 (2, 3), maps (row, column, 1) to the source row and column. Integers are
    rounded, halves up. Raises :class:`MissingExtraError` if SciPy is needed and not installed.
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
    """Warp a uint8 or float32 image into a C-contiguous float32 array, then flip it.

    `flips` is (horizontal, vertical). Returns whether the last digits may differ from SciPy's,
    since OpenCV computes in float32.
    """
    if fill.order != 1 or fill.mode not in MODES or not _suits_opencv(source):
        result = warp(source.astype(np.float32), matrix, fill)
        out[...] = result[_flipping(flips)]
        return False
    height, width, channels = source.shape
    plane = out[:, :, 0] if channels == 1 else out
    source = np.ascontiguousarray(source, np.float32)
    if fill.mode == "wrap":
        row, column = source_coordinates(matrix, height, width)
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
    """Return whether this OpenCV warps without rounding the coordinates, as version 5 does."""
    rng = np.random.RandomState(0)
    matrix = np.array([[0.9, 0.31, 2.17], [-0.27, 1.13, 5.29]])
    for channels in (1, 3, 4):
        image = rng.uniform(0, 255, (64, 64, channels)).astype(np.float32)
        exact = _linear(image, matrix, Fill())
        turned = _as_opencv(matrix, 64, 64, (False, False))
        warped = cv2.warpAffine(
            image, turned, (64, 64), flags=_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        row, column = (side.astype(np.float32) for side in source_coordinates(matrix, 64, 64))
        mapped = cv2.remap(image, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for found in (warped, mapped):
            if np.abs(found.reshape(exact.shape) - exact).max() > _EXACT:
                return False
    return True


def _suits_opencv(x: Pixels) -> bool:
    return max(x.shape[:2]) <= _LONGEST and x.shape[2] in (1, 3, 4) and opencv_is_exact()


def _flipping(flips: tuple[bool, bool]) -> tuple[slice, slice]:
    horizontal, vertical = flips
    return slice(None, None, -1 if vertical else 1), slice(None, None, -1 if horizontal else 1)


def _as_opencv(matrix: Floats, height: int, width: int, flips: tuple[bool, bool]) -> Floats:
    """Return the matrix for OpenCV's (x, y) coordinates, with the result flipped."""
    (rr, rc, r0), (cr, cc, c0) = matrix.tolist()
    horizontal, vertical = flips
    if horizontal:
        r0, c0, rc, cc = r0 + rc * (width - 1), c0 + cc * (width - 1), -rc, -cc
    if vertical:
        r0, c0, rr, cr = r0 + rr * (height - 1), c0 + cr * (height - 1), -rr, -cr
    return np.array([[cc, cr, c0], [rc, rr, r0]])


def _outside(matrix: Floats, height: int, width: int) -> NDArray[np.bool_]:
    row, column = source_coordinates(matrix, height, width)
    return (row < 0) | (row > height - 1) | (column < 0) | (column > width - 1)


def _nearest(x: Pixels, matrix: Floats, fill: Fill) -> Pixels:
    height, width = x.shape[:2]
    row, column = (
        np.clip(np.floor(fold(side, length, fill.mode) + 0.5).astype(np.intp), 0, length - 1)
        for side, length in zip(
            source_coordinates(matrix, height, width), (height, width), strict=True
        )
    )
    result = x[row, column]
    if fill.mode == "constant":
        outside = _outside(matrix, height, width)
        result[outside] = _rounded(np.full(1, fill.cval, np.float64), x.dtype)
    return result


def _linear(x: Pixels, matrix: Floats, fill: Fill) -> Floats:
    """Interpolate linearly in float64, adding the terms in SciPy's order."""
    height, width = x.shape[:2]
    corners, weights = [], []
    for side, length in zip(
        source_coordinates(matrix, height, width), (height, width), strict=True
    ):
        coordinate = fold(side, length, fill.mode)
        floor = np.floor(coordinate)
        before = 1 - (coordinate - floor)[..., None]
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
    """Convert to a type; integers are rounded, halves away from zero, and clipped to the range."""
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
        feature = "An interpolation_order above 1 or a further fill_mode of SciPy"
        raise MissingExtraError(feature, "scipy") from error
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


def affine_matrices(
    affine: Floats, height: int, width: int, swap: bool = True
) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the warp matrices of n images, float64 (n, 2, 3), and which images need no warp.

    The columns of `affine` are theta (degrees), tx, ty (pixels), shear (degrees), zx, zy (factors);
    `swap` says that the row axis comes before the column axis. Keras composes a matrix with
    coordinates that it calls x and y, about the centre (height/2 - 0.5, width/2 - 0.5), and then
    swaps the two. Therefore "tx", drawn for the height, moves along the width, and images that are
    not square are rotated about a point beside their centre.
    """
    theta, tx, ty, shear, zx, zy = affine.T
    turn, lean = np.deg2rad(theta), np.deg2rad(shear)
    cos, sin = np.cos(turn), np.sin(turn)
    # Multiplied in Keras's order: the last bit decides whether a pixel at the edge is filled.
    product = _stack([[cos, -sin, 0], [sin, cos, 0]], len(affine))
    for rows in (
        [[1, 0, tx], [0, 1, ty]],
        [[1, -np.sin(lean), 0], [0, np.cos(lean), 0]],
        [[zx, 0, 0], [0, zy, 0]],
    ):
        product = np.matmul(product, _stack(rows, len(affine)))
    product = transform_matrix_offset_center(product, height, width)
    if swap:
        product = product[:, [1, 0, 2]][:, :, [1, 0, 2]]
    unchanged = (affine == [0, 0, 0, 0, 1, 1]).all(axis=1)
    return np.ascontiguousarray(product[:, :2]), unchanged


def transform_matrix_offset_center(matrix: Floats, x: float, y: float) -> Floats:
    """Return a (..., 3, 3) matrix about the centre of `x` by `y` pixels, not the origin."""
    x, y = float(x) / 2 - 0.5, float(y) / 2 - 0.5
    to_centre = np.array([[1, 0, x], [0, 1, y], [0, 0, 1]])
    from_centre = np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]])
    centred: Floats = np.matmul(np.matmul(to_centre, matrix), from_centre)
    return centred


def _stack(rows: list[list[float | Floats]], count: int) -> Floats:
    """Return n matrices of shape (3, 3) with the given first two rows."""
    stack = np.zeros((count, 3, 3))
    for index, row in enumerate(rows):
        for column, value in enumerate(row):
            stack[:, index, column] = value
    stack[:, 2, 2] = 1
    return stack
