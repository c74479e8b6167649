"""Labels: validation of given labels, class order and class indices."""

from __future__ import annotations

import math
import numbers
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.columns.codes import CodeColumn
from kindsight.dataset.columns.convert import as_codes, count_values
from kindsight.dataset.names import quoted
from kindsight.dataset.several_labels import MULTI_LABEL, choose_labels, one_hot_labels
from kindsight.encoding import valid_text
from kindsight.errors import DatasetError

__all__ = [
    "MISSING", "WHOLE", "as_labels", "check_label_typos", "check_not_fractions", "class_indices",
    "class_order", "distinct_labels", "normalised_label",
]  # fmt: skip

WHOLE = re.compile(r"[+-]?\d{1,18}")
"""A whole number as text."""

MISSING = frozenset(
    {"", "-", "NA", "<NA>", "N/A", "n/a", "#N/A", "#N/A N/A", "#NA", "NULL", "null", "None"}
    | {"NaN", "nan", "-NaN", "-nan", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"}
)
"""Texts in data files that stand for a missing value: pandas' list, and a dash."""

# The text to which NumPy and pandas convert a missing value.
_CONVERTED_MISSING = frozenset({"nan", "<NA>", "NaT"})

_FRACTION = re.compile(r"[+-]?(\d{0,18}[.,]\d{0,30}|\d{1,18})([eE][+-]?\d{1,3})?")


def as_labels(
    labels: Any, n: int, *, multi_label: str | None = None, keep_na_labels: bool = False
) -> tuple[str | None, ...]:
    """Convert given labels to class names: one for each image; None where unknown.

    - `labels`: numbers become their decimal names (``3`` -> ``"3"``), booleans ``"True"`` and
      ``"False"``. NaN and other missing values are unknown labels. One-hot rows (n, classes) become
      the numbers of their columns, or the column names of a data frame. A label may be a list.
    - `n`: the required number of labels.
    - `multi_label`: the handling of an image with several labels; ``"first"``: the first one is
      used, ``"skip"``: its label is unknown, ``"combine"``: the combination is a class.
    - `keep_na_labels`: whether the text ``nan``, to which NumPy and pandas convert a missing value,
      is a class.

    Returns
    -------
    tuple of (str or None)
        Empty if `labels` is None.

    Raises
    ------
    DatasetError
        If there are not `n` labels, one is of another type, or one image has several.
    """
    if labels is None:
        return ()
    if isinstance(labels, (str, bytes)) or not hasattr(labels, "__len__") or _is_scalar(labels):
        raise DatasetError(
            "Labels must be a sequence of names or integers, one for each image; got "
            f"{type(labels).__name__}."
        )
    if multi_label is not None and multi_label not in MULTI_LABEL:
        raise DatasetError(
            f"multi_label must be one of {', '.join(MULTI_LABEL)}, or None; got {multi_label!r}."
        )
    if len(labels) != n:
        raise DatasetError(
            f"There must be one label for each of {n:,} images; got {len(labels):,}."
        )
    rows = _lists_of_labels(labels)
    if rows is None:
        rows = _single_labels(list(labels))
    named = [
        tuple(name for name in row if keep_na_labels or name not in _CONVERTED_MISSING)
        for row in rows
    ]
    chosen, _ = choose_labels(named, multi_label, "The labels", _index)
    return tuple(chosen)


def _is_scalar(labels: Any) -> bool:
    return getattr(labels, "shape", None) == ()


def _index(row: int) -> str:
    return f"index {row:,}"


def _lists_of_labels(labels: Any) -> Sequence[tuple[str, ...]] | None:
    """Return the labels of one-hot rows or lists of labels; None for one label for each image."""
    if isinstance(labels, (list, tuple)):
        if not any(isinstance(label, (list, tuple, set, np.ndarray)) for label in labels):
            return None
        array = None
        if len({len(label) if hasattr(label, "__len__") else -1 for label in labels}) == 1:
            array = np.asarray(labels)
        if array is None or array.ndim != 2 or array.dtype.kind not in "buif":
            lists = (
                sorted(one) if isinstance(one, set) else one if _is_list(one) else [one]
                for one in labels
            )
            return [tuple(_names(list(one), i)) for i, one in enumerate(lists)]
    else:
        array = np.asarray(labels)
        if array.ndim == 2 and array.dtype == object and hasattr(labels, "columns"):
            array = array.astype(float)
    if array.ndim == 1:
        return None
    if array.ndim == 2 and array.shape[1] == 1:
        return _single_labels(array[:, 0].tolist())
    if array.ndim != 2 or array.dtype.kind not in "buif" or not np.isin(array, (0, 1)).all():
        raise DatasetError(
            "Labels must be one name or whole number for each image, or one-hot rows of 0 and 1; "
            f"got {array.dtype} of shape {array.shape}. For rows of scores or probabilities use "
            "y.argmax(axis=1)."
        )
    names = [str(name) for name in getattr(labels, "columns", range(array.shape[1]))]
    return one_hot_labels(list(array.astype(bool).T), names)


def _is_list(label: object) -> bool:
    return isinstance(label, (list, tuple, np.ndarray))


def _single_labels(given: Sequence[object]) -> list[tuple[str, ...]]:
    return [() if name is None else (name,) for name in _all_names(given)]


def _names(given: Sequence[object], row: int) -> list[str]:
    """Return the names of one image's labels."""
    return [name for label in given if (name := _name(label, row)) is not None]


def _all_names(given: Sequence[object]) -> list[str | None]:
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
    return result


def _name(label: object, i: int) -> str | None:
    if label is None or type(label).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(label, str):
        return valid_text(str(label)) if label.strip() else None
    if isinstance(label, (bool, np.bool_)):
        return str(bool(label))
    if isinstance(label, numbers.Integral):
        return str(int(label))
    if isinstance(label, numbers.Real):
        number = float(label)
        if math.isnan(number):
            return None
        if number.is_integer():
            return str(int(number))
    raise _invalid_label(label, i)


def _invalid_label(label: object, i: int) -> DatasetError:
    if isinstance(label, numbers.Real):
        return DatasetError(_regression("The labels", str(label), _index(i)))
    return DatasetError(
        f"A label must be a name, a whole number, or None if unknown; got {label!r:.60} "
        f"({type(label).__name__}) at index {i}. Use a name."
    )


def _regression(what: str, example: str, where: str) -> str:
    return (
        f"{what} are numbers with fractions, such as {example} at {where}: this is regression, and "
        "kindsight trains classifiers. Convert the numbers to classes, such as low, medium and "
        "high, or use another label."
    )


def check_not_fractions(
    labels: Sequence[str | None], what: str, location: Callable[[int], str]
) -> None:
    """Raise DatasetError if all labels are numbers and some have fractions.

    Parameters
    ----------
    labels : sequence of (str or None)
        Of all rows.
    what : str
        Name of the labels, as the start of a sentence.
    location : callable
        Returns the location of row i, for the message.
    """
    numbers_of: dict[str, float] = {}
    for label in labels:
        if label is None or label in numbers_of:
            continue
        if not (_FRACTION.fullmatch(label) and any(map(str.isdigit, label))):
            return
        numbers_of[label] = float(label.replace(",", "."))
    for row, given in enumerate(labels):
        if given is not None and not numbers_of[given].is_integer():
            raise DatasetError(_regression(what, given, location(row)))


def distinct_labels(labels: Any, names: Sequence[str | None]) -> NDArray[Any]:
    """Return the distinct labels as they were given, sorted, without missing ones.

    Parameters
    ----------
    labels : sequence or array
        As for :func:`as_labels`.
    names : sequence of (str or None)
        The result of :func:`as_labels` for them.

    Returns
    -------
    array
        (classes,); the numbers or names of the columns for one-hot rows.
    """
    if _lists_of_labels(labels) is None:
        pairs = zip(labels, names, strict=True)
        return np.unique(np.asarray([label for label, name in pairs if name is not None]))
    classes = class_order(names)
    if classes and all(WHOLE.fullmatch(name) for name in classes):
        return np.array([int(name) for name in classes])
    return np.array(classes)


def class_indices(
    labels: Iterable[str | None], classes: Sequence[str], missing: int | None = None
) -> NDArray[np.int64]:
    """Return the index of each label in `classes`: int64 (n,).

    A label that is not in `classes` gets `missing`; KeyError if that is None.
    """
    index: dict[str | None, int] = {name: k for k, name in enumerate(classes)}
    if isinstance(labels, CodeColumn):
        coded = labels.mapped(
            lambda label: index[label] if missing is None else index.get(label, missing)
        )
        found: NDArray[np.int64] = np.array([*coded.names, 0], np.int64)[coded.codes]
        return found
    if missing is None:
        return np.array([index[label] for label in labels], np.int64)
    return np.array([index.get(label, missing) for label in labels], np.int64)


def class_order(labels: Iterable[str | None]) -> tuple[str, ...]:
    """Return the distinct labels sorted: numbers by value, others by code point."""
    every = count_values(labels) if isinstance(labels, CodeColumn) else labels
    distinct = {label for label in every if label is not None}
    if distinct and all(WHOLE.fullmatch(label) for label in distinct):
        return tuple(sorted(distinct, key=lambda label: (int(label), label)))
    return tuple(sorted(distinct))


def check_label_typos(labels: Sequence[str | None], location: Callable[[int], str]) -> None:
    """Raise DatasetError if labels differ only in case, blanks or the encoding of accents.

    Single letters may differ in case.

    - `labels`: of all rows.
    - `location`: returns the location of row i, for the message.
    """
    coded = as_codes(labels)
    rows = dict(zip(coded.names, coded.first_rows().tolist(), strict=False))
    count = dict(zip(coded.names, coded.counts().tolist(), strict=False))
    first = {label: rows[label] for label in sorted(rows, key=rows.__getitem__) if count[label]}
    similar: dict[str, list[str]] = {}
    for label in first:
        similar.setdefault(normalised_label(label), []).append(label)
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


def normalised_label(label: str) -> str:
    """Return a label in a form that ignores case, blanks and the encoding of accents."""
    return " ".join(unicodedata.normalize("NFC", label).casefold().split())
