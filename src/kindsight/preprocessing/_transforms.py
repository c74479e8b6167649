"""Transformations of one image as in Keras, its standardisation, and the statistics for that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.errors import SettingsError
from kindsight.preprocessing import _keras
from kindsight.preprocessing._affine import Fill, affine_matrices, warp
from kindsight.preprocessing._warnings import warn_trap, warn_unfitted, warn_user

Pixels = NDArray[Any]


def apply_affine_transform(
    x: Pixels, theta: float = 0, tx: float = 0, ty: float = 0, shear: float = 0, zx: float = 1,
    zy: float = 1, row_axis: int = 1, col_axis: int = 2, channel_axis: int = 0,
    fill_mode: str = "nearest", cval: float = 0.0, order: int = 1,
) -> Pixels:  # fmt: skip
    """Rotate, shift, shear and zoom an image about its centre, in this order.

    Returns an array of the same shape and type; `x` itself if nothing changes.

    Parameters
    ----------
    x : array of three axes
        Any real type and range.
    theta : float, default=0
        Rotation in degrees.
    tx, ty : float, default=0
        Shifts in pixels. If the row axis comes first, tx moves along the columns, as in Keras.
    shear : float, default=0
        Angle in degrees.
    zx, zy : float, default=1
        Factors; values above 1 make the image smaller.
    row_axis, col_axis, channel_axis : int
        0, 1 and 2 in any order, with the channels first or last.
    fill_mode : str, default="nearest"
        ``"nearest"``, ``"reflect"``, ``"wrap"`` or ``"constant"`` as in SciPy; its other modes need
        SciPy.
    cval : float, default=0
        Fill value of ``"constant"``.
    order : int, default=1
        Interpolation: 0 nearest, 1 linear, 2 to 5 splines, which need SciPy.

    Raises
    ------
    SettingsError
        For invalid axes or another rank.
    MissingExtraError
        If SciPy is needed and not installed.
    """
    _check_axes(x, row_axis, col_axis, channel_axis)
    numbers = np.array([[theta, tx, ty, shear, zx, zy]], np.float64)
    height, width = x.shape[row_axis], x.shape[col_axis]
    swap = col_axis > row_axis
    matrices, unchanged = affine_matrices(numbers, height, width, swap)
    if unchanged[0]:
        return x
    # Like SciPy in Keras, the warp uses the axes in memory order, whatever their names.
    plane = np.moveaxis(x, channel_axis, -1)
    result = warp(plane, matrices[0], Fill(fill_mode, cval, order))
    return np.moveaxis(result, -1, channel_axis)


def _check_axes(x: Pixels, row_axis: int, col_axis: int, channel_axis: int) -> None:
    axes = row_axis, col_axis, channel_axis
    cure = f"Use 0, 1 and 2, with the channels first or last. Received: {axes}"
    if len(set(axes)) < 3:
        raise SettingsError(f"'row_axis', 'col_axis', and 'channel_axis' must be distinct. {cure}")
    if invalid := set(axes) - {0, 1, 2}:
        raise SettingsError(f"Invalid axis' indices: {invalid}. {cure}")
    if x.ndim != 3:
        raise SettingsError(
            "Input arrays must be multi-channel 2D images, with one axis each for rows, columns "
            f"and channels. Received shape: {x.shape}"
        )
    if channel_axis == 1:
        # Keras's wording, which means "as the first and last dimensions".
        raise SettingsError(f"Channels are allowed and the first and last dimensions. {cure}")


def flip_axis(x: Pixels, axis: int) -> Pixels:
    """Return a flipped NumPy view of an array."""
    return np.flip(np.asarray(x), axis)


def random_rotation(
    x: Pixels, rg: float, row_axis: int = 1, col_axis: int = 2, channel_axis: int = 0,
    fill_mode: str = "nearest", cval: float = 0.0, interpolation_order: int = 1,
) -> Pixels:  # fmt: skip
    """Rotate by -`rg` to `rg` degrees; other arguments as in :func:`apply_affine_transform`."""
    theta = np.random.uniform(-rg, rg)
    axes = row_axis, col_axis, channel_axis
    return apply_affine_transform(
        x, theta, 0, 0, 0, 1, 1, *axes, fill_mode, cval, interpolation_order
    )


def random_shift(
    x: Pixels, wrg: float, hrg: float, row_axis: int = 1, col_axis: int = 2, channel_axis: int = 0,
    fill_mode: str = "nearest", cval: float = 0.0, interpolation_order: int = 1,
) -> Pixels:  # fmt: skip
    """Shift by fractions of up to `wrg` of the width and `hrg` of the height.

    If the row axis comes before the column axis, the two are swapped, as in Keras.
    """
    tx = np.random.uniform(-hrg, hrg) * x.shape[row_axis]
    ty = np.random.uniform(-wrg, wrg) * x.shape[col_axis]
    axes = row_axis, col_axis, channel_axis
    return apply_affine_transform(
        x, 0, tx, ty, 0, 1, 1, *axes, fill_mode, cval, interpolation_order
    )


def random_shear(
    x: Pixels, intensity: float, row_axis: int = 1, col_axis: int = 2, channel_axis: int = 0,
    fill_mode: str = "nearest", cval: float = 0.0, interpolation_order: int = 1,
) -> Pixels:  # fmt: skip
    """Shear by up to `intensity` degrees; other arguments as in :func:`apply_affine_transform`."""
    shear = np.random.uniform(-intensity, intensity)
    axes = row_axis, col_axis, channel_axis
    return apply_affine_transform(
        x, 0, 0, 0, shear, 1, 1, *axes, fill_mode, cval, interpolation_order
    )


def random_zoom(
    x: Pixels, zoom_range: Sequence[float], row_axis: int = 1, col_axis: int = 2,
    channel_axis: int = 0, fill_mode: str = "nearest", cval: float = 0.0,
    interpolation_order: int = 1,
) -> Pixels:  # fmt: skip
    """Zoom height and width by two independent factors from a (lowest, highest) pair.

    Raises `SettingsError` if `zoom_range` is not a pair.
    """
    if len(zoom_range) != 2:
        raise SettingsError(
            "`zoom_range` should be a tuple or list of two floats, such as (0.8, 1.2). "
            f"Received: {zoom_range!r}"
        )
    low, high = zoom_range
    zx, zy = (1, 1) if low == 1 and high == 1 else np.random.uniform(low, high, 2)
    axes = row_axis, col_axis, channel_axis
    return apply_affine_transform(
        x, 0, 0, 0, 0, zx, zy, *axes, fill_mode, cval, interpolation_order
    )


def apply_channel_shift(x: Pixels, intensity: float, channel_axis: int = 0) -> Pixels:
    """Add `intensity` to every pixel and clip the result to the image's own range.

    The image has three axes, of any real type and range; `channel_axis` is not used, as all
    channels are shifted equally.
    """
    del channel_axis
    return np.clip(x + intensity, np.min(x), np.max(x))


def random_channel_shift(x: Pixels, intensity_range: float, channel_axis: int = 0) -> Pixels:
    """Apply :func:`apply_channel_shift` with a random shift of up to `intensity_range`."""
    intensity = np.random.uniform(-intensity_range, intensity_range)
    return apply_channel_shift(x, intensity, channel_axis=channel_axis)


def shift_channels_into(out: NDArray[np.float32], intensity: float) -> None:
    """Apply :func:`apply_channel_shift` in place."""
    low, high = out.min(), out.max()
    out += np.float32(intensity)
    np.clip(out, low, high, out=out)


def apply_brightness_shift(x: Pixels, brightness: float, scale: bool = True) -> Pixels:
    """Multiply every pixel by a factor and truncate the result to integers from 0 to 255.

    Returns an array of the same shape and Keras's float type; raises :class:`SettingsError` for
    other shapes.

    Parameters
    ----------
    x : array of three axes
        In Keras's image data format (``keras.config.image_data_format()``), with 1, 3 or 4
        channels; a fourth channel is not changed.
    brightness : float
        1 leaves the brightness unchanged, 0 gives black.
    scale : bool, default=True
        Whether to stretch the image's own range to 0 to 255 first. If False, only images outside
        this range are stretched, and scaled back afterwards.
    """
    if scale:
        warn_trap("brightness-scale", name="apply_brightness_shift")
    return _brighten(x, brightness, scale)


def random_brightness(x: Pixels, brightness_range: Sequence[float], scale: bool = True) -> Pixels:
    """Apply :func:`apply_brightness_shift` with a factor from a (lowest, highest) pair.

    Raises `SettingsError` if `brightness_range` is not a pair.
    """
    if len(brightness_range) != 2:
        raise SettingsError(
            "`brightness_range should be tuple or list of two floats, such as (0.8, 1.2). "
            f"Received: {brightness_range!r}"
        )
    if scale:
        warn_trap("brightness-scale", name="random_brightness")
    return _brighten(x, np.random.uniform(brightness_range[0], brightness_range[1]), scale)


def _brighten(x: Pixels, brightness: float, scale: bool) -> Pixels:
    low, high = np.min(x), np.max(x)
    beyond = bool(low < 0 or high > 255)
    if beyond and not scale:
        warn_trap("brightness-stretches", low=low, high=high)
    floating = np.dtype(_keras.floatx())
    last = _keras.image_data_format() == "channels_last"
    values = np.asarray(x, floating)
    if values.ndim != 3 or values.shape[2 if last else 0] not in (1, 3, 4):
        raise SettingsError(
            "The image must have three axes with 1, 3 or 4 channels on the "
            f"{'last' if last else 'first'} one (keras.config.image_data_format()); got shape "
            f"{values.shape}."
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
    """Brighten an image in place without stretching it, as the generator does.

    `out` is in Keras's image data format. A pixel up to `slack` below an integer counts as the
    integer: pixels are truncated, so the rounding errors of a warp would change the result
    otherwise.
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
    """Multiply by a factor in float32 and truncate; a fourth channel is not changed."""
    table = np.arange(256, dtype=np.float32) * np.float32(brightness)
    table = np.trunc(np.clip(table, 0, 255))
    result = cv2.LUT(np.ascontiguousarray(whole), table).reshape(whole.shape)
    if whole.shape[2] == 4:
        result[..., 3] = whole[..., 3]
    return np.asarray(result, np.float32)


