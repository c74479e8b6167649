"""Labels given by hand: names, or whole numbers that become their names."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from kindsight.errors import CatalogError

__all__ = ["as_labels"]


def as_labels(labels: Any, n: int) -> tuple[str | None, ...]:
    """Hold labels to the rule: one str, int or bool for each picture; None where not known.

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
    CatalogError
        If there are not `n`, or one is something else, or an empty text.
    """
    if labels is None:
        return ()
    if isinstance(labels, (str, bytes)) or not hasattr(labels, "__len__"):
        raise CatalogError(
            "Labels are a sequence of names or whole numbers, one for each picture. "
            f"Received: {type(labels).__name__}"
        )
    given = list(_flat(labels))
    if len(given) != n:
        raise CatalogError(
            f"There must be one label for each picture, so {n:,}. Received: {len(given):,}"
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
        raise CatalogError(
            "Labels are one name or whole number for each picture, in one dimension. "
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


def _refused(label: object, i: int) -> CatalogError:
    cure = "Give whole numbers: y.astype(int)" if isinstance(label, numbers.Real) else "Name it"
    return CatalogError(
        f"A label is a name, a whole number, or None where it is not known. "
        f"Received: {label!r} ({type(label).__name__}) at place {i}. {cure}."
    )
