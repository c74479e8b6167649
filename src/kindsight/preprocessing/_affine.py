"""The affine functions on one picture, with Keras's arguments, defaults and draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import SettingsError
from kindsight.preprocessing._fill import Fill
from kindsight.preprocessing._matrices import affine_matrices
from kindsight.preprocessing._warp import warp

__all__ = [
    "apply_affine_transform",
    "flip_axis",
    "random_rotation",
    "random_shear",
    "random_shift",
    "random_zoom",
]

Pixels = NDArray[Any]


def apply_affine_transform(
    x: Pixels,
    theta: float = 0,
    tx: float = 0,
    ty: float = 0,
    shear: float = 0,
    zx: float = 1,
    zy: float = 1,
    row_axis: int = 1,
    col_axis: int = 2,
    channel_axis: int = 0,
    fill_mode: str = "nearest",
    cval: float = 0.0,
    order: int = 1,
) -> Pixels:
    """Rotate, shift, shear and zoom a picture about its centre, in that order.

    Parameters
    ----------
    x : array of three axes
        Any real type, any range.
    theta : float, default=0
        Rotation in degrees.
    tx, ty : float, default=0
        Shifts in pixels. Where the row axis comes first, tx moves along the columns.
    shear : float, default=0
        Angle in degrees.
    zx, zy : float, default=1
        Factors; above 1 the picture gets smaller.
    row_axis, col_axis, channel_axis : int
        Which axis is which; channels are axis 0 or 2.
    fill_mode : str, default="nearest"
        ``"nearest"``, ``"reflect"``, ``"wrap"`` or ``"constant"``, as SciPy understands them; its
        other modes need SciPy.
    cval : float, default=0
        What ``"constant"`` fills with.
    order : int, default=1
        0 for the nearest pixel, 1 for linear, 2 to 5 for splines, which need SciPy.

    Returns
    -------
    array
        Of the same shape and type; `x` itself if there is nothing to do.

    Raises
    ------
    SettingsError
        For axes that do not fit.
    MissingExtraError
        Where SciPy is needed and not installed.
    """
    axes = row_axis, col_axis, channel_axis
    if sorted(axes) != [0, 1, 2] or channel_axis == 1:
        raise SettingsError(
            "row_axis, col_axis and channel_axis must be 0, 1 and 2 in some order, the channels "
            f"first or last. Received: {axes}."
        )
    if x.ndim != 3:
        raise SettingsError(
            f"A picture must have three axes: rows, columns, channels. Received: shape {x.shape}."
        )
    numbers = np.array([[theta, tx, ty, shear, zx, zy]], np.float64)
    height, width = x.shape[row_axis], x.shape[col_axis]
    swap = col_axis > row_axis
    matrices, still = affine_matrices(numbers, height, width, swap)
    if still[0]:
        return x
    # SciPy is given the axes in the order in which they lie, whatever they are called.
    plane = np.moveaxis(x, channel_axis, -1)
    result = warp(plane, matrices[0], Fill(fill_mode, cval, order))
    return np.moveaxis(result, -1, channel_axis)


def flip_axis(x: Pixels, axis: int) -> Pixels:
    """Return a view of an array that runs the other way along an axis."""
    return np.flip(np.asarray(x), axis)


def random_rotation(
    x: Pixels,
    rg: float,
    row_axis: int = 1,
    col_axis: int = 2,
    channel_axis: int = 0,
    fill_mode: str = "nearest",
    cval: float = 0.0,
    interpolation_order: int = 1,
) -> Pixels:
    """Rotate by up to `rg` degrees either way; the rest as :func:`apply_affine_transform`."""
    theta = np.random.uniform(-rg, rg)
    axes = row_axis, col_axis, channel_axis
    return apply_affine_transform(
        x, theta, 0, 0, 0, 1, 1, *axes, fill_mode, cval, interpolation_order
    )


def random_shift(
    x: Pixels,
    wrg: float,
    hrg: float,
    row_axis: int = 1,
    col_axis: int = 2,
    channel_axis: int = 0,
    fill_mode: str = "nearest",
    cval: float = 0.0,
    interpolation_order: int = 1,
) -> Pixels:
    """Shift by up to `wrg` and `hrg`, fractions of the width and the height.

    With the row axis before the column axis the two change places, in Keras as here.
    """
    tx = np.random.uniform(-hrg, hrg) * x.shape[row_axis]
    ty = np.random.uniform(-wrg, wrg) * x.shape[col_axis]
    axes = row_axis, col_axis, channel_axis
    return apply_affine_transform(
        x, 0, tx, ty, 0, 1, 1, *axes, fill_mode, cval, interpolation_order
    )


def random_shear(
    x: Pixels,
    intensity: float,
    row_axis: int = 1,
    col_axis: int = 2,
    channel_axis: int = 0,
    fill_mode: str = "nearest",
    cval: float = 0.0,
    interpolation_order: int = 1,
) -> Pixels:
    """Shear by up to `intensity` degrees either way; the rest as :func:`apply_affine_transform`."""
    shear = np.random.uniform(-intensity, intensity)
    axes = row_axis, col_axis, channel_axis
    return apply_affine_transform(
        x, 0, 0, 0, shear, 1, 1, *axes, fill_mode, cval, interpolation_order
    )


def random_zoom(
    x: Pixels,
    zoom_range: Sequence[float],
    row_axis: int = 1,
    col_axis: int = 2,
    channel_axis: int = 0,
    fill_mode: str = "nearest",
    cval: float = 0.0,
    interpolation_order: int = 1,
) -> Pixels:
    """Zoom height and width by two factors drawn from a (lowest, highest) pair, each for itself.

    Raises
    ------
    SettingsError
        If `zoom_range` is not a pair.
    """
    if len(zoom_range) != 2:
        raise SettingsError(f"zoom_range must be two numbers. Received: {zoom_range!r}.")
    low, high = zoom_range
    zx, zy = (1, 1) if low == 1 and high == 1 else np.random.uniform(low, high, 2)
    axes = row_axis, col_axis, channel_axis
    return apply_affine_transform(
        x, 0, 0, 0, 0, zx, zy, *axes, fill_mode, cval, interpolation_order
    )
