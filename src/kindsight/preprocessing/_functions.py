"""The affine functions on one image, with Keras's arguments, defaults and draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.errors import SettingsError
from kindsight.preprocessing import _keras
from kindsight.preprocessing._messages import warn_of
from kindsight.preprocessing._warp import Fill, affine_matrices, warp

__all__ = [
    "apply_affine_transform",
    "apply_brightness_shift",
    "apply_channel_shift",
    "brighten_into",
    "flip_axis",
    "random_brightness",
    "random_channel_shift",
    "random_rotation",
    "random_shear",
    "random_shift",
    "random_zoom",
    "shift_channels_into",
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
    """Rotate, shift, shear and zoom an image about its centre, in that order.

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
        Factors; above 1 the image gets smaller.
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
            f"An image must have three axes: rows, columns, channels. Received: shape {x.shape}."
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


# SECTION: Channel shift and brightness of one image, with Keras's arguments, defaults and draws.


def apply_channel_shift(x: Pixels, intensity: float, channel_axis: int = 0) -> Pixels:
    """Add a number to every pixel, and cut what leaves the image's own range.

    Parameters
    ----------
    x : array of three axes
        Any real type, any range.
    intensity : float
        In the pixels' units; the same for every channel, in spite of the name.
    channel_axis : int
        Not needed for the answer; Keras has it.

    Returns
    -------
    array
        Of the same shape.
    """
    del channel_axis
    return np.clip(x + intensity, np.min(x), np.max(x))


def random_channel_shift(x: Pixels, intensity_range: float, channel_axis: int = 0) -> Pixels:
    """Apply :func:`apply_channel_shift` with a number of up to `intensity_range` either way."""
    intensity = np.random.uniform(-intensity_range, intensity_range)
    return apply_channel_shift(x, intensity, channel_axis=channel_axis)


def shift_channels_into(out: NDArray[np.float32], intensity: float) -> None:
    """Apply :func:`apply_channel_shift` in place."""
    low, high = out.min(), out.max()
    out += np.float32(intensity)
    np.clip(out, low, high, out=out)


def apply_brightness_shift(x: Pixels, brightness: float, scale: bool = True) -> Pixels:
    """Multiply every pixel by a factor, in whole numbers from 0 to 255.

    Parameters
    ----------
    x : array of three axes
        In Keras's image data format (``keras.config.image_data_format()``), with 1, 3 or 4
        channels; a fourth one is left alone.
    brightness : float
        1 leaves the image as it is, 0 makes it black.
    scale : bool, default=True
        Whether to stretch the image's own range to 0 to 255 first. Without it, that is done only
        to images that leave this range, and undone afterwards.

    Returns
    -------
    array
        Of Keras's float type and the same shape.

    Raises
    ------
    SettingsError
        For an image of another shape.
    """
    if scale:
        warn_of("brightness-scale", name="apply_brightness_shift")
    return _brighten(x, brightness, scale)


def random_brightness(x: Pixels, brightness_range: Sequence[float], scale: bool = True) -> Pixels:
    """Apply :func:`apply_brightness_shift` with a factor from a (lowest, highest) pair.

    Raises
    ------
    SettingsError
        If `brightness_range` is not a pair.
    """
    if len(brightness_range) != 2:
        raise SettingsError(
            f"brightness_range must be two numbers. Received: {brightness_range!r}."
        )
    if scale:
        warn_of("brightness-scale", name="random_brightness")
    return _brighten(x, np.random.uniform(brightness_range[0], brightness_range[1]), scale)


def _brighten(x: Pixels, brightness: float, scale: bool) -> Pixels:
    low, high = np.min(x), np.max(x)
    beyond = bool(low < 0 or high > 255)
    if beyond and not scale:
        warn_of("brightness-stretches", low=low, high=high)
    floating = np.dtype(_keras.floatx())
    last = _keras.image_data_format() == "channels_last"
    values = np.asarray(x, floating)
    if values.ndim != 3 or values.shape[2 if last else 0] not in (1, 3, 4):
        raise SettingsError(
            "An image must have three axes, with 1, 3 or 4 channels on the "
            f"{'last' if last else 'first'} one (keras.config.image_data_format()). "
            f"Received: shape {values.shape}."
        )
    if scale or beyond:
        values = values - values.min()
        most = values.max()
        values = (values / most if most != 0 else values) * 255
    whole = values if last else values.transpose(1, 2, 0)
    result = _multiply(whole.astype(np.uint8), brightness).astype(floating)
    if not last:
        result = result.transpose(2, 0, 1)
    if beyond and not scale:
        result = result / 255 * (high - low) + low
    return result


def brighten_into(out: NDArray[np.float32], brightness: float, slack: float) -> None:
    """Brighten an image in place, as the generator does: without stretching it, if it can.

    Parameters
    ----------
    out : float32 array
        In Keras's image data format.
    brightness : float
        The factor.
    slack : float
        How far a pixel may be from a whole number that it stands for. Pixels are cut, not rounded,
        so the last digits of a warp would decide between one number and the next.
    """
    if out.min() < -slack or out.max() > 255 + slack:
        out[...] = _brighten(out, brightness, scale=False)
        return
    whole = (out + np.float32(slack)).astype(np.uint8)
    if _keras.image_data_format() == "channels_last":
        out[...] = _multiply(whole, brightness)
    else:
        out[...] = _multiply(whole.transpose(1, 2, 0), brightness).transpose(2, 0, 1)


def _multiply(whole: NDArray[np.uint8], brightness: float) -> NDArray[np.float32]:
    """Multiply by a factor in float32, cut to whole numbers; a fourth channel stays."""
    table = np.arange(256, dtype=np.float32) * np.float32(brightness)
    table = np.trunc(np.clip(table, 0, 255))
    result = cv2.LUT(np.ascontiguousarray(whole), table).reshape(whole.shape)
    if whole.shape[2] == 4:
        result[..., 3] = whole[..., 3]
    return np.asarray(result, np.float32)
