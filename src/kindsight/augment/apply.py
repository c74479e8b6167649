"""Applying a policy to images in memory, over threads."""

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
from kindsight.augment.sampling import Draws, draw
from kindsight.augment.transforms import Colour, Effects, Warp
from kindsight.errors import UsageError
from kindsight.images.resize import MAX_SIDE
from kindsight.threads import count_cores, single_threaded_opencv

__all__ = ["apply_draws", "augment_images", "views"]

Images = NDArray[np.uint8]

# Images that a thread takes at once: few enough that all end at about the same time.
_TAKEN = 4


def augment_images(
    images: Images,
    policy: Augment,
    *,
    seed: int,
    epoch: int,
    index: NDArray[np.int64],
    workers: int | None = None,
    view: int = 0,
) -> Images:
    """Make a new view of each image.

    Parameters
    ----------
    images : uint8 array of shape (n, height, width, 3)
        RGB, 0-255. They are not changed.
    policy : Augment
        What may be done to them.
    seed : int
        Any whole number.
    epoch : int
        0 to 4,294,967,295.
    index : int64 array of shape (n,)
        Which images these are. What an image becomes depends on the seed, the epoch, the view
        and its own index, and not on the batch it is in, nor on its place there.
    workers : int, optional
        How many threads; as many as there are cores if omitted. The result does not depend on it.
    view : int, default=0
        Another number gives another view of the same image in the same epoch.

    Returns
    -------
    uint8 array of shape (n, height, width, 3)
        New memory, also where nothing is changed.

    Raises
    ------
    UsageError
        If an argument is not of that kind.

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
            f"index must have a number for each of the {len(images)} images. Received: shape "
            f"{np.shape(index)}."
        )
    draws = draw(policy, seed=seed, epoch=epoch, index=index, view=view)
    return apply_draws(images, draws, policy, workers)


def views(
    images: Images,
    policy: Augment,
    count: int,
    seed: int = 0,
    *,
    workers: int | None = None,
) -> Images:
    """Make several views of each image, whose answers a classifier can average.

    This is augmentation at test time. The first view is the image itself. Flips are not drawn
    but take turns, so that two views by a policy of a horizontal flip are the image and its
    mirror image. Every image gets the same views, so that the answer for one does not depend on
    which others it is asked with.

    Parameters
    ----------
    images : uint8 array of shape (n, height, width, 3)
        RGB, 0-255. They are not changed.
    policy : Augment
        What may be done to them; usually what was done in training, or less. MixUp and CutMix
        are no part of it.
    count : int
        How many views, 1 or more.
    seed : int, default=0
        Any whole number.
    workers : int, optional
        How many threads; as many as there are cores if omitted.

    Returns
    -------
    uint8 array of shape (n, count, height, width, 3)

    Raises
    ------
    UsageError
        If an argument is not of that kind.
    """
    _check(images)
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
        raise UsageError(f"count must be a whole number from 1. Received: {count!r}.")
    result = np.empty((len(images), count, *images.shape[1:]), np.uint8)
    result[:, 0] = images
    same = np.zeros(len(images), np.int64)
    for view in range(1, count):
        draws = draw(policy, seed=seed, epoch=0, index=same, view=view)
        # Bits of the view's number; a flip that is alone takes every second view.
        turn = view if policy.horizontal_flip else view << 1
        flips = bool(turn & 2) and policy.vertical_flip, bool(turn & 1) and policy.horizontal_flip
        draws = replace(draws, flip=np.broadcast_to(flips, (len(images), 2)))
        result[:, view] = apply_draws(images, draws, policy, workers)
    return result


def apply_draws(
    images: Images, draws: Draws, policy: Augment, workers: int | None = None
) -> Images:
    """Do to each image what was drawn for it; see :func:`augment_images`."""
    count = len(images)
    images = np.ascontiguousarray(images)
    out = np.empty_like(images)
    height, width = images.shape[1:3]
    warp, colour, effects = Warp(draws, (height, width), policy), Colour(draws), Effects(draws)

    def work(i: int) -> None:
        target = out[i]
        warp(i, images[i], target)
        colour(i, target)
        effects(i, target)

    _spread(work, count, workers if workers is not None else count_cores())
    return out


def _spread(work: Callable[[int], None], count: int, workers: int) -> None:
    """Call `work` with 0 to count - 1 on this thread and on others, and wait for all of them."""
    if workers < 1:
        raise UsageError(f"workers must be 1 or more. Received: {workers!r}.")
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
        waiting = [_threads(workers).submit(take) for _ in range(helpers)]
        try:
            take()
        finally:
            starts.clear()
            for helper in waiting:
                # One that has not begun, the threads being busy for others, has nothing left to do.
                if not helper.cancel():
                    helper.result()


@cache
def _threads(workers: int) -> ThreadPoolExecutor:
    """Return threads that are kept, since a small batch takes no longer than starting them does."""
    return ThreadPoolExecutor(max(1, workers - 1), thread_name_prefix="augment")


if hasattr(os, "register_at_fork"):  # a forked process has none of its parent's threads
    os.register_at_fork(after_in_child=_threads.cache_clear)


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
        "Images must be a uint8 array of shape (n, height, width, 3), RGB 0-255, with sides up "
        f"to {MAX_SIDE}. Received: {received}."
    )
