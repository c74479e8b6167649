"""Split a dataset in one call, without near-duplicates across splits."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.cache.folder import Cache
from kindsight.checks.context import CheckContext
from kindsight.checks.duplicates.search import find_duplicates
from kindsight.checks.measurements import measure_dataset
from kindsight.dataset import ImageDataset
from kindsight.dataset.names import n_images, quoted
from kindsight.dataset.reading.process_files import Progress
from kindsight.dataset.splits.settings import SplitSettings
from kindsight.errors import DatasetError

__all__ = ["split_dataset"]


def split_dataset(
    dataset: ImageDataset,
    *,
    workers: int | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> ImageDataset:
    """Split a dataset as ``kindsight train`` does, without duplicates across splits.

    Each image is read once to find near-duplicates; the measurements are cached. Splits and groups
    that the dataset has are respected.

    Parameters
    ----------
    dataset : ImageDataset
        With labels.
    workers : int, optional
        Threads that read images; the number of cores by default.
    cache : Cache, optional
        Stores the measurements; this machine's cache by default.
    progress : callable, optional
        Called with (images done, number of images).
    **settings
        The settings of :class:`kindsight.dataset.SplitSettings`.

    Returns
    -------
    ImageDataset
        The same rows with splits and digests. Unreadable images, images that a split file excludes
        and dropped duplicates have no split; the notes name them, and ``ImageClassifier.fit``
        ignores them.

    Raises
    ------
    SettingsError
        If a setting is invalid.
    DatasetError
        If the images cannot be split as requested, or none can be read.
    """
    if isinstance(settings.get("file"), os.PathLike):
        settings["file"] = os.fspath(settings["file"])
    chosen = SplitSettings(**settings)
    chosen.check()
    measured, measurements = measure_dataset(
        dataset, cache or Cache(), workers=workers, progress=progress
    )
    context = CheckContext(measured, measurements)
    rows = context.readable_rows
    if not len(rows):
        reasons = Counter(str(reason) for reason in measurements.reason if reason).most_common(1)
        why = f" {reasons[0][0]}" if reasons else ""
        raise DatasetError(
            f"None of the {n_images(len(dataset))} could be read.{why} Check that the files are "
            "images."
        )
    index_of: dict[int, int] = {row: index for index, row in enumerate(rows.tolist())}
    duplicates = [
        [index_of[row] for row in group.tolist()] for group in find_duplicates(context).groups()
    ]

    def taken() -> NDArray[np.float64]:
        return np.asarray(measurements.taken, np.float64)[rows]

    result, _ = chosen.split_without_leakage(measured[rows], duplicates, taken)
    split: list[str | None] = [None] * len(measured)
    group = list(measured.group)
    for index, row in enumerate(rows.tolist()):
        split[row], group[row] = result.split[index], result.group[index]
    whole = measured.with_columns(split=split, group=group).with_notes(*result.notes)
    unreadable = [row for row in range(len(measured)) if row not in index_of]
    if not unreadable:
        return whole
    return whole.with_notes(
        f"In no split because they could not be read: {n_images(len(unreadable))}, first "
        f"{quoted(measured.path[unreadable[0]])}."
    )
