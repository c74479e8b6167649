"""What is done to an image after the transformation, and the statistics that it needs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import SettingsError
from kindsight.preprocessing._messages import warn_of

__all__ = ["Standards", "fit", "is_pure", "only_factor", "standardize", "warn_if_unfitted"]

Pixels = NDArray[Any]
_EPSILON = 1e-6  # Keras's


class Standards(Protocol):
    """The part of a generator that says how images are standardised."""

    preprocessing_function: Callable[[Pixels], Pixels] | None
    rescale: float | None
    samplewise_center: bool
    samplewise_std_normalization: bool
    featurewise_center: bool
    featurewise_std_normalization: bool
    zca_whitening: bool
    zca_epsilon: float
    mean: Pixels | None
    std: Pixels | None
    zca_whitening_matrix: Pixels | None
    dtype: str
    data_format: str
    channel_axis: int
    row_axis: int
    col_axis: int


def standardize(standards: Standards, x: Pixels) -> Pixels:
    """Standardise an image or a batch, in place where the types allow it."""
    if standards.preprocessing_function:
        x = standards.preprocessing_function(x)
    if standards.rescale:
        x *= standards.rescale
    if standards.samplewise_center:
        x -= np.mean(x, keepdims=True)
    if standards.samplewise_std_normalization:
        x /= np.std(x, keepdims=True) + _EPSILON
    warn_if_unfitted(standards)
    if standards.featurewise_center and standards.mean is not None:
        x -= standards.mean
    if standards.featurewise_std_normalization and standards.std is not None:
        x /= standards.std + _EPSILON
    if standards.zca_whitening and standards.zca_whitening_matrix is not None:
        flat = x.reshape(-1, int(np.prod(x.shape[-3:])))
        x = (flat @ standards.zca_whitening_matrix).reshape(x.shape)
    return x


def only_factor(standards: Standards) -> np.float32 | None:
    """Return the number that multiplying float32 by is all that is done to an image, if so."""
    others = (
        standards.preprocessing_function,
        standards.samplewise_center,
        standards.samplewise_std_normalization,
        standards.featurewise_center,
        standards.featurewise_std_normalization,
        standards.zca_whitening,
    )
    if any(others):
        return None
    if not standards.rescale:
        return np.float32(1)
    # A number of NumPy's own would be multiplied by in its own precision.
    return np.float32(standards.rescale) if type(standards.rescale) in (int, float) else None


def warn_if_unfitted(standards: Standards) -> None:
    """Warn where statistics are asked for and have not been computed."""
    needed = {
        "featurewise_center": standards.mean,
        "featurewise_std_normalization": standards.std,
        "zca_whitening": standards.zca_whitening_matrix,
    }
    missing = [name for name, found in needed.items() if getattr(standards, name) and found is None]
    if missing:
        warn_of("not-fitted", settings=" and ".join(missing))


def is_pure(function: Callable[[Pixels], Pixels] | None) -> bool:
    """Whether a preprocessing function is known to draw nothing, so that order does not matter.

    Keras's own ``preprocess_input`` functions are.
    """
    module = getattr(function, "__module__", None) or ""
    return function is None or module.startswith(("keras.src.applications.", "keras.applications."))


def fit(standards: Standards, x: Any, augment: bool, rounds: int, seed: int | None) -> None:
    """Compute the statistics of an array of images; see ``ImageDataGenerator.fit``."""
    x = np.array(x, standards.dtype)
    if x.ndim != 4:
        raise SettingsError(
            "fit() needs images as an array of shape (n, height, width, channels) or, with "
            f"channels_first, (n, channels, height, width). Received: shape {x.shape}."
        )
    channels = x.shape[standards.channel_axis]
    if channels not in (1, 3, 4):
        warnings.warn(
            f"Images have 1, 3 or 4 channels, with {standards.data_format} on axis "
            f"{standards.channel_axis}. Received: shape {x.shape}, which is {channels} channels.",
            stacklevel=3,
        )
    if seed is not None:
        np.random.seed(seed)
    if standards.rescale:
        x *= standards.rescale
    if augment:
        x = _augmented(standards, x, rounds)
    others = (0, standards.row_axis, standards.col_axis)
    aligned = [1, 1, 1]
    aligned[standards.channel_axis - 1] = channels
    if standards.featurewise_center:
        standards.mean = np.reshape(np.mean(x, axis=others), aligned)
        x -= standards.mean
    if standards.featurewise_std_normalization:
        standards.std = np.reshape(np.std(x, axis=others), aligned)
        x /= standards.std + _EPSILON
    if standards.zca_whitening:
        standards.zca_whitening_matrix = _whitening(x, standards.zca_epsilon)


def _augmented(standards: Any, x: Pixels, rounds: int) -> Pixels:
    """Return each image transformed at random, `rounds` times over, without standardising."""
    result = np.empty((rounds * len(x), *x.shape[1:]), standards.dtype)
    for place in range(len(result)):
        result[place] = standards.random_transform(x[place % len(x)])
    return result


def _whitening(x: Pixels, epsilon: float) -> Pixels:
    """Return the ZCA whitening matrix of images that are centred already."""
    flat = x.reshape(len(x), -1)
    u, s, _ = np.linalg.svd(flat.T, full_matrices=False)
    result: Pixels = (u * (np.sqrt(len(flat)) / (s + epsilon))).dot(u.T)
    return result
