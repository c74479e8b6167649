"""The typical size of a dataset's images, from the headers of a sample of files."""

from __future__ import annotations

import math

import numpy as np

from kindsight.dataset.table import ImageDataset
from kindsight.errors import ImageError
from kindsight.images.read import read_bytes, stored_size

__all__ = ["typical_sides"]

SAMPLE = 101
"""Images whose headers are read: a few hundredths of a second."""

LARGE_FILE = 400_000
"""Bytes of a file that is not read and counts as a large image: 200 x 200 pixels of 16-bit RGB have
240 kB uncompressed."""


def typical_sides(dataset: ImageDataset) -> tuple[float, float] | None:
    """Return the median of the images' shorter sides and that of their longer ones, in pixels.

    Infinite where most images are in large files; None if no image is readable.
    """
    rows = np.linspace(0, len(dataset) - 1, min(SAMPLE, len(dataset))).round().astype(int)
    sides = [found for row in rows.tolist() if (found := _sides(dataset, row)) is not None]
    if not sides:
        return None
    shorter, longer = zip(*sides, strict=True)
    # Not the mean of two medians, which is NaN for two infinite ones.
    middle = (len(sides) - 1) // 2
    return sorted(shorter)[middle], sorted(longer)[middle]


def _sides(dataset: ImageDataset, row: int) -> tuple[float, float] | None:
    """Return an image's shorter and longer side; None if it is unreadable."""
    if dataset.arrays is not None:
        size: tuple[int, ...] | None = dataset.arrays[row].shape[:2]
    elif dataset.size[row] > LARGE_FILE:
        return math.inf, math.inf
    else:
        try:
            size = stored_size(read_bytes(dataset.file(row), max_bytes=LARGE_FILE))
        except ImageError as error:
            return (math.inf, math.inf) if error.code == "too-large" else None
    return None if size is None else (min(size), max(size))
