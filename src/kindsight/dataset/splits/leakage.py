"""Leakage: images of one part of which another part has copies, and what becomes of them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from kindsight.dataset.loaders.values import EXCLUDED
from kindsight.dataset.names import images, shown, shown_list
from kindsight.dataset.splits.groups import connected_components
from kindsight.dataset.table import SPLITS, ImageDataset
from kindsight.errors import DatasetError
from kindsight.files import write_csv

__all__ = [
    "LEAKAGE_FILE",
    "LEAKAGE_MODES",
    "DuplicateAcrossSplits",
    "Leakage",
    "duplicate_notes",
    "leakage_notes",
    "merge_groups",
    "resolve_leakage",
    "write_leakage",
]

LEAKAGE_MODES = ("drop", "move", "keep")
"""``drop``: an image stays in the last part that has it, test before validation before train;
``move``: in the first one; ``keep``: in all of them."""

LEAKAGE_FILE = "leakage.csv"

SHOWN = 3
"""Files that are named in a sentence."""

COLUMNS = ("group", "path", "label", "was", "now", "alike")


@dataclass(frozen=True)
class DuplicateAcrossSplits:
    """One image of which another part has a copy.

    Parameters
    ----------
    group : int
        Images of one number, from 1 on, are copies of each other.
    path, label : str
        The image.
    was, now : str
        Its part before and after; ``"excluded"`` where it is in none.
    alike : str
        ``"byte for byte"`` or ``"nearly"``: what it has in common with those of the other parts.
    """

    group: int
    path: str
    label: str
    was: str
    now: str
    alike: str


@dataclass(frozen=True)
class Leakage:
    """What was found, and what was done.

    Parameters
    ----------
    how : str
        One of :data:`LEAKAGE_MODES`.
    groups : tuple of tuple of int
        Rows of images that are copies of each other and were in several parts.
    rows : tuple of int
        Those that were dropped or moved; with ``keep`` those that would have been dropped.
    leaking_rows : tuple of int
        Rows of the validation and test part that are still there and have a copy in the training
        part.
    note : str
        What to say of it; empty where nothing was found.
    table : tuple of DuplicateAcrossSplits
        All images of `groups`, one by one.
    """

    how: str
    groups: tuple[tuple[int, ...], ...] = ()
    rows: tuple[int, ...] = ()
    leaking_rows: tuple[int, ...] = ()
    note: str = ""
    table: tuple[DuplicateAcrossSplits, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """Return what ``kindsight train --json`` prints."""
        return {"how": self.how, "groups": len(self.groups), "images": len(self.rows)}


def resolve_leakage(
    dataset: ImageDataset, groups: Iterable[Sequence[int]], how: str = "drop"
) -> tuple[ImageDataset, Leakage]:
    """Take copies that are in several parts out of all but one of them.

    Parameters
    ----------
    dataset : ImageDataset
        Divided.
    groups : iterable of sequence of int
        Rows of images that are copies, or nearly; groups that lie in one part are passed by.
    how : str
        One of :data:`LEAKAGE_MODES`.

    Returns
    -------
    dataset : ImageDataset
        Images that were dropped are in no part.
    leakage : Leakage

    Raises
    ------
    DatasetError
        If that would leave a class without an image to train on.
    """
    torn: list[tuple[int, ...]] = []
    changed: list[int] = []
    split = list(dataset.split)
    for group in groups:
        rows = tuple(sorted(int(row) for row in group if dataset.split[int(row)] is not None))
        parts = [part for part in SPLITS if any(dataset.split[row] == part for row in rows)]
        if len(parts) < 2:
            continue
        torn.append(rows)
        stays = parts[0] if how == "move" else parts[-1]
        away = [row for row in rows if dataset.split[row] != stays]
        changed += away
        for row in away:
            split[row] = stays if how == "move" else None
    if not torn:
        return dataset, Leakage(how)
    if how == "keep":
        split = list(dataset.split)
    mended = dataset.with_columns(split=split)
    _check_training(dataset, mended, how)
    leaking_rows = tuple(
        row
        for rows in torn
        if any(split[row] == "train" for row in rows)
        for row in rows
        if split[row] in ("validation", "test")
    )
    note, table = _note(how, dataset, changed), tuple(_table(dataset, mended, torn))
    return mended, Leakage(how, tuple(torn), tuple(changed), leaking_rows, note, table)


def write_leakage(leakage: Leakage, path: str | os.PathLike[str]) -> None:
    """Write a CSV with one row for each image that was in several splits."""
    write_csv(path, COLUMNS, ([getattr(row, name) for name in COLUMNS] for row in leakage.table))


def _table(
    before: ImageDataset, after: ImageDataset, torn: list[tuple[int, ...]]
) -> Iterator[DuplicateAcrossSplits]:
    for number, rows in enumerate(torn, start=1):
        for row in rows:
            others = (r for r in rows if before.split[r] != before.split[row])
            same = any(before.digest[r] == before.digest[row] is not None for r in others)
            yield DuplicateAcrossSplits(
                number,
                before.path[row],
                before.label[row] or "",
                before.split[row] or EXCLUDED,
                after.split[row] or EXCLUDED,
                "byte for byte" if same else "nearly",
            )


def _check_training(before: ImageDataset, after: ImageDataset, how: str) -> None:
    def trained(dataset: ImageDataset) -> set[str | None]:
        pairs = zip(dataset.label, dataset.split, strict=True)
        return {label for label, part in pairs if part == "train"}

    lost = sorted(str(label) for label in trained(before) - trained(after))
    if lost:
        raise DatasetError(
            "Every class must have images in the training part. Received: none of "
            f"{shown_list(lost)} left, as all of them have copies in the other parts and "
            f"leakage={how!r} takes them out. Add others, or use leakage='move' or 'keep'."
        )


def _note(how: str, dataset: ImageDataset, changed: list[int]) -> str:
    counts = {part: sum(dataset.split[row] == part for row in changed) for part in SPLITS if part}
    named = " and ".join(f"{images(n)} of the {part} part" for part, n in counts.items() if n)
    some = shown_list([dataset.path[row] for row in changed], SHOWN)
    if how == "drop":
        said = f"Left out, as a later part has the same or nearly the same: {named} ({some})."
    elif how == "move":
        said = f"Moved to the part that has the same or nearly the same: {named} ({some})."
    else:
        said = (
            f"Kept, though a later part has the same or nearly the same: {named} ({some}). "
            "Accuracy looks better than it is."
        )
    return f"{said} {LEAKAGE_FILE} names all, --leakage says what becomes of them."


def duplicate_notes(dataset: ImageDataset) -> list[str]:
    """Say what copies there are: in one part, under two labels, on both sides of a split."""
    rows_of: defaultdict[str, list[int]] = defaultdict(list)
    for row, digest in enumerate(dataset.digest):
        if digest is not None:
            rows_of[digest].append(row)
    copied = [rows for rows in rows_of.values() if len(rows) > 1]
    notes = []
    if copied:
        n = sum(len(rows) - 1 for rows in copied)
        notes.append(f"Copies of other images, byte for byte: {n:,}.")
    torn = [rows for rows in copied if len({dataset.label[row] for row in rows}) > 1]
    if torn:
        names = [shown(dataset.path[row]) for row in sorted(torn[0], key=dataset.path.__getitem__)]
        notes.append(
            f"Images that occur under more than one label: {len(torn):,}, the first of them as "
            f"{', '.join(names[:4])}."
        )
    return [*notes, *leakage_notes(dataset)]


def leakage_notes(dataset: ImageDataset) -> list[str]:
    """Say how many images of the other parts are in the training part too, byte for byte."""
    parts_of: defaultdict[str, set[str | None]] = defaultdict(set)
    for digest, split in zip(dataset.digest, dataset.split, strict=True):
        if digest is not None:
            parts_of[digest].add(split)
    counts = {
        part: sum({part, "train"} <= parts for parts in parts_of.values())
        for part in ("validation", "test")
    }
    return [
        f"Images of the {part} part that the training part has as well: {n:,}."
        for part, n in counts.items()
        if n
    ]


# SECTION: Groups from what was found to belong together: near-duplicates, beside the groups given.

_DIGITS = 12


def merge_groups(dataset: ImageDataset, links: Sequence[Hashable]) -> ImageDataset:
    """Return the same dataset with groups that also hold together what is linked.

    Groups that a link binds become one, under the name that comes first of theirs. A link between
    images without groups makes a group of them, called after the first of their digests: its
    name depends on which images there are, not on their order.

    Parameters
    ----------
    dataset : ImageDataset
        With digests where there are links without groups.
    links : sequence
        One value a row, equal where rows belong together; None where a row is not linked.

    Returns
    -------
    ImageDataset

    Raises
    ------
    ValueError
        If `links` has not one value a row.
    """
    if len(links) != len(dataset):
        raise ValueError(f"links must have {len(dataset)} rows. Received: {len(links)}")
    members: dict[int, list[int]] = {}
    for row, number in enumerate(connected_components(dataset.group, links).tolist()):
        members.setdefault(number, []).append(row)
    group = list(dataset.group)
    for rows in members.values():
        if len(rows) > 1:
            name = _name(dataset, rows)
            for row in rows:
                group[row] = name
    return dataset.with_columns(group=group)


def _name(dataset: ImageDataset, rows: list[int]) -> str:
    """Return the least group there is, or make one up that no group has by chance."""
    given = [group for row in rows if (group := dataset.group[row]) is not None]
    if given:
        return min(given)
    return "alike-" + min(dataset.digest[row] or dataset.path[row] for row in rows)[:_DIGITS]
