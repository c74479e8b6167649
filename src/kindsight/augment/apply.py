"""Augmentation of images in memory, on several threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from kindsight.augment.policy import Augment
from kindsight.augment.sampling import Transforms, sample_transforms
from kindsight.augment.transforms import ColourChanges, Effects, Warp
from kindsight.errors import UsageError
from kindsight.images.resize import MAX_SIDE
from kindsight.threads import count_cores, single_threaded_opencv

__all__ = ["apply_transforms", "augment_images", "augmented_copies"]

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
