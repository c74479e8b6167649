"""Split a dataset by capture time: the newest images are for validation and test.

A classifier will see images that are newer than its training images. A random split hides what
changes over time (seasons, cameras, worn tools); this split shows it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.columns.codes import CodeColumn
from kindsight.dataset.names import n_images, quoted_list
from kindsight.dataset.splits.groups import group_indices, split_codes
from kindsight.dataset.splits.leakage import duplicate_notes
from kindsight.dataset.splits.stratified import is_already_split, rows_to_split, split_fractions
from kindsight.dataset.table import SPLITS, ImageDataset
from kindsight.errors import DatasetError

__all__ = ["split_by_date"]


class _Blocks(NamedTuple):
    """The rows of each date, newest first."""

    dates: NDArray[Any]  # seconds since 1970, float64
    ends: NDArray[np.int64]  # the number of images up to each date
    rows: NDArray[np.int64]


def split_by_date(
    dataset: ImageDataset,
    taken: NDArray[np.floating[Any]],
    *,
    validation: float | int = 0.2,
    test: float | int = 0.0,
) -> ImageDataset:
    """Split a dataset by capture time; existing splits are respected.

    The newest images become the test split, the next newest the validation split. Images of the
    same second, byte-identical images and images of one group stay together; a group counts as
    taken when its newest image was. No train image is therefore newer than any validation image,
    and no validation image newer than any test image. The numbers of images are as close to the
    requested ones as that allows. Images without a date are train images.

    - `dataset`: with labels and digests in all rows.
    - `taken`: float array (n,); capture times in seconds since 1970; NaN where unknown.
    - `validation`, `test`: as in :func:`kindsight.dataset.random_split`.

    Returns
    -------
    ImageDataset
        Every row has a split. The notes name classes that the validation or test split lacks.

    Raises
    ------
    DatasetError
        If too few images have a date, or a class would have no images to train on.
    SettingsError
        As in :func:`kindsight.dataset.random_split`.
    """
    if is_already_split(dataset):
        return dataset.with_notes(
            *duplicate_notes(dataset), "Not split by date: the data are already split."
        )
    rows = rows_to_split(dataset)
    fractions = split_fractions(dataset, rows, validation, test)
    blocks = _blocks(dataset, rows, taken) if fractions else _Blocks(*[np.zeros(0, np.int64)] * 3)
    _check_dates(len(rows), blocks, fractions)
    split = split_codes(dataset)
    split[rows] = SPLITS.index("train")
    notes, used = [], 0  # blocks
    reserves = range(len(fractions), 0, -1)
    for reserve, (name, fraction) in zip(reserves, fractions.items(), strict=True):
        ends = blocks.ends[used : len(blocks.ends) - reserve]
        start = int(blocks.ends[used - 1]) if used else 0
        used += _closest_count(ends - start, fraction * len(rows))
        split[blocks.rows[start : blocks.ends[used - 1]]] = SPLITS.index(name)
        first = _day(float(blocks.dates[used - 1]))
        notes.append(f"Images of the {name} split were taken from {first} on.")
    result = dataset.with_columns(split=CodeColumn(split, SPLITS))
    _check_training(result)
    if undated := int(np.count_nonzero(~np.isfinite(taken[rows]))):
        notes.append(f"Without a capture date, so in the train split: {n_images(undated)}.")
    return result.with_notes(*duplicate_notes(result), *notes, *_absent(result, fractions))


def _blocks(
    dataset: ImageDataset, rows: NDArray[np.int64], taken: NDArray[np.floating[Any]]
) -> _Blocks:
    """Return the distinct dates with their rows, newest first; a group has its newest date."""
    indices = group_indices(dataset)[rows]
    newest = np.full(int(indices.max()) + 1, -np.inf)
    dates = np.where(np.isfinite(taken[rows]), taken[rows], -np.inf)
    np.maximum.at(newest, indices, dates)
    dates = newest[indices]
    order = np.argsort(-dates, kind="stable")
    order = order[dates[order] > -np.inf]
    last = np.flatnonzero(np.diff(dates[order], append=np.nan) != 0)
    return _Blocks(dates[order][last], last + 1, rows[order])


def _closest_count(totals: NDArray[np.int64], wanted: Fraction) -> int:
    """Return the number of blocks, at least one, that comes closest to the wanted number of images.

    - `totals`: the images of the first block, of the first two, and so on.
    """
    above = int(np.searchsorted(totals, float(wanted)))
    near = range(max(0, above - 2), min(len(totals), above + 2))
    return 1 + min(near, key=lambda k: abs(int(totals[k]) - wanted))


def _check_dates(n: int, blocks: _Blocks, fractions: dict[str, Fraction]) -> None:
    if not fractions:
        return
    dated, fraction = len(blocks.rows), sum(fractions.values())
    if dated == 0:
        raise DatasetError(
            f"Cannot split by date: none of {n_images(n)} has a capture date in its EXIF data. Use "
            "`split_by=\"random\"`, or a table with a column 'split'."
        )
    if dated <= fraction * n:
        raise DatasetError(
            f"Cannot split by date: {dated:,} of {n_images(n)} have a capture date, too few for "
            f"validation and test splits of {float(fraction):.0%}. Use smaller fractions or "
            '`split_by="random"`.'
        )
    if len(blocks.dates) <= len(fractions):
        raise DatasetError(
            f"Cannot split by date: {n_images(dated)} have only {len(blocks.dates)} different "
            'capture times (duplicates and groups count once). Use `split_by="random"`.'
        )


def _check_training(dataset: ImageDataset) -> None:
    present = dataset.labels_in("train")
    if absent := [name for name in dataset.present_classes() if name not in present]:
        raise DatasetError(
            f"A split by date leaves no images to train on for {quoted_list(absent)}: all of them "
            'are new. Use smaller validation and test splits or `split_by="random"`.'
        )


def _absent(dataset: ImageDataset, fractions: dict[str, Fraction]) -> Iterator[str]:
    for name in fractions:
        present = dataset.labels_in(name)
        if absent := [label for label in dataset.present_classes() if label not in present]:
            yield f"The {name} split has no images of {quoted_list(absent)}."


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))
