"""Labels, groups and splits from names of files and folders; groups that join several classes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np

from kindsight.dataset.columns.base import BLOCK
from kindsight.dataset.columns.codes import CodeColumn
from kindsight.dataset.columns.convert import as_codes, count_values, take_rows
from kindsight.dataset.labels import check_label_typos, class_order
from kindsight.dataset.names import n_images, quoted
from kindsight.dataset.options import DataOptions, NamePattern
from kindsight.dataset.table import ImageDataset, exclude_rows
from kindsight.encoding import valid_text
from kindsight.errors import DatasetError
from kindsight.storage.address import split_member

__all__ = [
    "UNLABELLED", "are_containers", "is_split_name", "joined_classes_note", "loose_role", "role_of",
    "split_roles", "with_names",
]  # fmt: skip

# A pattern with one group, after a literal prefix: the texts before and after its parenthesis.
_ONE_GROUP = re.compile(r"(\^?)([\w\- .]*)\((?:\?P<\w+>|(?!\?))(.*)", re.DOTALL)


def joined_classes_note(dataset: ImageDataset, pattern: str | None = None) -> str:
    """Return a note on groups that contain images of several classes; empty if there are none.

    - `pattern`: the pattern on names that found the groups; a pattern that also finds the folder
      is suggested if its groups join no classes.
    """
    joined = _joined(dataset.group, dataset.label)
    if not joined:
        return ""
    groups = count_values(dataset.group)
    groups.pop(None, None)
    largest = max(joined, key=lambda name: (groups[name], name))
    several = sum(n > 1 for n in groups.values())
    is_one = len(joined) == 1
    note = (
        f"{len(joined):,} of {several:,} group{'' if several == 1 else 's'} with several images "
        f"{'has' if is_one else 'have'} images of several classes: {quoted(largest)} has "
        f"{n_images(groups[largest])} of {joined[largest]:,} classes. A group stays in one split. "
    )
    if pattern is None:
        return note + "If each class has its own numbering of groups, add the class to their names."
    better = _with_folder(pattern, dataset)
    if better:
        return note + f'If each folder has its own numbering, use `group_from="{better}"`.'
    return note + "If each class has its own numbering, use another `group_from`."


def _joined(groups: Sequence[str | None], labels: Sequence[str | None]) -> dict[str, int]:
    """Return the number of classes of each group that has several."""
    coded, named = as_codes(groups), as_codes(labels)
    known = np.flatnonzero((coded.codes >= 0) & (named.codes >= 0))
    pairs = coded.codes[known].astype(np.int64) * len(named.names) + named.codes[known]
    group, classes = np.unique(np.unique(pairs) // max(1, len(named.names)), return_counts=True)
    several = group[classes > 1]
    names = CodeColumn(several, coded.names)
    return dict(zip(names, classes[classes > 1].tolist(), strict=True))


def _with_folder(pattern: str, dataset: ImageDataset) -> str:
    """Return the pattern with the image's folder in the group; empty if that does not help."""
    match = _ONE_GROUP.fullmatch(pattern)
    if match is None or "/" in pattern or re.compile(pattern).groups != 1:
        return ""
    start, prefix, rest = match.groups()
    end = "" if rest.endswith("$") and not rest.endswith(r"\$") else "[^/]*$"
    better = f"([^/]+/{'' if start else '[^/]*?'}{prefix}{rest}{end}"
    if NamePattern.fault(better):
        return ""
    found = NamePattern(better, "").find([_name(path) for path in dataset.path])
    lost = any(
        new is None and old is not None for new, old in zip(found, dataset.group, strict=True)
    )
    return "" if lost or _joined(found, dataset.label) else better


UNLABELLED = "unlabelled"
"""The role of a folder of unlabelled images beside split folders (``seg_pred``)."""

_ROLES = {
    "train": ("train", "training", "trn", "trainval"),
    "validation": ("val", "valid", "validation", "validate", "dev", "eval", "evaluation"),
    "test": ("test", "testing", "tst", "holdout"),
    UNLABELLED: ("pred", "predict", "prediction", "predictions", "unlabeled", "unlabelled"),
}
_ROLE_OF_WORD = {word: role for role, words in _ROLES.items() for word in words}
_FILLER = (
    *("set", "sets", "data", "dataset", "image", "images", "img", "imgs"),
    *("photo", "photos", "sample", "samples", "folder", "dir", "split", "part"),
)

_CONTAINER_WORDS = frozenset(
    {*_FILLER, "mask", "masks", "jpg", "jpeg", "png", "tif", "input", "inputs", "raw", "original"}
    | {"segmentation", "segmentations", "annotation", "annotations"}
)

# Joined words in lower case (trainset, valdata): a role, then one filler.
_JOINED = re.compile(
    rf"({'|'.join(sorted(_ROLE_OF_WORD, key=len, reverse=True))})({'|'.join(_FILLER)})"
)
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W\d_a-zA-Z]+")


def split_roles(names: Iterable[str]) -> dict[str, str] | None:
    """Return the split of each folder, if all of them are split folders.

    A split folder's name contains the word of a split (``train``, ``training``, ``val``, ``valid``,
    ``validation``, ``dev``, ``eval``, ``test``, ``testing`` and the like, in any case), and any
    numbers and words such as *set*, *data* or *images* (``test_set``, ``trainImages``,
    ``val2017``). Other words must be the same in every name (``seg_train``, ``seg_test``).

    - `names`: names of folders with the same parent.

    Returns
    -------
    dict or None
        Name -> ``"train"``, ``"validation"``, ``"test"`` or :data:`UNLABELLED`; None if a name is
        not a split, or there are not two different splits: ``test1``, ``test2``, ``test3`` are
        three classes.
    """
    found: dict[str, str] = {}
    others: set[frozenset[str]] = set()
    for name in names:
        parsed = _parse(name)
        if parsed is None:
            return None
        found[name] = parsed[0]
        others.add(parsed[1])
    if len(others) > 1 or len(set(found.values()) - {UNLABELLED}) < 2:
        return None
    return found


