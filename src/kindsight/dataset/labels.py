"""Labels given by hand: names, or whole numbers that become their names."""

from __future__ import annotations

import numbers
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.names import shown
from kindsight.errors import DatasetError

__all__ = [
    "WHOLE",
    "as_labels",
    "check_label_typos",
    "class_indices",
    "class_order",
]


def as_labels(labels: Any, n: int) -> tuple[str | None, ...]:
    """Hold labels to the rule: one str, int or bool for each image; None where not known.

    Parameters
    ----------
    labels : sequence of str, int, bool or None; or None
        Numbers become their decimal names (``3`` -> ``"3"``), True and False their words.
    n : int
        How many there must be.

    Returns
    -------
    tuple of (str or None)
        Empty where `labels` is None.

    Raises
    ------
    DatasetError
        If there are not `n`, or one is something else, or an empty text.
    """
    if labels is None:
        return ()
    if isinstance(labels, (str, bytes)) or not hasattr(labels, "__len__"):
        raise DatasetError(
            "Labels are a sequence of names or whole numbers, one for each image. "
            f"Received: {type(labels).__name__}"
        )
    given = list(_flat(labels))
    if len(given) != n:
        raise DatasetError(
            f"There must be one label for each image, so {n:,}. Received: {len(given):,}"
        )
    # Far fewer values than rows: each value is looked at once.
    names: dict[tuple[type, object], str | None] = {}
    result = []
    for i, label in enumerate(given):
        key = (type(label), label)
        try:
            if key not in names:
                names[key] = _name(label, i)
        except TypeError:  # a list or another thing that cannot be looked up is no label
            raise _refused(label, i) from None
        result.append(names[key])
    return tuple(result)


def _flat(labels: Any) -> Sequence[object]:
    if isinstance(labels, (list, tuple)):
        return labels
    array = np.asarray(labels)
    if array.ndim != 1:
        raise DatasetError(
            "Labels are one name or whole number for each image, in one dimension. "
            f"Received: shape {array.shape}. For one-hot rows give y.argmax(axis=1)."
        )
    return list(array)


def _name(label: object, i: int) -> str | None:
    if label is None:
        return None
    if isinstance(label, str) and label:
        return str(label)
    if isinstance(label, (bool, np.bool_)):
        return str(bool(label))
    if isinstance(label, numbers.Integral):
        return str(int(label))
    raise _refused(label, i)


def _refused(label: object, i: int) -> DatasetError:
    cure = "Give whole numbers: y.astype(int)" if isinstance(label, numbers.Real) else "Name it"
    return DatasetError(
        f"A label is a name, a whole number, or None where it is not known. "
        f"Received: {label!r} ({type(label).__name__}) at place {i}. {cure}."
    )


def class_indices(
    labels: Iterable[str | None], classes: Sequence[str], missing: int | None = None
) -> NDArray[np.int64]:
    """Return the index of each label in `classes`: int64 (n,).

    A label that is not in `classes` gets `missing`; KeyError where that is None.
    """
    index: dict[str | None, int] = {name: k for k, name in enumerate(classes)}
    if missing is None:
        return np.array([index[label] for label in labels], np.int64)
    return np.array([index.get(label, missing) for label in labels], np.int64)


# SECTION: How labels are spelled: which are slips of one another, and in what order they stand.

WHOLE = re.compile(r"[+-]?\d{1,18}")
"""A whole number as text."""


def check_label_typos(labels: Sequence[str | None], place: Callable[[int], str]) -> None:
    """Refuse labels that differ only by case, blanks, or how accents are written.

    Single characters may differ by case: they are letters, which differ.

    Parameters
    ----------
    labels : sequence of (str or None)
        Of all rows.
    place : callable
        Says where row i is, for the message.

    Raises
    ------
    DatasetError
        Naming the spellings, how often they occur, and where first.
    """
    first: dict[str, int] = {}
    count: dict[str, int] = {}
    for row, label in enumerate(labels):
        if label is not None:
            first.setdefault(label, row)
            count[label] = count.get(label, 0) + 1
    alike: dict[str, list[str]] = {}
    for label in first:
        alike.setdefault(_plain(label), []).append(label)
    for names in alike.values():
        if len(names) == 1 or all(len(name) == 1 for name in names):
            continue
        names.sort(key=lambda name: -count[name])
        said = ", ".join(
            f"{shown(name)} ({count[name]:,}, the first in {place(first[name])})" for name in names
        )
        raise DatasetError(
            f"Labels must differ by more than case and blanks. Received: {said}. Spell them alike."
        )


def _plain(label: str) -> str:
    """Return what is left of a label without case, superfluous blanks and ways to write accents."""
    return " ".join(unicodedata.normalize("NFC", label).casefold().split())


def class_order(labels: Iterable[str | None]) -> tuple[str, ...]:
    """Return the different labels in order: numbers by their value, others by code point."""
    different = {label for label in labels if label is not None}
    if different and all(WHOLE.fullmatch(label) for label in different):
        return tuple(sorted(different, key=lambda label: (int(label), label)))
    return tuple(sorted(different))
