"""Check that a split is possible before any image is read."""

from __future__ import annotations

from kindsight.dataset.splits.from_file import read_split
from kindsight.dataset.splits.groups import group_indices
from kindsight.dataset.splits.settings import SplitSettings
from kindsight.dataset.splits.stratified import (
    check_group_counts,
    check_no_validation,
    is_already_split,
    parse_fold,
    rows_to_split,
    split_fractions,
)
from kindsight.dataset.table import ImageDataset

__all__ = ["check_split"]


def check_split(dataset: ImageDataset, settings: SplitSettings) -> None:
    """Raise an error if the dataset cannot be split as requested, without reading any image.

    Only paths, labels, groups and known digests are used. A split that passes can still fail
    later, when unreadable images, duplicates or near-duplicates reduce the number of groups, or
    when images lack a capture date.

    Parameters
    ----------
    dataset : ImageDataset
        With labels; existing splits are respected.
    settings : SplitSettings

    Raises
    ------
    SettingsError
        If a setting is invalid, or the sizes leave no images to train on.
    DatasetError
        If a class has too few groups for the splits or folds, or the split file is invalid.
    """
    settings.check()
    if settings.file is not None:
        stated = read_split(settings.file)
        if stated.by_digest and not all(path in stated.by_path for path in dataset.path):
            return  # images may be matched by their content, which is not known yet
        dataset = stated.apply(dataset)
        dataset = dataset[[row for row, name in enumerate(dataset.split) if name is not None]]
    if settings.fold is not None:
        check_no_validation(dataset)
    elif is_already_split(dataset):
        return
    rows = rows_to_split(dataset, need_digests=False)
    sizes = settings.sizes()
    validation = 0.0 if settings.fold is not None else sizes["validation"]
    fractions = split_fractions(dataset, rows, validation, sizes["test"])
    if settings.by == "date":
        return
    indices = group_indices(dataset).tolist()
    if fractions:
        check_group_counts(dataset, rows, indices, list(fractions))
    if settings.fold is not None:
        check_group_counts(dataset, rows, indices, [], parse_fold(settings.fold)[1])
