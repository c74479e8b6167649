"""Checks and helpers shared by all trainers: settings, targets, class weights, column scales."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kindsight import random_stream
from kindsight.dataset import ImageDataset
from kindsight.dataset.labels import class_indices
from kindsight.dataset.splits.groups import SMALLER_GROUPS, group_indices
from kindsight.errors import DatasetError
from kindsight.models.backbones.backbone import SIZE_RANGE
from kindsight.models.worker.device import device_faults
from kindsight.training.option_rules import option_faults

__all__ = [
    "ColumnScale", "Progress", "balanced_weights", "class_targets", "common_faults",
    "fraction_outside", "mean_and_scale", "training_sample",
]  # fmt: skip

Floats = NDArray[np.float32]
ColumnScale: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Mean and inverse deviation of each column."""

# Features whose deviations are held at once: they stay in the processor's cache, and new memory for
# all of them would take ten times as long as the sums.
BLOCK_ROWS = 64
# A column with a smaller deviation relative to its size is rounding noise.
MIN_DEVIATION = 1e-5
# A column is multiplied by the inverse of its deviation, which is taken to be at least these
# fractions of its own size and of the size of its layer's columns. The float32 sums of a column
# that varies in its last digits only would cancel to rounding, and runtimes differ by 1e-5 of a
# layer's size where a column is 0 except on a few images. On cats-dogs and sign-digits no column is
# below either.
MIN_RATIO_TO_MEAN = 1e-3
MIN_RATIO_TO_LAYER = 1e-4


def mean_and_scale(features: Floats, layers: Sequence[slice]) -> ColumnScale:
    """Return each column's mean and bounded inverse deviation, 0 where it is constant."""
    mean = features.mean(0, dtype=np.float64)
    squares = np.zeros_like(mean)
    for start in range(0, len(features), BLOCK_ROWS):
        squares += np.square(features[start : start + BLOCK_ROWS] - mean).sum(0)
    deviation = np.sqrt(squares / len(features))
    varies = deviation > MIN_DEVIATION * (np.abs(mean) + 1e-3)
    floor = MIN_RATIO_TO_MEAN * np.abs(mean)
    for columns in layers:
        size = np.sqrt((np.square(mean[columns]) + np.square(deviation[columns])).mean())
        floor[columns] = np.maximum(floor[columns], MIN_RATIO_TO_LAYER * size)
    deviation = np.maximum(deviation, floor)
    return mean, np.where(varies, 1 / np.where(varies, deviation, 1.0), 0.0)


TRAIN_SAMPLE = 1000
"""Training images that are predicted: enough for an accuracy to within 3 percentage points."""

BACKBONE_TRAIN_SAMPLE = 300
"""The same where each prediction runs a backbone, which takes a hundredth of a second."""

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total); total is 0 if unknown."""


def common_faults(training: Any, sides: tuple[int, int] = SIZE_RANGE) -> list[str]:
    """Return a sentence for each invalid setting among those that all trainers have."""
    found = list(
        option_faults(
            vars(training), ("class_weight", "resize", "seed", "workers", "value_range", "device")
        ).values()
    )
    found += device_faults(training.device)
    size = training.size
    pair = size if isinstance(size, tuple) and len(size) == 2 else (size,)
    whole = all(isinstance(side, (int, np.integer)) and not isinstance(side, bool) for side in pair)
    if size is not None and not (whole and all(sides[0] <= side <= sides[1] for side in pair)):
        found.append(
            f"`size` must be a whole number of pixels from {sides[0]} to {sides[1]}, or a pair "
            f"(height, width) of them; got {size!r}."
        )
    return found


def training_sample(rows: NDArray[np.int64], seed: int, *, by_backbone: bool) -> NDArray[np.int64]:
    """Return a random sample of the rows of training images, sorted.

    The same for one seed and number of images; at most :data:`TRAIN_SAMPLE`, or
    :data:`BACKBONE_TRAIN_SAMPLE` where each prediction runs a backbone.
    """
    count = BACKBONE_TRAIN_SAMPLE if by_backbone else TRAIN_SAMPLE
    order = random_stream.permutation(seed, "training sample", 0, len(rows))
    return rows[np.sort(order[:count])]


def class_targets(dataset: ImageDataset, classes: Sequence[str]) -> NDArray[np.int64]:
    """Return the class indices of the training images, int64 (images,).

    Raises
    ------
    DatasetError
        If there are fewer than two classes or two different images, or a class has no image.
    """
    targets = class_indices(dataset.label, classes)
    if len(classes) < 2:
        raise DatasetError(
            "A classifier needs at least two classes. The dataset has "
            f"{', '.join(classes) or 'none'}."
        )
    empty = [name for k, name in enumerate(classes) if not (targets == k).any()]
    if empty:
        raise DatasetError(
            f"Every class needs a readable training image. There is none of {', '.join(empty)}."
        )
    if group_indices(dataset).max() == 0:
        if len({*dataset.digest}) > 1:
            raise DatasetError(
                f"A classifier needs training images of at least two groups. All "
                f"{len(targets):,} are of one. Use fewer images for validation and test, or "
                f"{SMALLER_GROUPS}."
            )
        raise DatasetError(
            "A classifier needs at least two different images. The dataset has "
            f"{len(targets):,} times the same one."
        )
    return targets


def balanced_weights(targets: NDArray[np.int64], class_weight: str | None) -> Any:
    """Return the weight of each class, float64 (classes,); None for equal weights of all images.

    ``"balanced"`` gives all classes the same total weight, and images a mean weight of 1.
    """
    if class_weight in (None, "none"):
        return None
    counts = np.bincount(targets)
    return len(targets) / (len(counts) * counts)


def fraction_outside(sizes: Sequence[tuple[int, int]], size: tuple[int, int]) -> float:
    """Return the mean share of the images' area outside a crop to `size`, 0 to 1.

    Parameters
    ----------
    sizes : sequence of (height, width)
    size : (height, width)
    """
    found = np.array(sizes, np.float64).reshape(-1, 2)
    ratio = found[:, 0] / found[:, 1] * (size[1] / size[0])
    return float(1.0 - np.minimum(ratio, 1 / ratio).mean()) if len(found) else 0.0
