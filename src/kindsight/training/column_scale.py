"""Standardise columns of features without blowing up those that hardly vary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["ColumnScale", "mean_and_scale"]

Floats = NDArray[np.float32]
ColumnScale: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Mean and inverse deviation of each column."""

BLOCK_ROWS = 2048  # of features whose deviations are held at once
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
    # By blocks: all deviations at once would take twice the memory of the features.
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
