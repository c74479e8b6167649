"""Channel shift and brightness of one picture, with Keras's arguments, defaults and draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.errors import SettingsError
from kindsight.preprocessing import _keras
from kindsight.preprocessing._traps import warn_of

__all__ = [
    "apply_brightness_shift",
    "apply_channel_shift",
    "brighten_into",
    "random_brightness",
    "random_channel_shift",
    "shift_channels_into",
]

Pixels = NDArray[Any]


def apply_channel_shift(x: Pixels, intensity: float, channel_axis: int = 0) -> Pixels:
    """Add a number to every pixel, and cut what leaves the picture's own range.

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
        1 leaves the picture as it is, 0 makes it black.
    scale : bool, default=True
        Whether to stretch the picture's own range to 0 to 255 first. Without it, that is done only
        to pictures that leave this range, and undone afterwards.

    Returns
    -------
    array
        Of Keras's float type and the same shape.

    Raises
    ------
    SettingsError
        For a picture of another shape.
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
            "A picture must have three axes, with 1, 3 or 4 channels on the "
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
    """Brighten a picture in place, as the generator does: without stretching it, if it can.

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
