"""Measure a learning curve: refit a head on nested subsets of the training images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.splits.groups import fold_indices
from kindsight.errors import DatasetError
from kindsight.evaluation.learning_curve import CurveErrors
from kindsight.models.backbones.backbone import FeatureLayout
from kindsight.threads import count_cores, map_ordered
from kindsight.training.common import Progress, balanced_weights
from kindsight.training.frozen.select_head import refit_head
from kindsight.training.frozen.softmax import Candidate

__all__ = ["LabelledFeatures", "measure_learning_curve", "nested_order", "subset_sizes"]

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

FOLDS = 5
SIZES = 7
"""Numbers of training images, evenly spaced in ratio."""
SMALLEST = 1 / 16
"""The smallest number, as a fraction of the largest."""
FEWEST_RATIO = 4
"""Minimum ratio of the largest to the smallest number for a curve."""
REPEATS = 3
"""Subsets per number of images and fold, if they can differ."""
FEWEST_PER_CLASS = 2
"""Images of each class in every subset, if the class has that many."""


@dataclass(frozen=True, eq=False)
class LabelledFeatures:
    """Features of the images from which subsets are drawn, and the head that is fitted to them.

    Parameters
    ----------
    vectors : float32 array (images, width)
    targets : int64 array (images,)
        Class indices.
    classes : int
        Number of classes.
    groups : int64 array (images,)
        Images of one group are never both trained and evaluated on.
    held_out : bool array (images,) or None
        The images to evaluate on; None for folds, so that each image is held out once.
    keys : sequence of str
        Content digests, on which the random order depends.
    layout : FeatureLayout
        Layout of the vectors.
    head : Candidate
        The head that is refitted.
    class_weight : str or None
        As in training.
    seed : int
        Seed of the folds and the subsets.
    """

    vectors: Floats
    targets: Rows
    classes: int
    groups: Rows
    held_out: NDArray[np.bool_] | None
    keys: list[str]
    layout: FeatureLayout
    head: Candidate
    class_weight: str | None = None
    seed: int = 0

    def folds(self) -> Rows:
        """Return the fold in which each image is held out; -1 for images always trained on."""
        if self.held_out is not None:
            return np.where(self.held_out, 0, -1).astype(np.int64)
        rarest = int(np.bincount(self.targets, minlength=self.classes).min())
        count = max(2, min(FOLDS, rarest, len(np.unique(self.groups))))
        return fold_indices(self.targets, self.groups, count, self.seed, self.keys)


def measure_learning_curve(
    images: LabelledFeatures, progress: Progress | None = None
) -> CurveErrors:
    """Refit the head on nested subsets, and return its errors on the held-out images.

    Parameters
    ----------
    images : LabelledFeatures
        The images.
    progress : callable, optional
        Called with ("curve", fits done, number of fits).

    Raises
    ------
    DatasetError
        If there are too few images for a curve.
    """
    folds = images.folds()
    numbers = np.unique(folds[folds >= 0])
    available = int(min((folds != number).sum() for number in numbers))
    sizes = subset_sizes(available, images.classes)
    judged = np.flatnonzero(folds >= 0)
    wrong = np.full((len(sizes), REPEATS, len(judged)), np.nan, np.float32)
    counts = np.zeros((len(sizes), images.classes))
    position = np.full(len(folds), -1)
    position[judged] = np.arange(len(judged))
    tasks = list(_tasks(images, folds, sizes))

    def fit(task: _Task) -> tuple[_Task, NDArray[np.bool_]]:
        weights = balanced_weights(images.targets[task.rows], images.class_weight)
        head = refit_head(
            images.vectors[task.rows], images.targets[task.rows], images.classes, images.layout,
            images.head, seed=images.seed,
            weights=None if weights is None else weights[images.targets[task.rows]].astype("f4"),
        )  # fmt: skip
        guesses = head.logits(images.vectors[task.held_out]).argmax(axis=1)
        return task, guesses != images.targets[task.held_out]

    for done, (task, errors) in enumerate(map_ordered(fit, tasks, count_cores())):
        wrong[task.size, task.repeat, position[task.held_out]] = errors
        found = np.bincount(images.targets[task.rows], minlength=images.classes)
        counts[task.size] += found / sum(other.size == task.size for other in tasks)
        if progress is not None:
            progress("curve", done + 1, len(tasks))
    return CurveErrors(
        np.array(sizes, np.int64), wrong, images.targets[judged], folds[judged],
        np.unique(images.groups[judged], return_inverse=True)[1].astype(np.int64), counts,
    )  # fmt: skip


@dataclass(frozen=True)
class _Task:
    """One fit: the number of its size and repeat, and its rows."""

    size: int
    repeat: int
    rows: Rows
    held_out: Rows


def _tasks(images: LabelledFeatures, folds: Rows, sizes: list[int]) -> Iterator[_Task]:
    for fold in np.unique(folds[folds >= 0]).tolist():
        pool, held_out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        for repeat in range(REPEATS):
            order = pool[
                nested_order(images.targets[pool], images.groups[pool], (images.seed, fold, repeat))
            ]
            for number, size in enumerate(sizes):
                # Subsets of more than two thirds of the images hardly differ.
                if repeat == 0 or size <= 2 * len(pool) / 3:
                    yield _Task(number, repeat, np.sort(order[:size]), held_out)


def subset_sizes(available: int, classes: int) -> list[int]:
    """Return the numbers of training images of a curve, increasing.

    Raises
    ------
    DatasetError
        If the images are too few.
    """
    smallest = max(round(SMALLEST * available), FEWEST_PER_CLASS * classes, 8)
    if available < FEWEST_RATIO * smallest:
        raise DatasetError(
            f"A learning curve needs at least {FEWEST_RATIO * smallest} training images for "
            f"{classes} classes; there are {available}. Label more images first; with so few, more "
            "almost always help."
        )
    ratio = available / smallest
    count = min(SIZES, max(3, math.floor(math.log(ratio) / math.log(1.4)) + 1))
    return [round(size) for size in np.geomspace(smallest, available, count).tolist()]


def nested_order(targets: Rows, groups: Rows, seed: tuple[int, int, int]) -> Rows:
    """Return an order of images in which every prefix has about the class proportions of all.

    Images of a group follow each other, and each class has two of its images near the start.

    Parameters
    ----------
    targets, groups : int64 array (images,)
        Class and group of each image.
    seed : tuple of int
        A different seed gives a different order.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed[0], 1000 * seed[1] + seed[2]]))
    _, group = np.unique(groups, return_inverse=True)
    group_place = generator.permutation(int(group.max()) + 1)[group]
    place = np.empty(len(targets))
    for label in np.unique(targets):
        rows = np.flatnonzero(targets == label)
        order = rows[np.lexsort((generator.permutation(len(rows)), group_place[rows]))]
        share = (np.arange(len(rows)) + generator.uniform()) / len(rows)
        share[:FEWEST_PER_CLASS] -= 1  # before all others
        place[order] = share
    # A group takes the position of its first image.
    first = np.full(int(group.max()) + 1, np.inf)
    np.minimum.at(first, group, place)
    return np.lexsort((place, group_place, first[group])).astype(np.int64)
