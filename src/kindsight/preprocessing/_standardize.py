"""Standardisation of images after the transformation, and the statistics that it needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import SettingsError
from kindsight.preprocessing._warnings import warn_unfitted, warn_user

Pixels = NDArray[Any]
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


def fit(settings: Any, x: Any, augment: bool, rounds: int, seed: int | None) -> None:
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
