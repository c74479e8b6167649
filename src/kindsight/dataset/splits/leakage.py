"""Leakage: find duplicates across splits, and drop or move them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kindsight.dataset.columns.codes import CodeColumn
from kindsight.dataset.columns.convert import has_missing
from kindsight.dataset.loaders.values import EXCLUDED
from kindsight.dataset.names import n_images, quoted, quoted_list
from kindsight.dataset.splits.groups import connected_components, split_codes
from kindsight.dataset.table import SPLITS, ImageDataset
from kindsight.errors import DatasetError
from kindsight.files import write_csv

__all__ = [
    "LEAKAGE_FILE", "LEAKAGE_MODES", "DuplicateAcrossSplits", "Leakage", "duplicate_notes",
    "leakage_notes", "merge_groups", "resolve_leakage", "write_leakage",
]  # fmt: skip

LEAKAGE_MODES = ("drop", "move", "keep")
"""``drop``: an image stays in the last split that has it, test before validation before train;
``move``: all copies go to the first one; ``keep``: nothing changes."""

LEAKAGE_FILE = "leakage.csv"

_COLUMNS = ("group", "path", "label", "split_before", "split_after", "match")
_SHOWN_FILES = 3
_GROUP_DIGITS = 12  # of the digest, in the name of a group


@dataclass(frozen=True)
class DuplicateAcrossSplits:
    """An image that has a duplicate in another split.

    Parameters
    ----------
    group : int
        Images of one group, numbered from 1, are duplicates of each other.
    path, label : str
        The image.
    split_before, split_after : str
        Its split; ``"excluded"`` for none.
    match : str
        ``"identical"`` (byte for byte) or ``"near-duplicate"``: the relation to the images of other
        splits.
    """

    group: int
    path: str
    label: str
    split_before: str
    split_after: str
    match: str


@dataclass(frozen=True)
class Leakage:
    """Duplicates that were found across splits, and what was done.

    Parameters
    ----------
    mode : str
        One of :data:`LEAKAGE_MODES`.
    groups : tuple of tuple of int
        Rows of duplicates that were in several splits.
    changed : tuple of int
        Rows that were dropped or moved; with ``keep``, those that ``drop`` would have dropped.
    leaking_rows : tuple of int
        Rows of the validation and test split that still have a duplicate in the train split.
    note : str
        One sentence for the user; empty if nothing was found.
    duplicates : tuple of DuplicateAcrossSplits
        All images of `groups`.
    """

    mode: str
    groups: tuple[tuple[int, ...], ...] = ()
    changed: tuple[int, ...] = ()
    leaking_rows: tuple[int, ...] = ()
    note: str = ""
    duplicates: tuple[DuplicateAcrossSplits, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """Return mode, number of groups and number of images, for JSON."""
        return {"mode": self.mode, "groups": len(self.groups), "images": len(self.changed)}


def resolve_leakage(
    dataset: ImageDataset, groups: Iterable[Sequence[int]], mode: str = "drop"
) -> tuple[ImageDataset, Leakage]:
    """Remove duplicates that are in several splits from all but one of them.

    Parameters
    ----------
    dataset : ImageDataset
        With splits.
    groups : iterable of sequence of int
        Rows of duplicates or near-duplicates; no row in two groups.
    mode : str
        One of :data:`LEAKAGE_MODES`.

    Returns
    -------
    dataset : ImageDataset
        Dropped images have no split.
    leakage : Leakage

    Raises
    ------
    DatasetError
        If a class would have no images left to train on.
    """
    across: list[tuple[int, ...]] = []
    changed: list[int] = []
    split = split_codes(dataset)
    for group in groups:
        rows = tuple(sorted(int(row) for row in group if dataset.split[int(row)] is not None))
        names = [name for name in SPLITS if any(dataset.split[row] == name for row in rows)]
        if len(names) < 2:
            continue
        across.append(rows)
        target = names[0] if mode == "move" else names[-1]
        for row in rows:
            if dataset.split[row] != target:
                changed.append(row)
                split[row] = SPLITS.index(target) if mode == "move" else -1
    if not across:
        return dataset, Leakage(mode)
    if mode == "keep":
        split = split_codes(dataset)
    resolved = dataset.with_columns(split=CodeColumn(split, SPLITS))
    _check_training(dataset, resolved, mode)
    leaking_rows = tuple(
        row
        for rows in across
        if any(resolved.split[row] == "train" for row in rows)
        for row in rows
        if resolved.split[row] in ("validation", "test")
    )
    return resolved, Leakage(
        mode,
        tuple(across),
        tuple(changed),
        leaking_rows,
        _note(mode, dataset, changed),
        tuple(_duplicates(dataset, resolved, across)),
    )


def write_leakage(leakage: Leakage, path: str | os.PathLike[str]) -> None:
    """Write a CSV with one row for each :class:`DuplicateAcrossSplits`."""
    rows = ([getattr(image, name) for name in _COLUMNS] for image in leakage.duplicates)
    write_csv(path, _COLUMNS, rows)


def _duplicates(
    before: ImageDataset, after: ImageDataset, groups: list[tuple[int, ...]]
) -> Iterator[DuplicateAcrossSplits]:
    for number, rows in enumerate(groups, start=1):
        for row in rows:
            others = (r for r in rows if before.split[r] != before.split[row])
            identical = any(before.digest[r] == before.digest[row] is not None for r in others)
            yield DuplicateAcrossSplits(
                number,
                before.path[row],
                before.label[row] or "",
                before.split[row] or EXCLUDED,
                after.split[row] or EXCLUDED,
                "identical" if identical else "near-duplicate",
            )


def _check_training(before: ImageDataset, after: ImageDataset, mode: str) -> None:
    lost = sorted(map(str, before.labels_in("train") - after.labels_in("train")))
    if lost:
        raise DatasetError(
            f'`leakage="{mode}"` leaves no images to train on for {quoted_list(lost)}: all of them '
            'have duplicates in the other splits. Add images, or use `leakage="move"` or '
            '`leakage="keep"`.'
        )


def _note(mode: str, dataset: ImageDataset, changed: list[int]) -> str:
    counts = {name: sum(dataset.split[row] == name for row in changed) for name in SPLITS}
    named = " and ".join(f"{n_images(n)} of the {name} split" for name, n in counts.items() if n)
    files = quoted_list([dataset.path[row] for row in changed], _SHOWN_FILES)
    if mode == "drop":
        text = f"Dropped {named} with a duplicate or near-duplicate in a later split: {files}."
    elif mode == "move":
        text = f"Moved {named} to the split that has a duplicate or near-duplicate: {files}."
    else:
        text = (
            f"Kept {named} with a duplicate or near-duplicate in a later split: {files}. "
            "The measured accuracy is too high."
        )
    return f"{text} See {LEAKAGE_FILE} and --leakage."


def duplicate_notes(dataset: ImageDataset) -> list[str]:
    """Return notes on byte-identical images: within a split, with two labels, across splits."""
    number = connected_components(dataset.digest)
    sizes = np.bincount(number)
    again = np.flatnonzero(sizes[number] > 1)
    rows_of: defaultdict[int, list[int]] = defaultdict(list)
    for row, index in zip(again.tolist(), number[again].tolist(), strict=True):
        rows_of[index].append(row)
    copied = list(rows_of.values())
    notes = []
    if copied:
        n = sum(len(rows) - 1 for rows in copied)
        notes.append(f"Byte-identical copies of other images: {n:,}.")
    conflicting = [rows for rows in copied if len({dataset.label[row] for row in rows}) > 1]
    if conflicting:
        first = sorted(dataset.path[row] for row in conflicting[0])
        notes.append(
            f"Images with more than one label: {len(conflicting):,}, first "
            f"{', '.join(map(quoted, first[:4]))}."
        )
    return [*notes, *leakage_notes(dataset)]


def leakage_notes(dataset: ImageDataset) -> list[str]:
    """Return a note for each split that shares byte-identical images with the train split."""
    number = connected_components(dataset.digest)
    known = [
        rows[[dataset.digest[row] is not None for row in rows.tolist()]]
        if has_missing(dataset.digest)
        else rows
        for rows in map(dataset.rows_in, SPLITS)
    ]
    found = [np.bincount(number[rows], minlength=1 + int(number.max(initial=0))) for rows in known]
    counts = {
        name: int(np.count_nonzero((found[0] > 0) & (images > 0)))
        for name, images in zip(SPLITS[1:], found[1:], strict=True)
    }
    return [
        f"Images of the {name} split that are also in the train split: {n:,}."
        for name, n in counts.items()
        if n
    ]


def merge_groups(dataset: ImageDataset, links: Sequence[Hashable]) -> ImageDataset:
    """Return the dataset with groups merged where `links` joins them.

    Merged groups get the first of their names in sorted order. Linked images without groups get a
    group named after the smallest of their digests, so that it does not depend on their order.

    Parameters
    ----------
    dataset : ImageDataset
        With digests where images without groups are linked.
    links : sequence
        One value per row, equal for rows that belong together; None for rows without a link.

    Raises
    ------
    ValueError
        If `links` has the wrong length.
    """
    if len(links) != len(dataset):
        raise ValueError(f"links must have {len(dataset)} rows; got {len(links)}")
    number = connected_components(dataset.group, links)
    joined = np.flatnonzero(np.bincount(number)[number] > 1)
    if not len(joined):
        return dataset
    members: dict[int, list[int]] = {}
    for row, index in zip(joined.tolist(), number[joined].tolist(), strict=True):
        members.setdefault(index, []).append(row)
    group: list[str | None] = list(dataset.group)
    for rows in members.values():
        name = _group_name(dataset, rows)
        for row in rows:
            group[row] = name
    return dataset.with_columns(group=group)


def _group_name(dataset: ImageDataset, rows: list[int]) -> str:
    given = [group for row in rows if (group := dataset.group[row]) is not None]
    if given:
        return min(given)
    digest = min(dataset.digest[row] or dataset.path[row] for row in rows)
    return f"near-duplicates-{digest[:_GROUP_DIGITS]}"
