"""Which files of a tar file are images, and which files accompany each image, as arrays."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.columns.codes import NumberColumn
from kindsight.dataset.names import (
    IMAGE_EXTENSIONS,
    NOT_AN_IMAGE,
    UNREAD_EXTENSIONS,
    extension_of,
    why_folder_is_ignored,
    why_name_is_ignored,
)
from kindsight.dataset.walk import reason_with_extension
from kindsight.storage.members import Members
from kindsight.storage.shards import TEXT_ENDINGS

__all__ = ["FURTHER", "REPEATED", "Samples"]

FURTHER, REPEATED = "further image of a sample", "repeated name in an archive"
"""Reasons for which images of tar files are ignored."""

_IMAGES = IMAGE_EXTENSIONS | UNREAD_EXTENSIONS
# What a file is by its name.
_UNUSABLE, _PLAIN, _IMAGE, _TEXT, _FACTS, _LABEL = (1 << k for k in range(6))


class Samples:
    """The files of a tar file by sample: the files whose names are equal up to the first dot.

    Parameters
    ----------
    members : Members
        The files.
    label_ending : str
        Ending of the files with labels, without the dot; "" if there are none.
    """

    def __init__(self, members: Members, label_ending: str) -> None:
        self._members = members
        self._kinds, samples, names = _classified(members, label_ending)
        usable = np.flatnonzero(~self._is(_UNUSABLE))
        # The first file of each one's sample; names are compared by their hashes.
        self._first = np.arange(len(members))
        self._first[usable] = usable[_first_equal(samples[usable])]
        same = usable[_first_equal(names[usable])]
        self._repeated = np.zeros(len(members), bool)
        self._repeated[usable] = same != usable
        self._used = ~self._is(_UNUSABLE) & ~self._repeated
        # One image of a sample, unless all names have more dots.
        plain = self._of_sample(_PLAIN, self._used)
        self._chosen = self._used & self._is(_IMAGE)
        self._chosen &= (plain < 0) | (plain == np.arange(len(members)))

    def ignored(self) -> Iterator[tuple[str, str, int]]:
        """Yield name, reason and size of each file that is neither an image nor metadata."""
        for row in NumberColumn(np.flatnonzero(~self._used)):
            name, _, size = self._members[row]
            yield name, REPEATED if self._repeated[row] else _why_ignored(name) or "", size
        image = self._is(_IMAGE)
        for row in self._in_order((image & ~self._chosen) | ~(image | self._is(_TEXT))):
            name, _, size = self._members[row]
            reason = FURTHER if image[row] else reason_with_extension(NOT_AN_IMAGE, name)
            yield name, reason, size

    def images(self) -> Iterator[tuple[str, int, bytes | None, bytes | None]]:
        """Yield name and size of each image, and the contents of its ``.json`` and label files."""
        members = self._members
        facts, labels = self._of_sample(_FACTS), self._of_sample(_LABEL)
        for row in self._in_order(self._chosen):
            name, _, size = members[row]
            fact, label = int(facts[row]), int(labels[row])
            yield (
                name,
                size,
                members.text(fact) if fact >= 0 else None,
                members.text(label) if label >= 0 else None,
            )

    def _is(self, kind: int) -> NDArray[np.bool_]:
        return np.bitwise_and(self._kinds, np.uint8(kind)).astype(np.bool_)

    def _of_sample(self, kind: int, among: NDArray[np.bool_] | None = None) -> NDArray[np.int32]:
        """Return the first file of a kind in each file's sample; -1 if there is none."""
        mask = self._is(kind) if among is None else among & self._is(kind)
        rows = np.flatnonzero(mask)[::-1]
        found = np.full(len(self._first), -1, np.int32)
        found[self._first[rows]] = rows  # of several, the last assignment remains
        return found[self._first]

    def _in_order(self, mask: NDArray[np.bool_]) -> NumberColumn:
        """Return the used files of a mask, sorted by the first files of their samples."""
        rows = np.flatnonzero(mask & self._used)
        return NumberColumn(rows[np.argsort(self._first[rows], kind="stable")])


def _classified(
    members: Members, label_ending: str
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Return each file's kind, and the hashes of its sample's name and of its own."""
    kinds, samples, names = bytearray(), array("q"), array("q")
    for row in range(len(members)):
        name = members.name(row)
        dot = name.find(".", name.rfind("/") + 1)
        sample, ending = (name, "") if dot < 0 else (name[:dot], name[dot + 1 :])
        kind = _kind(ending)
        if _why_ignored(name):
            kind |= _UNUSABLE
        if kind & _TEXT and members.text(row) is not None:
            kind |= _FACTS if ending == "json" else 0
            kind |= _LABEL if ending == label_ending else 0
        kinds.append(kind)
        samples.append(hash(sample))
        names.append(hash(f"{sample}.{ending.lower()}"))
    return np.frombuffer(kinds, np.uint8), np.array(samples), np.array(names)


@lru_cache(maxsize=256)
def _kind(ending: str) -> int:
    """Return what files with an ending are: an image, one without further dots, or metadata."""
    ending = ending.lower()
    kind = _PLAIN if ending in _IMAGES else 0
    kind |= _IMAGE if extension_of(f".{ending}") in _IMAGES else 0
    return kind | (_TEXT if f".{ending}" in TEXT_ENDINGS else 0)


def _why_ignored(path: str) -> str | None:
    """Return why a file is ignored for its name or a folder's; None if it is not."""
    folder, _, name = path.rpartition("/")
    return _why_folder_is_ignored(folder) or why_name_is_ignored(name)


@lru_cache(maxsize=256)
def _why_folder_is_ignored(path: str) -> str | None:
    return next(filter(None, map(why_folder_is_ignored, path.split("/"))), None)


def _first_equal(values: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return for each value the index of the first one that is equal."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    return first[inverse]
