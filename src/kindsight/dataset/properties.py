"""Typical size of a dataset's images, and one range of values where samples have over 8 bits.

Files seldom state which value is white: 12-bit data are stored in 16 bits, temperatures as floats.
If each image were scaled by itself, equal values would get different greys. Therefore, the range
over a sample of the images is used for all of them, in training and in prediction.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from kindsight.dataset.columns.convert import take_rows
from kindsight.dataset.names import n_images
from kindsight.dataset.table import ImageDataset
from kindsight.errors import ImageError
from kindsight.images.convert import ValueRange, ValueScale
from kindsight.images.read import is_deep, read_bytes, read_with_scale, stored_size
from kindsight.threads import count_cores, map_ordered

__all__ = ["describe_range", "typical_range", "typical_sides", "with_value_range"]

SIZE_SAMPLE = 101
"""Number of images whose headers are read; it takes a few hundredths of a second."""

LARGE_FILE = 400_000
"""Bytes from which a file is not read and counts as a large image: 200 x 200 pixels of 16-bit RGB
have 240 kB uncompressed."""


def typical_sides(dataset: ImageDataset) -> tuple[float, float] | None:
    """Return the median of the images' shorter sides and that of their longer ones, in pixels.

    Infinite if most images are large files; None if no image is readable.
    """
    rows = np.linspace(0, len(dataset) - 1, min(SIZE_SAMPLE, len(dataset))).round().astype(int)
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
            size = stored_size(read_bytes(dataset.address(row), max_bytes=LARGE_FILE))
        except ImageError as error:
            return (math.inf, math.inf) if error.code == "too-large" else None
    return None if size is None else (min(size), max(size))


SAMPLE = 32
"""Number of sampled files; those with more than 8 bits are decoded."""

MANY = 100_000
"""Maximum number of rows that are sorted by path to sample evenly. Of more rows, this many evenly
spaced ones are sorted."""

_ENDINGS = (".png", ".tif", ".tiff", ".pgm", ".ppm", ".pnm", ".jp2")
"""Endings of files that can have more than 8 bits per sample and whose decoder returns them."""

_HEAD = 64
"""Bytes at the start of a file that suffice for the bit depth of a PNG or PGM."""


def typical_range(lows: ArrayLike, highs: ArrayLike) -> ValueRange | None:
    """Return the range over images, given the minimum and maximum of each.

    An image that exceeds the median range extends it by at most the width of that range on either
    side, so that a single value cannot make the others black or white. None if all values are
    equal.
    """
    low, high = np.asarray(lows, np.float64), np.asarray(highs, np.float64)
    least, greatest = float(low.min()), float(high.max())
    usual_low, usual_high = float(np.median(low)), float(np.median(high))
    width = usual_high - usual_low
    if width > 0:
        least, greatest = max(least, usual_low - width), min(greatest, usual_high + width)
    return (least, greatest) if least < greatest else None


def with_value_range(dataset: ImageDataset, given: ValueRange | None = None) -> ImageDataset:
    """Return the dataset with the range by which samples of more than 8 bits become 0-255.

    Parameters
    ----------
    dataset : ImageDataset
        A dataset of files; arrays are scaled when the dataset is made.
    given : (low, high), optional
        The range; by default that of up to 32 images, of the train split if there is one.

    Returns
    -------
    ImageDataset
        With ``value_range`` and notes on it; unchanged if all images have 8 bits or state their
        depth.
    """
    if dataset.arrays is not None or dataset.value_range is not None:
        return dataset
    read = functools.partial(_read_scale, dataset)
    found = [scale for scale in map_ordered(read, _rows(dataset), count_cores()) if scale]
    if given is None:
        unstated = [scale for scale in found if not scale.stated]
        given = typical_range(*_ends(found)) if unstated else None
    if given is None:
        return dataset
    ranged = replace(dataset, value_range=given)
    if not found:
        return ranged
    low, high = given
    outside = sum(scale.low < low or scale.high > high for scale in found)
    notes = [
        f"The samples have more than 8 bits. {describe_range(given)} becomes black to white in "
        f"every image; the values in a sample of {n_images(len(found))} are "
        f"{describe_range(_whole(found))}. "
        "Set the range with --value-range LOW,HIGH (in Python value_range)."
    ]
    if outside:
        notes.append(
            f"In {outside:,} of {n_images(len(found))} sampled, values outside "
            f"{describe_range(given)} are clipped."
        )
    return ranged.with_notes(*notes)


def describe_range(value_range: ValueRange) -> str:
    """Return a range in words: ``"0 to 4,095"``."""
    return " to ".join(
        f"{value:,.0f}" if value == round(value) and abs(value) < 1e9 else f"{value:.6g}"
        for value in value_range
    )


def _ends(scales: Sequence[ValueScale]) -> tuple[list[float], list[float]]:
    return [scale.low for scale in scales], [scale.high for scale in scales]


def _whole(scales: Sequence[ValueScale]) -> ValueRange:
    lows, highs = _ends(scales)
    return min(lows), max(highs)


def _rows(dataset: ImageDataset) -> list[int]:
    """Return rows of files that can have more than 8 bits, evenly spaced in the order of paths."""
    used = dataset.rows_in("train", None)
    if len(used) > MANY:
        used = used[np.linspace(0, len(used) - 1, MANY).round().astype(int)]
    paths = dict(zip(used.tolist(), take_rows(dataset.path, used), strict=True))
    rows = [row for row, path in paths.items() if path.lower().endswith(_ENDINGS)]
    rows.sort(key=paths.__getitem__)
    if len(rows) <= SAMPLE:
        return rows
    return [rows[index] for index in np.linspace(0, len(rows) - 1, SAMPLE).round().astype(int)]


def _read_scale(dataset: ImageDataset, row: int) -> ValueScale | None:
    """Return the values of an image with more than 8 bits; None for others and unreadable ones."""
    file, scale = dataset.address(row), ValueScale()
    try:
        if _is_shallow(file):
            return None
        data = read_bytes(file)
        if not is_deep(data):
            return None
        read_with_scale(data, scale)
    except ImageError:
        return None
    return scale if scale.low <= scale.high else None


def _is_shallow(file: str) -> bool:
    """Return whether the first bytes show a PNG of at most 8 bits, which need not be read."""
    try:
        # Pipes and devices are refused when the whole file is read.
        if not os.path.isfile(file):  # noqa: PTH113 (a NUL in the name is no error here)
            return False
        with Path(file).open("rb") as opened:
            head = opened.read(_HEAD)
    except (OSError, ValueError):
        return False
    return head.startswith(b"\x89PNG") and not is_deep(head)