def is_split_name(name: str) -> bool:
    """Return whether a single folder name is that of a split."""
    return role_of(name) is not None


def role_of(name: str) -> str | None:
    """Return the role of a single name, as in a table's column; None if it has none.

    ``"train"``, ``"validation"``, ``"test"`` or :data:`UNLABELLED`.
    """
    parsed = _parse(name)
    return parsed[0] if parsed is not None and not parsed[1] else None


def are_containers(names: Iterable[str]) -> bool:
    """Return whether folders, by their names, contain images of all classes rather than one each.

    Their names differ by numbers only (``part_1``, ``part_2``), or words such as *images* and
    *masks*.
    """
    others = {
        frozenset(word.lower() for word in _WORDS.findall(name)) - _CONTAINER_WORDS
        for name in names
    }
    return len(others) == 1


def loose_role(name: str) -> str | None:
    """Return the role that a word of a name stands for, whatever its other words mean.

    ``Training_Input`` and ``train_labels`` are ``"train"``.
    """
    parsed = _parse(name)
    return None if parsed is None else parsed[0]


def with_names(
    dataset: ImageDataset, options: DataOptions, *, labelled: bool = True
) -> ImageDataset:
    """Return the dataset with labels and groups extracted from file names, as the options say.

    Raises
    ------
    DatasetError
        If no name matches, or the images are in memory.
    """
    if not len(dataset):  # all images were excluded, with notes
        return dataset
    if labelled and options.label_from is not None:
        dataset = _with_labels(dataset, options.label_from)
    if labelled and options.group_from is not None:
        dataset = _with_groups(dataset, options.group_from)
    return dataset


def _parse(name: str) -> tuple[str, frozenset[str]] | None:
    """Return the role in a name and its other words."""
    roles: list[str] = []
    other: set[str] = set()
    words = [word.lower() for word in _WORDS.findall(name)]
    if words == ["train", "val"]:
        words = ["trainval"]
    for word in words:
        joined = _JOINED.fullmatch(word)
        role = _ROLE_OF_WORD.get(joined[1] if joined else word)
        if role is not None:
            roles.append(role)
        elif word not in _FILLER:
            other.add(word)
    return (roles[0], frozenset(other)) if len(roles) == 1 else None


def _with_labels(dataset: ImageDataset, pattern: str) -> ImageDataset:
    labels = _found(dataset, NamePattern(pattern, "label"), "labels")
    check_label_typos(labels, lambda row: quoted(dataset.path[row]))
    labelled = replace(dataset, label=labels, classes=class_order(labels))
    missing = np.flatnonzero(labels.equals(None))
    if not len(missing):
        return labelled
    note = (
        f"Ignored without a label in the name: {n_images(len(missing))}, first "
        f"{quoted(dataset.path[int(missing[0])])}."
    )
    return exclude_rows(labelled, missing, "name without a label", note)


def _with_groups(dataset: ImageDataset, pattern: str) -> ImageDataset:
    groups = _found(dataset, NamePattern(pattern, "group"), "groups")
    missing = np.flatnonzero(groups.equals(None))
    grouped = dataset.with_columns(group=groups)
    if joined := joined_classes_note(grouped, pattern):
        grouped = grouped.with_notes(joined)
    if not len(missing):
        return grouped
    return grouped.with_notes(
        f"Not in any group, without a group in the name: {n_images(len(missing))}, first "
        f"{quoted(dataset.path[missing[0]])}."
    )


def _name(path: str) -> str:
    """Return a path as text; for a file in a tar file, the path within it."""
    member = split_member(path)
    return valid_text(path if member is None else member[2])


def _found(dataset: ImageDataset, pattern: NamePattern, what: str) -> CodeColumn:
    if dataset.arrays is not None:
        raise DatasetError(
            f"The pattern {pattern.text!r} cannot extract {what}: images in memory have no file "
            "names. Leave the pattern out."
        )
    blocks = (slice(start, start + BLOCK) for start in range(0, len(dataset), BLOCK))
    parts = (
        pattern.find([_name(path) for path in take_rows(dataset.path, rows)]) for rows in blocks
    )
    found = CodeColumn.of(chain.from_iterable(parts))
    if not any(count_values(found)):
        first = dataset.path[0]
        raise DatasetError(
            f"The pattern {pattern.text!r} found no {what} in the names of {n_images(len(found))}; "
            f"the first is {quoted(first)}.{_example(first, what)}"
        )
    return found


# Patterns to suggest: before a number, before a separator, the letters at the start, all but the
# suffix.
_EXAMPLES = ("^([^0-9]+?)[ _-]*[0-9]", "^(.+?)[ _-]", "^([A-Za-z]+)", "^(.+)[.]")


def _example(path: str, what: str) -> str:
    """Return a sentence with a pattern that matches a path; empty if there is none."""
    for text in _EXAMPLES:
        (found,) = NamePattern(text, "").find([path])
        if found:
            option = f"{what.removesuffix('s')}_from"
            return f' For example, `{option}="{text}"` finds {quoted(found)} in it.'
    return ""
