"""Augmentation of images in memory, on several threads; MixUp and CutMix of a batch."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.augment.policy import Augment
from kindsight.augment.sampling import Transforms, sample_transforms
from kindsight.augment.transforms import ColourChanges, Effects, Warp
from kindsight.errors import UsageError
from kindsight.images.resize import MAX_SIDE
from kindsight.random_stream import permutation, uniforms
from kindsight.threads import count_cores, single_threaded_opencv

__all__ = ["apply_transforms", "augment_images", "augmented_copies", "beta_quantiles", "mix_batch"]

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


Images = NDArray[np.uint8]

# Images that a thread takes at once: few, so that all threads end at about the same time.
_TAKEN = 4


def augment_images(
    images: Images, policy: Augment, *, seed: int, epoch: int, index: NDArray[np.int64],
    workers: int | None = None, copy: int = 0,
) -> Images:  # fmt: skip
    """Return an augmented copy of each image, in a new array even if nothing changes.

    Parameters
    ----------
    images : uint8 array of shape (n, height, width, 3)
        RGB, 0-255; not changed.
    policy : Augment
    seed : int
    epoch : int
        0 to 4,294,967,295.
    index : int64 array of shape (n,)
        Indices of the images. The changes depend on the seed, the epoch, `copy` and the image's own
        index, not on the batch or the position in it.
    workers : int, optional
        Threads; all cores by default. The result does not depend on it.
    copy : int, default=0
        Number of the copy: each gives other changes of the same image in the same epoch.

    Raises
    ------
    UsageError
        If an argument is invalid.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.zeros((2, 150, 150, 3), np.uint8)
    >>> policy = Augment(rotation=40, horizontal_flip=True)
    >>> augment_images(images, policy, seed=0, epoch=1, index=np.array([3, 7])).shape
    (2, 150, 150, 3)
    """
    _check(images)
    if np.shape(index) != (len(images),):
        raise UsageError(
            f"`index` must have a number for each of the {len(images)} images; got shape "
            f"{np.shape(index)}."
        )
    transforms = sample_transforms(policy, seed=seed, epoch=epoch, index=index, copy=copy)
    return apply_transforms(images, transforms, policy, workers)


def augmented_copies(
    images: Images, policy: Augment, count: int, seed: int = 0, *, workers: int | None = None
) -> Images:
    """Return several augmented copies of each image, for test-time augmentation.

    The first copy is the image itself. Flips are not random but alternate, so that two copies with
    a horizontal flip are the image and its mirror image. Every image gets the same changes, so that
    a prediction does not depend on the other images.

    Parameters
    ----------
    images : uint8 array of shape (n, height, width, 3)
        RGB, 0-255; not changed.
    policy : Augment
        Usually that of the training, or a weaker one. MixUp and CutMix are not applied.
    count : int
        Copies per image, 1 or more.
    seed : int, default=0
    workers : int, optional
        Threads; all cores by default.

    Returns
    -------
    uint8 array of shape (n, count, height, width, 3)

    Raises
    ------
    UsageError
        If an argument is invalid.
    """
    _check(images)
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
        raise UsageError(f"`count` must be an integer from 1; got {count!r}.")
    copies = np.empty((len(images), count, *images.shape[1:]), np.uint8)
    copies[:, 0] = images
    same_index = np.zeros(len(images), np.int64)
    for copy in range(1, count):
        transforms = sample_transforms(policy, seed=seed, epoch=0, index=same_index, copy=copy)
        # Flips follow the bits of the copy's number; a vertical flip alone the lowest bit.
        bits = copy if policy.horizontal_flip else copy << 1
        flips = bool(bits & 2) and policy.vertical_flip, bool(bits & 1) and policy.horizontal_flip
        transforms = replace(transforms, flip=np.broadcast_to(flips, (len(images), 2)))
        copies[:, copy] = apply_transforms(images, transforms, policy, workers)
    return copies


def apply_transforms(
    images: Images, transforms: Transforms, policy: Augment, workers: int | None = None
) -> Images:
    """Apply to each image its sampled changes; see :func:`augment_images`."""
    images = np.ascontiguousarray(images)
    out = np.empty_like(images)
    height, width = images.shape[1:3]
    warp = Warp(transforms, (height, width), policy)
    colour, effects = ColourChanges(transforms), Effects(transforms)

    def work(i: int) -> None:
        target = out[i]
        warp(i, images[i], target)
        colour(i, target)
        effects(i, target)

    _run(work, len(images), workers if workers is not None else count_cores())
    return out


def _run(work: Callable[[int], None], count: int, workers: int) -> None:
    """Call `work` with 0 to count - 1 on this thread and others, and wait for all."""
    if workers < 1:
        raise UsageError(f"`workers` must be 1 or more; got {workers!r}.")
    starts = deque(range(0, count, _TAKEN))

    def take() -> None:
        while True:
            try:
                start = starts.popleft()
            except IndexError:
                return
            for i in range(start, min(start + _TAKEN, count)):
                work(i)

    with single_threaded_opencv():
        helpers = min(workers, len(starts)) - 1
        waiting = [_thread_pool(workers).submit(take) for _ in range(helpers)]
        try:
            take()
        finally:
            starts.clear()
            for helper in waiting:
                # A helper that has not started, because the threads are busy, has no work left.
                if not helper.cancel():
                    helper.result()


@cache
def _thread_pool(workers: int) -> ThreadPoolExecutor:
    """Return a permanent pool: starting threads takes longer than a small batch."""
    return ThreadPoolExecutor(max(1, workers - 1), thread_name_prefix="augment")


if hasattr(os, "register_at_fork"):  # a forked process has none of its parent's threads
    os.register_at_fork(after_in_child=_thread_pool.cache_clear)


def _check(images: object) -> None:
    if (
        isinstance(images, np.ndarray)
        and images.dtype == np.uint8
        and images.ndim == 4
        and images.shape[3] == 3
        and min(images.shape[1:3]) > 0
        and max(images.shape[1:3]) <= MAX_SIDE
    ):
        return
    received = (
        f"{images.dtype} array of shape {images.shape}"
        if isinstance(images, np.ndarray)
        else type(images).__name__
    )
    raise UsageError(
        "`images` must be a uint8 array of shape (n, height, width, 3), RGB 0-255, with sides up "
        f"to {MAX_SIDE}; got {received}."
    )
