"""Interpret a folder tree: wrappers, splits and classes.

In this order:

1. A single folder without images of its own is a wrapper and is skipped, at any depth.
2. If all folders with images at that level are split folders (at least two different splits),
   each contains class folders, possibly inside wrappers.
3. If some folders there are split folders that share a class folder, and others are not, the
   others are ignored, with a note.
4. Otherwise each folder is a class, with everything below it; if within every class all
   subfolders are split folders, those are the splits.

A folder with a known class name (such as a classifier's) is never a wrapper or a split.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from kindsight.dataset.labels import normalised_label
from kindsight.dataset.loaders.from_names import UNLABELLED, is_split_name, split_roles
from kindsight.dataset.names import n_images, quoted, quoted_list
from kindsight.dataset.walk import Listing
from kindsight.errors import DatasetError

__all__ = [
    "HOW_TO_ARRANGE", "Arrangement", "FolderLabel", "Tree", "arrange", "check_classes",
    "similar_names",
]  # fmt: skip


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
        for listing in tree.listings:
            tree.own[listing.folder] = len(listing.files)
        tree.total = dict(tree.own)
        for folder, *_ in reversed(tree.listings):  # children before parents: no recursion
            if folder:
                parent, _, name = folder.rpartition("/")
                tree.total[parent] += tree.total[folder]
                kind = tree.children if tree.total[folder] else tree.empty
                kind.setdefault(parent, []).append(name)
        for names in (*tree.children.values(), *tree.empty.values()):
            names.sort()
        return tree

    def subfolders(self, folder: str) -> list[str]:
        """Return the names of subfolders that contain images, at any depth."""
        return self.children.get(folder, [])

    def unwrap(self, folder: str, known: Collection[str]) -> str:
        """Skip wrappers: single folders without images of their own."""
        while len(names := self.subfolders(folder)) == 1:
            inner = _join(folder, names[0])
            if self.own[inner] or names[0] in known:
                break
            folder = inner
        return folder


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


HOW_TO_ARRANGE = (
    "Put the images of each class into a folder named after the class. If the file names contain "
    "the labels, use `label_from`."
)


class FolderLabel(NamedTuple):
    """Label and split of the images in and below a folder."""

    label: str
    split: str | None


@dataclass
class Arrangement:
    """The interpretation of a folder tree."""

    base: str  # the folder that contains the classes or splits, below the wrappers
    # folder -> its label and split; subfolders inherit them
    entries: dict[str, FolderLabel] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # notes for the user, one sentence each

    def classes(self, split: str | None) -> set[str]:
        """Return the labels that occur in a split."""
        return {entry.label for entry in self.entries.values() if entry.split == split}

    @property
    def splits(self) -> set[str | None]:
        """The splits that occur; ``{None}`` without split folders."""
        return {entry.split for entry in self.entries.values()}


def arrange(tree: Tree, known: Collection[str] = ()) -> Arrangement:
    """Return which folders are classes and which are splits.

    - `tree`: the walked folder.
    - `known`: known class names.

    Returns
    -------
    Arrangement
        Without entries if there are no class folders.
    """
    base = tree.unwrap("", known)
    found = Arrangement(base)
    names = tree.subfolders(base)
    may_be_split = [name for name in names if name not in known]
    roles = split_roles(may_be_split) if len(may_be_split) == len(names) else None
    if roles is None:
        roles = _splits_among_others(tree, may_be_split, known, found)
    if roles is not None:
        _add_splits(tree, found, roles, known)
    else:
        _add_classes(tree, found, names, known)
    return found


def _splits_among_others(
    tree: Tree, names: list[str], known: Collection[str], found: Arrangement
) -> dict[str, str] | None:
    """Recognise train/ and test/ beside docs/ by the classes that the splits share."""
    candidates = [name for name in names if is_split_name(name)]
    if not candidates:
        return None
    roles = split_roles(candidates)
    if roles is not None:
        classes = [
            set(tree.subfolders(tree.unwrap(_join(found.base, name), known)))
            for name in candidates
            if roles[name] != UNLABELLED
        ]
        if set.intersection(*classes):
            left_out = [name for name in tree.subfolders(found.base) if name not in roles]
            found.notes.append(f"Ignored beside the split folders: {quoted_list(left_out)}.")
            return roles
    found.notes.append(f"Used as classes although named like splits: {quoted_list(candidates)}.")
    return None


def _add_splits(
    tree: Tree, found: Arrangement, roles: dict[str, str], known: Collection[str]
) -> None:
    """Add the classes of every split, starting with the train split."""
    known = set(known)
    order = ("train", "validation", "test", UNLABELLED)
    for name in sorted(roles, key=lambda name: (order.index(roles[name]), name)):
        role, folder = roles[name], _join(found.base, name)
        if role == UNLABELLED:
            found.notes.append(
                f"Ignored the folder {quoted(name)} of unlabelled images "
                f"({n_images(tree.total[folder])})."
            )
            continue
        inner = tree.unwrap(folder, known)
        classes = tree.subfolders(inner)
        if not classes:
            found.notes.append(
                f"Ignored the folder {quoted(name)} ({n_images(tree.total[folder])}), which has no "
                "class folders."
            )
        for label in classes:
            found.entries[_join(inner, label)] = FolderLabel(label, role)
        known.update(classes)
        _note_empty(tree, found, inner)


def _add_classes(tree: Tree, found: Arrangement, names: list[str], known: Collection[str]) -> None:
    """Add each folder as a class, with splits inside the classes if all have them."""
    inner = [split for name in names for split in tree.subfolders(_join(found.base, name))]
    roles = None if set(inner) & set(known) else split_roles(inner)
    has_own = any(tree.own[_join(found.base, name)] for name in names)
    for name in names:
        folder = _join(found.base, name)
        if roles is None or has_own:
            found.entries[folder] = FolderLabel(name, None)
            continue
        for split in tree.subfolders(folder):
            if roles[split] != UNLABELLED:
                found.entries[_join(folder, split)] = FolderLabel(name, roles[split])
    _note_empty(tree, found, found.base)


def _note_empty(tree: Tree, found: Arrangement, folder: str) -> None:
    empty = tree.empty.get(folder, [])
    if empty and found.entries:
        where = f" in {quoted(folder)}" if folder else ""
        found.notes.append(f"Ignored empty folders: {quoted_list(empty)}{where}.")


def check_classes(found: Arrangement, where: str, n: int, min_classes: int) -> None:
    """Check that there are enough classes with train images; note classes that splits lack.

    Raises
    ------
    DatasetError
        If there are fewer than `min_classes`, or, if that is more than 1, a class has no train
        images.
    """
    names = sorted({entry.label for entry in found.entries.values()})
    if len(names) < min_classes:
        word = "class" if len(names) == 1 else "classes"
        at_least = "1 class is" if min_classes == 1 else f"{min_classes} classes are"
        raise DatasetError(
            f"At least {at_least} needed, but {where} has {len(names)} {word} "
            f"({quoted_list(names)}) with {n_images(n)}. {HOW_TO_ARRANGE}"
        )
    for split in sorted(split for split in found.splits if split is not None):
        missing = sorted(set(names) - found.classes(split))
        if not missing:
            continue
        if split == "train" and min_classes > 1:
            raise DatasetError(
                f"The train split in {where} has no images of {quoted_list(missing)}"
                f"{similar_names(missing, found.classes(split))}. Add some, or rename these "
                "folders or move them out of the other splits."
            )
        found.notes.append(f"The {split} split has no images of {quoted_list(missing)}.")


def similar_names(missing: list[str], present: Iterable[str]) -> str:
    """Return a hint at class names that differ only in case, blanks or accents; "" if none."""
    alike = {normalised_label(name): name for name in present}
    found = [alike[key] for name in missing if (key := normalised_label(name)) in alike]
    return f" (but it has {quoted_list(found)}, spelled differently)" if found else ""
