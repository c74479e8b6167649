"""Checks and helpers shared by all trainers: settings, targets, class weights."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset import ImageDataset
from kindsight.dataset.labels import class_indices
from kindsight.dataset.splits.groups import group_indices
from kindsight.errors import DatasetError
from kindsight.models.backbones.backbone import SIZE_RANGE

__all__ = [
    "CLASS_WEIGHTS",
    "RESIZES",
    "Progress",
    "balanced_weights",
    "choice_fault",
    "class_targets",
    "common_faults",
    "fraction_outside",
    "number_fault",
    "whole_fault",
]

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total); total is 0 if unknown."""

CLASS_WEIGHTS = ("none", "balanced")
RESIZES = ("crop", "stretch", "pad")


def choice_fault(name: str, value: object, choices: Sequence[str]) -> str:
    """Return a sentence unless a value is one of the choices, which names the nearest; else ""."""
    if isinstance(value, str) and value in choices:
        return ""
    near = difflib.get_close_matches(str(value), choices, 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{name} must be one of {', '.join(choices)}. Received: {value!r}.{hint}"


def whole_fault(name: str, value: object, least: int, most: int) -> str:
    """Return a sentence unless a value is a whole number from `least` to `most`; else ""."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if whole and least <= int(value) <= most:  # type: ignore[call-overload]
        return ""
    return f"{name} must be a whole number from {least} to {most:,}. Received: {value!r}."


def number_fault(
    name: str, value: object, least: float, below: float, *, open_low: bool = False
) -> str:
    """Return a sentence unless a value is a number from `least` to below `below`; else ""."""
    real = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if real and (least < value if open_low else least <= value) and value < below:  # type: ignore[operator]
        return ""
    start = f"above {least:g}" if open_low else f"from {least:g}"
    return f"{name} must be a number {start} to below {below:g}. Received: {value!r}."


def common_faults(training: Any, sides: tuple[int, int] = SIZE_RANGE) -> list[str]:
    """Return a sentence for each invalid setting among those that all trainers have."""
    size = training.size
    pair = isinstance(size, tuple) and len(size) == 2
    wrong = size is not None and any(
        whole_fault("size", side, *sides) for side in (size if pair else (size,))
    )
    found = [
        ""
        if training.class_weight is None
        else choice_fault("class_weight", training.class_weight, CLASS_WEIGHTS),
        choice_fault("resize", training.resize, RESIZES),
        whole_fault("seed", training.seed, 0, 2**63 - 1),
        "" if training.workers is None else whole_fault("workers", training.workers, 1, 1024),
        f"size must be a whole number of pixels from {sides[0]} to {sides[1]}, or a pair (height, "
        f"width) of them. Received: {size!r}."
        if wrong
        else "",
    ]
    return [fault for fault in found if fault]


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
        raise DatasetError(
            "A classifier needs at least two different images. The dataset has "
            f"{len(targets)} times the same one."
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
