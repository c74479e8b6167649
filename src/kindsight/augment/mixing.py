"""MixUp and CutMix: images and targets of a batch mixed two by two."""

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
    images: NDArray[np.uint8],
    targets: NDArray[np.floating[Any]],
    policy: Augment,
    *,
    seed: int,
    epoch: int,
    step: int,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Mix each image of a batch, and its target, with another of the batch.

    MixUp (Zhang et al. 2018) lays one image over the other: share times the first and 1 - share
    times the second. CutMix (Yun et al. 2019) puts a rectangle of the second, at its place, into
    the first. The shares are of a Beta distribution with both parameters `mixup` or `cutmix`, one
    for each image. Where a policy has both, a batch is mixed in one of the two ways, each half
    the time; where it has neither, the batch is returned as it is.

    Parameters
    ----------
    images : uint8 array of shape (n, height, width, 3)
        0-255. They are not changed.
    targets : float array of shape (n, k)
        A row for each image: usually 1 for its class and 0 for the others.
    policy : Augment
        Its `mixup` and `cutmix`.
    seed, epoch : int
        As :func:`augment_images` takes them.
    step : int
        Which batch of the epoch this is. What is mixed depends on the seed, the epoch, the step and
        the place in the batch.

    Returns
    -------
    images : uint8 array of shape (n, height, width, 3)
    targets : float32 array of shape (n, k)
        Mixed in the same shares as the pixels, so rows keep their sum.

    Raises
    ------
    UsageError
        If the arrays are not of that kind.
    """
    targets = _checked(images, targets)
    if not policy.mixes or not len(images):
        return images, targets
    images = np.ascontiguousarray(images)
    place = np.arange(len(images))
    purpose = f"mix {step}"
    # Column 0 of row 0 says which way; each image has a share and the middle of a rectangle.
    drawn = uniforms(seed, purpose, epoch, place, 4)
    cut = policy.cutmix > 0 and (policy.mixup == 0 or drawn[0, 0] < 0.5)
    partners = permutation(seed, purpose, epoch, len(images))
    share = beta_quantiles(policy.cutmix if cut else policy.mixup, drawn[:, 1])
    if cut:
        mixed, share = _cut(images, partners, share, drawn[:, 2:])
    else:
        mixed = _blend(images, partners, share)
    weights = share[:, None]
    blended = weights * targets + (1 - weights) * targets[partners]
    return mixed, blended.astype(np.float32)


def beta_quantiles(alpha: float, chances: Floats) -> Floats:
    """Turn uniform numbers into numbers of the Beta distribution with both parameters `alpha`.

    Parameters
    ----------
    alpha : float
        Above 0.
    chances : float64 array
        In [0, 1).

    Returns
    -------
    float64 array
        In [0, 1], increasing with `chances`: the distribution's quantiles, to 1e-7 for an `alpha`
        up to 1 and to 1e-4 above it, except for one chance in a million at both ends.
    """
    # There, all but five in a million are within 0.01 of 0 or 1; far below, numbers overflow.
    place, cumulative, stretch = _beta_table(max(alpha, _LEAST_ALPHA))
    chosen = np.interp(chances, cumulative, place)
    with np.errstate(divide="ignore"):  # 0 and 1 themselves become -inf and inf, and 0 and 1
        return _logistic(stretch * (np.log(chosen) - np.log1p(-chosen)))


@lru_cache(maxsize=8)
def _beta_table(alpha: float) -> tuple[Floats, Floats, float]:
    """Return places t, the distribution at them, and a stretch: x = logistic(stretch * logit(t)).

    The density in x has poles at 0 and 1 where alpha is below 1. In t, with this stretch, it has
    none and is smooth, whatever alpha is, so that adding it up in small steps gives its integral.
    """
    stretch = 1 / min(alpha, alpha**0.5)
    place = np.linspace(0, 1, _GRID + 1)
    middle = (place[1:] + place[:-1]) / 2
    logit = np.log(middle) - np.log1p(-middle)
    x = stretch * np.abs(logit)
    # log of (x (1 - x)) ** alpha / (t (1 - t)) but for a constant, by the symmetry of both.
    density = alpha * (-x - 2 * np.log1p(np.exp(-x))) - np.log(middle) - np.log1p(-middle)
    density = np.exp(density - density.max())
    cumulative = np.concatenate([[0.0], np.cumsum(density)])
    return place, cumulative / cumulative[-1], stretch


def _logistic(x: Floats) -> Floats:
    part = np.exp(-np.abs(x))
    result: Floats = np.where(x < 0, part, 1.0) / (1 + part)
    return result


def _blend(
    images: NDArray[np.uint8], partners: NDArray[np.int64], share: Floats
) -> NDArray[np.uint8]:
    mixed = np.empty_like(images)
    with single_threaded_opencv():
        for i, (partner, weight) in enumerate(zip(partners.tolist(), share.tolist(), strict=True)):
            first, second = images[i], images[partner]
            cv2.addWeighted(first, weight, second, 1 - weight, 0, dst=mixed[i])
    return mixed


def _cut(
    images: NDArray[np.uint8], partners: NDArray[np.int64], share: Floats, middles: Floats
) -> tuple[NDArray[np.uint8], Floats]:
    """Put rectangles in; return the share of each first image that is left."""
    size = np.array(images.shape[1:3])
    # The sides are in the image's proportions; what lies beyond the edge is cut off.
    half = np.sqrt(1 - share)[:, None] * size / 2
    low = np.rint((middles * size - half).clip(0, size)).astype(int)
    high = np.rint((middles * size + half).clip(0, size)).astype(int)
    mixed = images.copy()
    for i, (partner, (top, left), (bottom, right)) in enumerate(
        zip(partners.tolist(), low.tolist(), high.tolist(), strict=True)
    ):
        mixed[i, top:bottom, left:right] = images[partner, top:bottom, left:right]
    return mixed, 1 - (high - low).prod(axis=1) / size.prod()


def _checked(images: NDArray[np.uint8], targets: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    if not (isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim == 4):
        raise UsageError(
            "Images must be a uint8 array of shape (n, height, width, 3). Received: "
            f"{getattr(images, 'dtype', type(images).__name__)} {np.shape(images)}."
        )
    rows = np.asarray(targets)
    if rows.ndim != 2 or len(rows) != len(images) or rows.dtype.kind not in "fiu":
        raise UsageError(
            f"Targets must be numbers of shape ({len(images)}, classes), a row for each image. "
            f"Received: {rows.dtype} array of shape {rows.shape}. Make class numbers rows of 0 and "
            "1: np.eye(classes, dtype=np.float32)[numbers]."
        )
    return rows.astype(np.float32, copy=False)