_EPSILON = 1e-6  # added to standard deviations, as in Keras


def standardize(settings: Any, x: Pixels) -> Pixels:
    """Standardise an image or a batch, in place where the types allow it."""
    if settings.preprocessing_function:
        x = settings.preprocessing_function(x)
    if settings.rescale:
        x *= settings.rescale
    if settings.samplewise_center:
        x -= np.mean(x, keepdims=True)
    if settings.samplewise_std_normalization:
        x /= np.std(x, keepdims=True) + _EPSILON
    warn_unfitted(settings)
    if settings.featurewise_center and settings.mean is not None:
        x -= settings.mean
    if settings.featurewise_std_normalization and settings.std is not None:
        x /= settings.std + _EPSILON
    if settings.zca_whitening and settings.zca_whitening_matrix is not None:
        flat = x.reshape(-1, int(np.prod(x.shape[-3:])))
        x = (flat @ settings.zca_whitening_matrix).reshape(x.shape)
    return x


def constant_factor(settings: Any) -> np.float32 | None:
    """Return the float32 factor if multiplying by it is the whole standardisation, else None."""
    others = (
        settings.preprocessing_function, settings.samplewise_center,
        settings.samplewise_std_normalization, settings.featurewise_center,
        settings.featurewise_std_normalization, settings.zca_whitening,
    )  # fmt: skip
    if any(others):
        return None
    if not settings.rescale:
        return np.float32(1)
    # A NumPy scalar would be multiplied in its own precision.
    return np.float32(settings.rescale) if type(settings.rescale) in (int, float) else None


