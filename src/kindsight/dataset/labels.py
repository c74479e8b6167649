"""Labels: validation of given labels, class order and class indices."""

from __future__ import annotations

import numbers
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.names import quoted
from kindsight.errors import DatasetError

__all__ = ["WHOLE", "as_labels", "check_label_typos", "class_indices", "class_order"]

WHOLE = re.compile(r"[+-]?\d{1,18}")
"""A whole number as text."""


def as_labels(labels: Any, n: int) -> tuple[str | None, ...]:
    """Convert given labels to class names: one for each image; None where unknown.

    - `labels`: numbers become their decimal names (``3`` -> ``"3"``), booleans ``"True"`` and
      ``"False"``.
    - `n`: the required number of labels.

    Returns
    -------
    tuple of (str or None)
        Empty if `labels` is None.

    Raises
    ------
    DatasetError
        If there are not `n` labels, or one is of another type or empty.
    """
    if labels is None:
        return ()
    if isinstance(labels, (str, bytes)) or not hasattr(labels, "__len__"):
        raise DatasetError(
            "Labels must be a sequence of names or whole numbers, one for each image; got "
            f"{type(labels).__name__}."
        )
    given = _as_sequence(labels)
    if len(given) != n:
        raise DatasetError(f"There must be one label for each of {n:,} images; got {len(given):,}.")
    # There are far fewer distinct labels than rows: each is converted once.
    names: dict[tuple[type, object], str | None] = {}
    result = []
    for i, label in enumerate(given):
        key = (type(label), label)
        try:
            if key not in names:
                names[key] = _name(label, i)
        except TypeError:  # not hashable, such as a list
            raise _invalid_label(label, i) from None
        result.append(names[key])
    return tuple(result)


def _as_sequence(labels: Any) -> Sequence[object]:
    if isinstance(labels, (list, tuple)):
        return labels
    array = np.asarray(labels)
    if array.ndim != 1:
        raise DatasetError(
            "Labels must be one name or whole number for each image, in one dimension; got shape "
            f"{array.shape}. For one-hot rows use y.argmax(axis=1)."
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
    raise _invalid_label(label, i)


def _invalid_label(label: object, i: int) -> DatasetError:
    cure = "Convert to integers: y.astype(int)" if isinstance(label, numbers.Real) else "Use a name"
    return DatasetError(
        f"A label must be a name, a whole number, or None if unknown; got {label!r} "
        f"({type(label).__name__}) at index {i}. {cure}."
    )


def class_indices(
    labels: Iterable[str | None], classes: Sequence[str], missing: int | None = None
) -> NDArray[np.int64]:
    """Return the index of each label in `classes`: int64 (n,).

    A label that is not in `classes` gets `missing`; KeyError if that is None.
    """
    index: dict[str | None, int] = {name: k for k, name in enumerate(classes)}
    if missing is None:
        return np.array([index[label] for label in labels], np.int64)
    return np.array([index.get(label, missing) for label in labels], np.int64)


def class_order(labels: Iterable[str | None]) -> tuple[str, ...]:
    """Return the distinct labels sorted: numbers by value, others by code point."""
    distinct = {label for label in labels if label is not None}
    if distinct and all(WHOLE.fullmatch(label) for label in distinct):
        return tuple(sorted(distinct, key=lambda label: (int(label), label)))
    return tuple(sorted(distinct))


def check_label_typos(labels: Sequence[str | None], location: Callable[[int], str]) -> None:
    """Raise DatasetError if labels differ only in case, blanks or the encoding of accents.

    Single letters may differ in case.

    - `labels`: of all rows.
    - `location`: returns the location of row i, for the message.
    """
    first: dict[str, int] = {}
    count: dict[str, int] = {}
    for row, label in enumerate(labels):
        if label is not None:
            first.setdefault(label, row)
            count[label] = count.get(label, 0) + 1
    similar: dict[str, list[str]] = {}
    for label in first:
        similar.setdefault(_normalised(label), []).append(label)
    for names in similar.values():
        if len(names) == 1 or all(len(name) == 1 for name in names):
            continue
        names.sort(key=lambda name: -count[name])
        found = ", ".join(
            f"{quoted(name)} ({count[name]:,}, first in {location(first[name])})" for name in names
        )
        raise DatasetError(
            f"Labels differ only in case, blanks or accents: {found}. Use one spelling."
        )


def _normalised(label: str) -> str:
    return " ".join(unicodedata.normalize("NFC", label).casefold().split())
