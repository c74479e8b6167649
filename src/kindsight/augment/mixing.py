"""MixUp and CutMix: pairs of images of a batch and their targets are mixed."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.augment.policy import Augment
from kindsight.errors import UsageError
from kindsight.random_stream import permutation, uniforms
from kindsight.threads import single_threaded_opencv

__all__ = ["beta_quantiles", "mix_batch"]

Floats = NDArray[np.float64]

_GRID = 1 << 14
_LEAST_ALPHA = 1e-6


def mix_batch(
    images: NDArray[np.uint8], targets: NDArray[np.floating[Any]], policy: Augment, *, seed: int,
    epoch: int, step: int,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:  # fmt: skip
    """Mix each image of a batch, and its target, with another image of the batch.

    MixUp (Zhang et al. 2018) blends two images with the weights w and 1 - w. CutMix (Yun et al.
    2019) pastes a rectangle of the second image into the first at the same position. The weights
    follow a Beta distribution with both parameters equal to `mixup` or `cutmix`, one per image. A
    policy with both mixes half of the batches by each; without either, the batch is returned
    unchanged.

    Parameters
    ----------
    images : uint8 array of shape (n, height, width, 3)
        0-255; not changed.
    targets : float array of shape (n, k)
        One row per image: usually 1 for its class and 0 for the others.
    policy : Augment
    seed, epoch : int
        As for :func:`augment_images`.
    step : int
        Number of the batch in the epoch. The result depends on the seed, the epoch, the step and
        the position in the batch.

    Returns
    -------
    images : uint8 array of shape (n, height, width, 3)
    targets : float32 array of shape (n, k)
        Mixed with the same weights as the pixels, so each row keeps its sum.

    Raises
    ------
    UsageError
        If an array has another type or shape.
    """
    targets = _checked(images, targets)
    if not policy.mixes or not len(images):
        return images, targets
    images = np.ascontiguousarray(images)
    index = np.arange(len(images))
    purpose = f"mix {step}"
    # Column 0 of row 0 chooses MixUp or CutMix; columns 1-3 are the weight of each image and the
    # centre of its rectangle.
    random = uniforms(seed, purpose, epoch, index, 4)
    cut = policy.cutmix > 0 and (policy.mixup == 0 or random[0, 0] < 0.5)
    partners = permutation(seed, purpose, epoch, len(images))
    weight = beta_quantiles(policy.cutmix if cut else policy.mixup, random[:, 1])
    if cut:
        mixed, weight = _cut(images, partners, weight, random[:, 2:])
    else:
        mixed = _blend(images, partners, weight)
    weights = weight[:, None]
    blended = weights * targets + (1 - weights) * targets[partners]
    return mixed, blended.astype(np.float32)


def beta_quantiles(alpha: float, probabilities: Floats) -> Floats:
    """Return quantiles in [0, 1] of the Beta distribution with both parameters `alpha` > 0.

    The error is below 1e-7 for an `alpha` up to 1 and below 1e-4 above, except within a probability
    of 1e-6 of both ends.
    """
    # At the smallest alpha, all but five in a million are within 0.01 of 0 or 1; far below, numbers
    # overflow.
    points, cumulative, stretch = _beta_table(max(alpha, _LEAST_ALPHA))
    chosen = np.interp(probabilities, cumulative, points)
    with np.errstate(divide="ignore"):  # 0 and 1 become -inf and inf, and then 0 and 1 again
        return _logistic(stretch * (np.log(chosen) - np.log1p(-chosen)))


@lru_cache(maxsize=8)
def _beta_table(alpha: float) -> tuple[Floats, Floats, float]:
    """Return points t, the cumulative distribution there, and a stretch."""
    stretch = 1 / min(alpha, alpha**0.5)
    points = np.linspace(0, 1, _GRID + 1)
    middle = (points[1:] + points[:-1]) / 2
    logit = np.log(middle) - np.log1p(-middle)
    x = stretch * np.abs(logit)
    # log of (x (1 - x)) ** alpha / (t (1 - t)) up to a constant, by the symmetry of both.
    density = alpha * (-x - 2 * np.log1p(np.exp(-x))) - np.log(middle) - np.log1p(-middle)
    density = np.exp(density - density.max())
    cumulative = np.concatenate([[0.0], np.cumsum(density)])
    return points, cumulative / cumulative[-1], stretch


def _logistic(x: Floats) -> Floats:
    decay = np.exp(-np.abs(x))
    result: Floats = np.where(x < 0, decay, 1.0) / (1 + decay)
    return result


def _blend(
    images: NDArray[np.uint8], partners: NDArray[np.int64], weights: Floats
) -> NDArray[np.uint8]:
    mixed = np.empty_like(images)
    with single_threaded_opencv():
        for i, (partner, weight) in enumerate(
            zip(partners.tolist(), weights.tolist(), strict=True)
        ):
            first, second = images[i], images[partner]
            cv2.addWeighted(first, weight, second, 1 - weight, 0, dst=mixed[i])
    return mixed


def _cut(
    images: NDArray[np.uint8], partners: NDArray[np.int64], weights: Floats, centres: Floats
) -> tuple[NDArray[np.uint8], Floats]:
    """Paste rectangles; return the images and the fraction of each first image that remains."""
    size = np.array(images.shape[1:3])
    # Rectangles have the image's aspect ratio and are clipped at its edges.
    half = np.sqrt(1 - weights)[:, None] * size / 2
    low = np.rint((centres * size - half).clip(0, size)).astype(int)
    high = np.rint((centres * size + half).clip(0, size)).astype(int)
    mixed = images.copy()
    for i, (partner, (top, left), (bottom, right)) in enumerate(
        zip(partners.tolist(), low.tolist(), high.tolist(), strict=True)
    ):
        mixed[i, top:bottom, left:right] = images[partner, top:bottom, left:right]
    return mixed, 1 - (high - low).prod(axis=1) / size.prod()


def _checked(images: NDArray[np.uint8], targets: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    if not (isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim == 4):
        raise UsageError(
            "`images` must be a uint8 array of shape (n, height, width, 3); got "
            f"{getattr(images, 'dtype', type(images).__name__)} {np.shape(images)}."
        )
    rows = np.asarray(targets)
    if rows.ndim != 2 or len(rows) != len(images) or rows.dtype.kind not in "fiu":
        raise UsageError(
            f"`targets` must be numbers of shape ({len(images)}, classes), one row per image; "
            f"got a {rows.dtype} array of shape {rows.shape}. Convert class indices with "
            "np.eye(classes, dtype=np.float32)[indices]."
        )
    return rows.astype(np.float32, copy=False)