def is_deterministic(function: Callable[[Pixels], Pixels] | None) -> bool:
    """Return whether a preprocessing function is known to draw no random numbers.

    Then images can be processed in any order. Keras's ``preprocess_input`` functions are known.
    """
    module = getattr(function, "__module__", None) or ""
    return function is None or module.startswith(("keras.src.applications.", "keras.applications."))


def fit_statistics(settings: Any, x: Any, augment: bool, rounds: int, seed: int | None) -> None:
    """Compute the statistics of an array of images; see ``ImageDataGenerator.fit``."""
    x = np.array(x, settings.dtype)
    if x.ndim != 4:
        raise SettingsError(
            f"Input to `.fit()` should have rank 4. Got array with shape: {x.shape}. Use shape "
            "(images, height, width, channels), or (images, channels, height, width) with "
            "data_format='channels_first'."
        )
    channels = x.shape[settings.channel_axis]
    if channels not in (1, 3, 4):
        warn_user(
            "Expected input to be images (as Numpy array) following the data format convention "
            f'"{settings.data_format}" (channels on axis {settings.channel_axis}), i.e. expected '
            f"either 1, 3 or 4 channels. Got shape {x.shape} with {channels} channels; check "
            "data_format."
        )
    if seed is not None:
        np.random.seed(seed)
    if settings.rescale:
        x *= settings.rescale
    if augment:
        x = _augmented(settings, x, rounds)
    others = (0, settings.row_axis, settings.col_axis)
    aligned = [1, 1, 1]
    aligned[settings.channel_axis - 1] = channels
    if settings.featurewise_center:
        settings.mean = np.reshape(np.mean(x, axis=others), aligned)
        x -= settings.mean
    if settings.featurewise_std_normalization:
        settings.std = np.reshape(np.std(x, axis=others), aligned)
        x /= settings.std + _EPSILON
    if settings.zca_whitening:
        settings.zca_whitening_matrix = _whitening(x, settings.zca_epsilon)


def _augmented(generator: Any, x: Pixels, rounds: int) -> Pixels:
    """Return `rounds` randomly transformed copies of each image, not standardised."""
    result = np.empty((rounds * len(x), *x.shape[1:]), generator.dtype)
    for index in range(len(result)):
        result[index] = generator.random_transform(x[index % len(x)])
    return result


def _whitening(x: Pixels, epsilon: float) -> Pixels:
    """Return the ZCA whitening matrix of centred images."""
    flat = x.reshape(len(x), -1)
    u, s, _ = np.linalg.svd(flat.T, full_matrices=False)
    result: Pixels = (u * (np.sqrt(len(flat)) / (s + epsilon))).dot(u.T)
    return result
