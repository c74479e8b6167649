"""What the arrays of a file are, told by their names.

All usual spellings are understood: ``x_train`` and ``y_train``, ``train_images`` and
``train_labels``, ``X`` and ``y``, ``images`` and ``labels``, ``testX`` and ``testY``. Arrays that
were saved without a name (``arr_0``, ``arr_1``) are pictures and labels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from kindsight.catalog.names import shown_list
from kindsight.catalog.roles import UNLABELLED, role_of
from kindsight.errors import CatalogError

__all__ = ["Part", "Parts", "find_parts"]

_WORDS_OF_KIND = {
    "pictures": (
        *("x", "xs", "image", "images", "img", "imgs", "picture", "pictures", "photo", "photos"),
        *("data", "pixels", "inputs", "features"),
    ),
    "labels": ("y", "ys", "label", "labels", "target", "targets", "class", "classes"),
    "groups": ("group", "groups", "patient", "patients", "subject", "subjects", "person"),
}
_KIND_OF_WORD = {word: kind for kind, words in _WORDS_OF_KIND.items() for word in words}
_UNNAMED = {"": "pictures", "arr_0": "pictures", "arr_1": "labels"}
_FILLER = ("set", "sets", "array")
_CLASS_NAMES = ("class_names", "label_names", "target_names", "names", "classnames")
_JOINED = re.compile(r"(x|y)(train|val|valid|test|dev)|(train|val|valid|test|dev)(x|y)")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W_]+")


class Part(NamedTuple):
    """The arrays of one split.

    Attributes
    ----------
    split : str or None
        ``"train"``, ``"validation"``, ``"test"``; None where the names say none.
    pictures : str
        The array's name.
    labels, groups : str or None
        Theirs.
    """

    split: str | None
    pictures: str
    labels: str | None
    groups: str | None


class Parts(NamedTuple):
    """All arrays of a file.

    Attributes
    ----------
    parts : tuple of Part
        In the order None, train, validation, test.
    class_names : str or None
        The array that names the labels 0, 1, 2, ...
    unused : tuple of str
        Arrays that mean nothing here.
    """

    parts: tuple[Part, ...]
    class_names: str | None
    unused: tuple[str, ...]


def find_parts(names: Iterable[str], where: str) -> Parts:
    """Find out which array holds what.

    Parameters
    ----------
    names : iterable of str
        The arrays' names.
    where : str
        The file, for messages.

    Raises
    ------
    CatalogError
        If two arrays are the same, or a split has no pictures.
    """
    found: dict[tuple[str | None, str], str] = {}
    class_names, unused = None, []
    for name in names:
        meaning = _meaning(name)
        if name.lower() in _CLASS_NAMES and class_names is None:
            class_names = name
        elif meaning is None:
            unused.append(name)
        elif meaning in found:
            raise CatalogError(
                "The arrays of a file must be told apart by their names. Received: "
                f"{shown_list((found[meaning], name))} in {where}, both of which would be "
                f"{meaning[1]}. Save those that are meant as x and y."
            )
        else:
            found[meaning] = name
    parts = []
    for split in (None, "train", "validation", "test"):
        kinds = {kind: name for (part, kind), name in found.items() if part == split}
        if kinds and "pictures" not in kinds:
            raise _no_pictures(tuple(names), where)
        if kinds:
            parts.append(Part(split, kinds["pictures"], kinds.get("labels"), kinds.get("groups")))
    if not parts:
        raise _no_pictures(tuple(names), where)
    return Parts(tuple(parts), class_names, tuple(unused))


def _meaning(name: str) -> tuple[str | None, str] | None:
    """Return split and kind of an array; None where its name says neither."""
    if name in _UNNAMED:
        return None, _UNNAMED[name]
    words: list[str] = []
    for word in _WORD.findall(name):
        joined = _JOINED.fullmatch(word.lower())
        words += [part for part in joined.groups() if part] if joined else [word.lower()]
    kinds = {_KIND_OF_WORD[word] for word in words if word in _KIND_OF_WORD}
    rest = [word for word in words if word not in _KIND_OF_WORD and word not in _FILLER]
    roles = [role_of(word) for word in rest]
    if len(kinds) != 1 or len(roles) > 1 or None in roles or UNLABELLED in roles:
        return None
    return (roles[0] if roles else None), kinds.pop()


def _no_pictures(names: tuple[str, ...], where: str) -> CatalogError:
    there = shown_list(names) if names else "nothing"
    return CatalogError(
        f"Arrays of labels must have arrays of pictures beside them, called x and y, or x_train, "
        f"y_train, x_test and y_test. Received: {there} in {where}."
    )
