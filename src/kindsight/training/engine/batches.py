"""Batches of images, augmented and mixed by threads ahead of the training step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kindsight.augment import Augment, augment_images, mix_batch
from kindsight.random_stream import permutation, uniforms

__all__ = ["Batches", "prefetch"]

# Batches that are ready or in preparation before the one that is needed next.
PREFETCHED = 4


@dataclass(frozen=True)
class Batch:
    """Images and targets of one training step.

    `images` are uint8 (n, height, width, 3), or cached activations; `targets` are float32 (n,
    classes), whose rows sum to 1; `random_key` is of the step's own random numbers, 0 to below
    2**31.
    """

    images: NDArray[np.uint8]
    targets: NDArray[np.float32]
    random_key: tuple[int, int]


@dataclass(frozen=True)
class Batches:
    """The batches of a training; they do not depend on the number of threads or their timing.

    Parameters
    ----------
    inputs : array
        uint8 (rows, height, width, 3), usually a memory map; or cached activations.
    rows : array
        int64 (images,): the row of each training image in `inputs`; or (images, copies), where
        each epoch uses another copy of each image.
    targets : array
        int64 (images,): classes.
    batch_size : int
        The last batch of an epoch may be smaller.
    """

    inputs: NDArray[np.uint8]
    rows: NDArray[np.int64]
    targets: NDArray[np.int64]
    classes: int
    batch_size: int
    augment: Augment
    seed: int

    def __len__(self) -> int:
        return (len(self.rows) + self.batch_size - 1) // self.batch_size

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return the order of the images in an epoch (from 1)."""
        # The name is the key of the stream: another name would be another order.
        return permutation(self.seed, "order of pictures", epoch, len(self.rows))

    def make(self, epoch: int, step: int, order: NDArray[np.int64]) -> Batch:
        """Return the batch of a step (from 0) of an epoch (from 1); `order` from :meth:`order`."""
        index = order[step * self.batch_size : (step + 1) * self.batch_size]
        images = self.inputs[self._input_rows(epoch, index)]
        if self.augment.changes_images:
            images = augment_images(
                images, self.augment, seed=self.seed, epoch=epoch, index=index, workers=1
            )
        targets = np.zeros((len(index), self.classes), np.float32)
        targets[np.arange(len(index)), self.targets[index]] = 1
        if self.augment.mixes:
            images, targets = mix_batch(
                images, targets, self.augment, seed=self.seed, epoch=epoch, step=step
            )
        first, second = uniforms(self.seed, "step", epoch, np.array([step]), 2)[0]
        return Batch(images, targets, (int(first * 2**31), int(second * 2**31)))

    def _input_rows(self, epoch: int, index: NDArray[np.int64]) -> NDArray[np.int64]:
        if self.rows.ndim == 1:
            return self.rows[index]
        count = self.rows.shape[1]
        # Every image cycles through its copies, from a random first one.
        first = (uniforms(self.seed, "first view", 0, index, 1)[:, 0] * count).astype(np.int64)
        chosen: NDArray[np.int64] = self.rows[index, (first + epoch) % count]
        return chosen


def prefetch(
    make: Callable[[int], Batch], start: int, end: int, executor: ThreadPoolExecutor
) -> Iterator[Batch]:
    """Yield ``make(start)`` to ``make(end - 1)``, computed ahead by an executor."""
    waiting: deque[Future[Batch]] = deque()
    step = start
    try:
        while step < end or waiting:
            while step < end and len(waiting) < PREFETCHED:
                waiting.append(executor.submit(make, step))
                step += 1
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
