"""What the folders of a tree mean: wrappers, splits, classes; and which of them are refused.

In this order:

1. A single folder without images of its own is a wrapper and is seen through, however deep.
2. If all folders with images at that level are split folders (at least two different splits),
   each of them holds class folders, inside wrappers of its own if need be.
3. If some folders there are split folders that share a class folder, and others are none, the
   splits count and the others are left out, with a note.
4. Otherwise each folder is a class, with everything below it; if within every class all
   sub-folders are split folders, those are the splits.

A name known to be a class (of a classifier, say) is never taken for a wrapper or a split.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from kindsight.dataset.loaders.folder_roles import UNLABELLED, is_split_name, split_roles
from kindsight.dataset.names import images, shown, shown_list
from kindsight.dataset.walk import Listing
from kindsight.errors import DatasetError

__all__ = [
    "HOW_TO_ARRANGE",
    "Arrangement",
    "Place",
    "Tree",
    "arrange",
    "check_classes",
    "join",
    "nearly",
]

# SECTION: A walked folder as a tree: how many images lie where.


@dataclass
class Tree:
    """A walked folder tree, with the number of images in and below each folder."""

    listings: list[Listing]
    own: dict[str, int] = field(default_factory=dict)
    total: dict[str, int] = field(default_factory=dict)
    children: dict[str, list[str]] = field(default_factory=dict)
    empty: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, listings: Iterable[Listing]) -> Tree:
        """Build the tree from a walk, in which parents come before their children."""
        tree = cls(list(listings))
        for folder, files in tree.listings:
            tree.own[folder] = len(files)
        tree.total = dict(tree.own)
        for folder, _ in reversed(tree.listings):  # children before parents: no recursion
            if folder:
                parent, _, name = folder.rpartition("/")
                tree.total[parent] += tree.total[folder]
                kind = tree.children if tree.total[folder] else tree.empty
                kind.setdefault(parent, []).append(name)
        for names in (*tree.children.values(), *tree.empty.values()):
            names.sort()
        return tree

    def imaged(self, folder: str) -> list[str]:
        """Return the names of the folders in this one that hold images, at any depth."""
        return self.children.get(folder, [])

    def unwrap(self, folder: str, known: Collection[str]) -> str:
        """Go down through wrappers: single folders without images of their own."""
        while len(names := self.imaged(folder)) == 1:
            inner = join(folder, names[0])
            if self.own[inner] or names[0] in known:
                break
            folder = inner
        return folder


def join(folder: str, name: str) -> str:
    """Join two parts of a relative path."""
    return f"{folder}/{name}" if folder else name


HOW_TO_ARRANGE = (
    "Give each class a folder of its own, named after it, and put its images there. If the "
    "files' names tell their labels: --label-from, in Python label_from."
)


class Place(NamedTuple):
    """What a folder says about the images in and below it."""

    label: str
    split: str | None


@dataclass
class Arrangement:
    """What a tree was understood to be.

    Attributes
    ----------
    base : str
        The folder that holds the classes or the splits, below the wrappers.
    places : dict
        Folder -> its label and split; folders below inherit.
    notes : list of str
        Findings, one sentence each.
    """

    base: str
    places: dict[str, Place] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def classes(self, split: str | None) -> set[str]:
        """Return the labels that occur in a split."""
        return {place.label for place in self.places.values() if place.split == split}

    @property
    def splits(self) -> set[str | None]:
        """The splits that occur; ``{None}`` where the folders state none."""
        return {place.split for place in self.places.values()}


def arrange(tree: Tree, known: Collection[str] = ()) -> Arrangement:
    """Find out which folders are classes and which are splits.

    Parameters
    ----------
    tree : Tree
        The walked folder.
    known : collection of str
        Names that are classes wherever they stand.

    Returns
    -------
    Arrangement
        Without places where there is no class folder at all.
    """
    base = tree.unwrap("", known)
    found = Arrangement(base)
    names = tree.imaged(base)
    may_be_split = [name for name in names if name not in known]
    roles = split_roles(may_be_split) if len(may_be_split) == len(names) else None
    if roles is None:
        roles = _splits_among_others(tree, may_be_split, known, found)
    if roles is not None:
        _place_splits(tree, found, roles, known)
    else:
        _place_classes(tree, found, names, known)
    return found


def _splits_among_others(
    tree: Tree, names: list[str], known: Collection[str], found: Arrangement
) -> dict[str, str] | None:
    """Recognise train/, test/ and docs/ side by side, by the classes that the splits share."""
    alike = [name for name in names if is_split_name(name)]
    if not alike:
        return None
    roles = split_roles(alike)
    if roles is not None:
        held = [
            set(tree.imaged(tree.unwrap(join(found.base, name), known)))
            for name in alike
            if roles[name] != UNLABELLED
        ]
        if set.intersection(*held):
            left_out = [name for name in tree.imaged(found.base) if name not in roles]
            found.notes.append(
                f"Beside the split folders, and so left out: {shown_list(left_out)}."
            )
            return roles
    found.notes.append(
        f"Named like a split, but taken as a class like the folders beside it: {shown_list(alike)}."
    )
    return None


def _place_splits(
    tree: Tree, found: Arrangement, roles: dict[str, str], known: Collection[str]
) -> None:
    """Place the classes of every split; the training part is looked at first."""
    known = set(known)
    order = ("train", "validation", "test", UNLABELLED)
    for name in sorted(roles, key=lambda name: (order.index(roles[name]), name)):
        role, folder = roles[name], join(found.base, name)
        if role == UNLABELLED:
            found.notes.append(
                f"The folder {shown(name)} ({images(tree.total[folder])}) is taken to hold "
                "images without labels and is left out."
            )
            continue
        inner = tree.unwrap(folder, known)
        classes = tree.imaged(inner)
        if not classes:
            found.notes.append(
                f"The folder {shown(name)} ({images(tree.total[folder])}) has no class folders "
                "and is left out."
            )
        for label in classes:
            found.places[join(inner, label)] = Place(label, role)
        known.update(classes)
        _note_empty(tree, found, inner)


def _place_classes(
    tree: Tree, found: Arrangement, names: list[str], known: Collection[str]
) -> None:
    """Place each folder as a class, with splits inside the classes where they all have them."""
    inner = [split for name in names for split in tree.imaged(join(found.base, name))]
    roles = None if set(inner) & set(known) else split_roles(inner)
    has_own = any(tree.own[join(found.base, name)] for name in names)
    for name in names:
        folder = join(found.base, name)
        if roles is None or has_own:
            found.places[folder] = Place(name, None)
            continue
        for split in tree.imaged(folder):
            if roles[split] != UNLABELLED:
                found.places[join(folder, split)] = Place(name, roles[split])
    _note_empty(tree, found, found.base)


def _note_empty(tree: Tree, found: Arrangement, folder: str) -> None:
    empty = tree.empty.get(folder, [])
    if empty and found.places:
        where = f" in {shown(folder)}" if folder else ""
        found.notes.append(f"Without images, and so no class: {shown_list(empty)}{where}.")


def check_classes(found: Arrangement, where: str, n: int, min_classes: int) -> None:
    """Refuse class folders that no classifier can be made of; note where splits differ.

    Raises
    ------
    DatasetError
        If there are fewer than `min_classes`; or, where that is more than 1, if one of them is
        absent from the training part.
    """
    names = sorted({place.label for place in found.places.values()})
    if len(names) < min_classes:
        word = "class" if len(names) == 1 else "classes"
        raise DatasetError(
            f"At least {min_classes} classes are needed. Received: {len(names)} {word}, "
            f"{shown_list(names)}, with {images(n)}, in {where}. {HOW_TO_ARRANGE}"
        )
    for split in sorted(split for split in found.splits if split is not None):
        missing = sorted(set(names) - found.classes(split))
        if not missing:
            continue
        if split == "train" and min_classes > 1:
            raise DatasetError(
                "Every class must have images in the training part. Received: none of "
                f"{shown_list(missing)}{nearly(missing, found.classes(split))}. Add some, or "
                "move these folders out of the other parts."
            )
        found.notes.append(f"The {split} part has no images of {shown_list(missing)}.")


def nearly(missing: list[str], present: Iterable[str]) -> str:
    """Point out class names that differ only in case or in how accents are written."""

    def plain(name: str) -> str:
        return unicodedata.normalize("NFC", name).casefold()

    alike = {plain(name): name for name in present}
    pairs = [(name, alike[plain(name)]) for name in missing if plain(name) in alike]
    if not pairs:
        return ""
    return f" (but it has {shown_list([name for _, name in pairs])}, which is spelled differently)"
