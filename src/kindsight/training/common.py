"""What all ways to train have in common: settings, their faults, classes as numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.catalog import Catalog
from kindsight.catalog.split import units
from kindsight.errors import CatalogError
from kindsight.models.backbones import SIZE_RANGE
from kindsight.training.rules import choice_fault, whole_fault

__all__ = [
    "CLASS_WEIGHTS",
    "RESIZES",
    "Progress",
    "balanced_weights",
    "class_targets",
    "common_faults",
    "share_outside",
]

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total); total is 0 where it is not known."""

CLASS_WEIGHTS = ("none", "balanced")
RESIZES = ("crop", "stretch", "pad")


def common_faults(training: Any, sides: tuple[int, int] = SIZE_RANGE) -> list[str]:
    """Return a sentence for each of the settings that cannot be which every training has."""
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
        f"size must be a whole number of pixels from {sides[0]} to {sides[1]}, or a (height, "
        f"width) of two. Received: {size!r}."
        if wrong
        else "",
    ]
    return [fault for fault in found if fault]


def class_targets(catalog: Catalog, classes: Sequence[str]) -> NDArray[np.int64]:
    """Return the labels of what is to be learned from as numbers, int64 (pictures,).

    Raises
    ------
    CatalogError
        If there are fewer than two classes or two different pictures, or a class has no picture.
    """
    places = {name: place for place, name in enumerate(classes)}
    targets = np.array([places[str(label)] for label in catalog.label], np.int64)
    if len(classes) < 2:
        raise CatalogError(
            f"A classifier needs two classes or more. Received: {', '.join(classes) or 'none'}."
        )
    empty = [name for name, place in places.items() if not (targets == place).any()]
    if empty:
        raise CatalogError(
            "Every class must have a picture to learn from that can be read. Received: none of "
            f"{', '.join(empty)}."
        )
    if units(catalog).max() == 0:
        raise CatalogError(
            "A classifier needs two different pictures or more. Received: "
            f"{len(targets)} times the same."
        )
    return targets


def balanced_weights(targets: NDArray[np.int64], class_weight: str | None) -> Any:
    """Return how much each class counts, float64 (classes,); None where all pictures count alike.

    ``"balanced"`` gives each class the same weight in all, and a picture the weight 1 on average.
    """
    if class_weight in (None, "none"):
        return None
    counts = np.bincount(targets)
    return len(targets) / (len(counts) * counts)


def share_outside(sizes: Sequence[tuple[int, int]], size: tuple[int, int]) -> float:
    """Return how much of the pictures' area lies outside a crop to `size`, on average: 0 to 1.

    Parameters
    ----------
    sizes : sequence of (height, width)
        Of the pictures.
    size : (height, width)
    """
    found = np.array(sizes, np.float64).reshape(-1, 2)
    proportion = found[:, 0] / found[:, 1] * (size[1] / size[0])
    return float(1.0 - np.minimum(proportion, 1 / proportion).mean()) if len(found) else 0.0
