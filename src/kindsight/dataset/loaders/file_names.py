"""Labels and groups extracted from file names."""

from __future__ import annotations

from dataclasses import replace

from kindsight.dataset.labels import check_label_typos, class_order
from kindsight.dataset.names import images, shown
from kindsight.dataset.options import DataOptions, NamePattern
from kindsight.dataset.table import ImageDataset, exclude_rows
from kindsight.errors import DatasetError

__all__ = ["with_names"]


def _with_labels(dataset: ImageDataset, pattern: str) -> ImageDataset:
    labels = _found(dataset, NamePattern(pattern, "label"), "labels")
    check_label_typos(labels, lambda row: shown(dataset.path[row]))
    labelled = replace(dataset, label=tuple(labels), classes=class_order(labels))
    missing = [row for row, label in enumerate(labels) if label is None]
    if not missing:
        return labelled
    note = (
        f"Ignored without a label in the name: {images(len(missing))}, first "
        f"{shown(dataset.path[missing[0]])}."
    )
    return exclude_rows(labelled, missing, "name without a label", note)


def _with_groups(dataset: ImageDataset, pattern: str) -> ImageDataset:
    groups = _found(dataset, NamePattern(pattern, "group"), "groups")
    missing = [row for row, group in enumerate(groups) if group is None]
    grouped = dataset.with_columns(group=groups)
    if not missing:
        return grouped
    return grouped.with_notes(
        f"Not in any group, without a group in the name: {images(len(missing))}, first "
        f"{shown(dataset.path[missing[0]])}."
    )


def with_names(
    dataset: ImageDataset, options: DataOptions, *, labelled: bool = True
) -> ImageDataset:
    """Return the dataset with labels and groups extracted from file names, as the options say.

    Raises
    ------
    DatasetError
        If no name matches, or the images are in memory.
    """
    if labelled and options.label_from is not None:
        dataset = _with_labels(dataset, options.label_from)
    if labelled and options.group_from is not None:
        dataset = _with_groups(dataset, options.group_from)
    return dataset


def _found(dataset: ImageDataset, pattern: NamePattern, what: str) -> list[str | None]:
    if dataset.arrays is not None:
        raise DatasetError(
            f"The pattern {pattern.text!r} cannot extract {what}: images in memory have no file "
            "names. Leave the pattern out."
        )
    found = [pattern.find(path) for path in dataset.path]
    if not any(found):
        raise DatasetError(
            f"The pattern {pattern.text!r} found no {what} in the names of {images(len(found))}; "
            f"the first is {shown(dataset.path[0])}."
        )
    return found
