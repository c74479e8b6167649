"""The images of a dataset that an :class:`ImageClassifier` trains, validates and scores on."""

from __future__ import annotations

import warnings

from kindsight.dataset import ImageDataset
from kindsight.dataset.splits.stratified import random_split
from kindsight.errors import DatasetError

__all__ = ["labelled_images", "used_splits", "with_validation"]

VALIDATION = 0.1
"""The default fraction of images for validation, where a training needs a validation split."""


def labelled_images(dataset: ImageDataset) -> ImageDataset:
    """Return the images that have a label, with a warning if there are others."""
    missing = sum(label is None for label in dataset.label)
    if missing == len(dataset):
        raise DatasetError(
            "Images must have labels; got none. Give y, or a folder of class folders."
        )
    if not missing:
        return dataset
    warnings.warn(
        f"{missing} of {len(dataset)} images have no label and were left out.", stacklevel=3
    )
    return dataset[[label is not None for label in dataset.label]]


def used_splits(dataset: ImageDataset, validates: bool) -> ImageDataset:
    """Return the train split, and the validation split where it is used; all without splits."""
    if all(split is None for split in dataset.split):
        return dataset
    wanted = ("train", "validation") if validates else ("train",)
    return dataset[[split in wanted for split in dataset.split]]


def with_validation(dataset: ImageDataset, size: float | None, seed: int) -> ImageDataset:
    """Return the dataset with a validation split of a fraction or a number of images."""
    share = VALIDATION if size is None else size
    if any(dataset.split) or not share:
        return dataset
    return random_split(dataset, validation=int(share) if share >= 1 else share, seed=seed)
