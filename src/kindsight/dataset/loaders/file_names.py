"""Labels and groups that stand in the names of the files."""

from __future__ import annotations

from dataclasses import replace

from kindsight.dataset.labels import check_label_typos, class_order
from kindsight.dataset.names import images, shown
from kindsight.dataset.options import DataOptions, NamePattern
from kindsight.dataset.table import ImageDataset, exclude_rows
from kindsight.errors import DatasetError

__all__ = ["groups_from_names", "labels_from_names", "with_names"]


def labels_from_names(dataset: ImageDataset, pattern: str) -> ImageDataset:
    """Take the labels from the names; images in whose names there is none are left out.

    Parameters
    ----------
    dataset : ImageDataset
        Of files.
    pattern : str
        As in :class:`NamePattern`; the group is called ``label``.

    Raises
    ------
    DatasetError
        If no name matches.
    """
    labels = _found(dataset, NamePattern(pattern, "label"), "labels")
    check_label_typos(labels, lambda row: shown(dataset.path[row]))
    labelled = replace(dataset, label=tuple(labels), classes=class_order(labels))
    missing = [row for row, label in enumerate(labels) if label is None]
    if not missing:
        return labelled
    note = (
        f"Without a label in the name, and so left out: {images(len(missing))}, the first of "
        f"them {shown(dataset.path[missing[0]])}."
    )
    return exclude_rows(labelled, missing, "name without a label", note)


def groups_from_names(dataset: ImageDataset, pattern: str) -> ImageDataset:
    """Take the groups from the names; an image in whose name there is none is none's.

    Parameters
    ----------
    dataset : ImageDataset
        Of files.
    pattern : str
        As in :class:`NamePattern`; the group is called ``group``.

    Raises
    ------
    DatasetError
        If no name matches.
    """
    groups = _found(dataset, NamePattern(pattern, "group"), "groups")
    missing = [row for row, group in enumerate(groups) if group is None]
    grouped = dataset.with_columns(group=groups)
    if not missing:
        return grouped
    return grouped.with_notes(
        f"Without a group in the name, and so each for itself: {images(len(missing))}, the first "
        f"of them {shown(dataset.path[missing[0]])}."
    )


def with_names(
    dataset: ImageDataset, options: DataOptions, *, labelled: bool = True
) -> ImageDataset:
    """Take from the names whatever the options say is in them.

    Raises
    ------
    DatasetError
        If no name matches, or the images have none.
    """
    if labelled and options.label_from is not None:
        dataset = labels_from_names(dataset, options.label_from)
    if labelled and options.group_from is not None:
        dataset = groups_from_names(dataset, options.group_from)
    return dataset


def _found(dataset: ImageDataset, pattern: NamePattern, what: str) -> list[str | None]:
    if dataset.arrays is not None:
        raise DatasetError(
            f"Only files have names that can hold {what}. Received: images in memory, and the "
            f"pattern {pattern.text!r}. Leave the pattern out."
        )
    found = [pattern.find(path) for path in dataset.path]
    if not any(found):
        raise DatasetError(
            f"A pattern on names must match some of them. Received: {pattern.text!r}, which finds "
            f"none of the {what} of {images(len(found))}; the first is {shown(dataset.path[0])}."
        )
    return found
