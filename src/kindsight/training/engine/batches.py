"""Batches of images, prepared by threads before the step needs them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kindsight.augment import Augment, augment_images, mix_batch
from kindsight.random_stream import permutation, uniforms

__all__ = ["Batch", "Batches", "ahead"]

# Batches that are ready or under way before the one that is waited for.
AHEAD = 4


@dataclass(frozen=True)
class Batch:
    """What one step learns from.

    Parameters
    ----------
    images : array
        uint8 (n, height, width, 3).
    targets : array
        float32 (n, classes), rows that sum to 1.
    address : (int, int)
        Where the step's own chance is found; 0 to below 2**31.
    """

    images: NDArray[np.uint8]
    targets: NDArray[np.float32]
    address: tuple[int, int]


@dataclass(frozen=True)
class Batches:
    """The batches of a training: the same whichever thread makes them, and whenever.

    Parameters
    ----------
    inputs : array
        uint8 (rows, height, width, 3), usually mapped from the store.
    rows : array
        int64 (images,): which of them are learned from; or (images, views), where there are
        several views of each, of which every epoch takes another.
    targets : array
        int64 (images,): their classes.
    classes : int
    batch_size : int
        The last batch of an epoch takes what is left.
    augment : Augment
    seed : int
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
        """Return the order in which an epoch takes the images."""
        return permutation(self.seed, "order of images", epoch, len(self.rows))

    def make(self, epoch: int, step: int, order: NDArray[np.int64]) -> Batch:
        """Make one batch.

        Parameters
        ----------
        epoch : int
            From 1.
        step : int
            From 0.
        order : array
            As :meth:`order` gives it for the epoch.
        """
        rows = order[step * self.batch_size : (step + 1) * self.batch_size]
        images = self.inputs[self._rows(epoch, rows)]
        if self.augment.changes_images:
            images = augment_images(
                images, self.augment, seed=self.seed, epoch=epoch, index=rows, workers=1
            )
        targets = np.zeros((len(rows), self.classes), np.float32)
        targets[np.arange(len(rows)), self.targets[rows]] = 1
        if self.augment.mixes:
            images, targets = mix_batch(
                images, targets, self.augment, seed=self.seed, epoch=epoch, step=step
            )
        chance = uniforms(self.seed, "step", epoch, np.array([step]), 2)[0]
        one, other = (int(number * 2**31) for number in chance)
        return Batch(images, targets, (one, other))

    def _rows(self, epoch: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where the images are; of several views, an epoch's own."""
        if self.rows.ndim == 1:
            return self.rows[rows]
        count = self.rows.shape[1]
        # All views in turn, each image beginning with another one.
        first = (uniforms(self.seed, "first view", 0, rows, 1)[:, 0] * count).astype(np.int64)
        chosen: NDArray[np.int64] = self.rows[rows, (first + epoch) % count]
        return chosen


def ahead(
    make: Callable[[int], Batch], start: int, end: int, executor: ThreadPoolExecutor
) -> Iterator[Batch]:
    """Yield ``make(start)`` to ``make(end - 1)``, some of them made before they are asked for."""
    waiting: deque[Future[Batch]] = deque()
    step = start
    try:
        while step < end or waiting:
            while step < end and len(waiting) < AHEAD:
                waiting.append(executor.submit(make, step))
                step += 1
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
