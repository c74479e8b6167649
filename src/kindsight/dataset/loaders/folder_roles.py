"""Folder names that mean a split: train, Validation, test_set, seg_train, val2017, TrainImages."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["UNLABELLED", "is_split_name", "role_of", "split_roles"]

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
    *("set", "sets", "data", "dataset", "image", "images", "img", "imgs", "image", "images"),
    *("photo", "photos", "sample", "samples", "folder", "dir", "split", "part"),
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

    Parameters
    ----------
    names : iterable of str
        Names of folders with the same parent.

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
