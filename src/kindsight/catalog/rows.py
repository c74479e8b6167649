"""Picking rows by NumPy's rules out of tuples, and showing a table in one line."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kindsight.catalog.names import pictures, shown

__all__ = ["as_rows", "digest_of_rows", "summary", "take", "three_channels"]

_T = TypeVar("_T")
_SHOWN_CLASSES = 6


def as_rows(key: Any, n: int) -> slice | list[int]:
    """Turn an index into a table of `n` rows into a slice or a list of row numbers.

    Parameters
    ----------
    key : int, slice, integer array, boolean mask or (one of these, Ellipsis)
        As for a one-dimensional NumPy array; scikit-learn uses the form with the ellipsis.

    Raises
    ------
    IndexError
        If a row does not exist, or a mask has another length than `n`.
    TypeError
        If `key` is none of these.
    """
    if isinstance(key, tuple) and len(key) == 2 and key[1] is Ellipsis:
        key = key[0]
    if isinstance(key, slice):
        return key
    if isinstance(key, (tuple, str, bytes, type(None), type(Ellipsis))):
        raise TypeError(
            "A catalog is indexed by an integer, a slice, an array of integers or a mask. "
            f"Received: {key!r}"
        )
    index = np.asarray(key)
    if index.size == 0 and not hasattr(key, "dtype"):
        index = index.astype(np.int64)
    if index.dtype.kind not in "iub" or index.ndim > 1 or (index.dtype == bool and not index.ndim):
        raise TypeError(
            "A catalog is indexed by integers or a mask, in one dimension. "
            f"Received: {index.dtype} of shape {index.shape}"
        )
    if index.dtype == bool:
        if len(index) != n:
            raise IndexError(f"a mask must have {n} values. Received: {len(index)}")
        index = np.flatnonzero(index)
    index = np.atleast_1d(index)
    if index.size and not (-n <= int(index.min()) and int(index.max()) < n):
        raise IndexError(f"rows go from 0 to {n - 1}. Received: {index.min()} to {index.max()}")
    rows: list[int] = index.tolist()
    return rows


def take(column: Sequence[_T], rows: slice | list[int]) -> tuple[_T, ...]:
    """Return the rows of a column."""
    if isinstance(rows, slice):
        return tuple(column[rows])
    if len(rows) > 1:
        picked: tuple[_T, ...] = operator.itemgetter(*rows)(column)
        return picked
    return tuple(column[row] for row in rows)


def three_channels(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture of shape (h, w, 3), (h, w, 1) or (h, w) as (h, w, 3)."""
    if picture.ndim == 2:
        picture = picture[:, :, None]
    return picture if picture.shape[2] == 3 else np.repeat(picture, 3, axis=2)


def digest_of_rows(pairs: Iterable[tuple[str, str | None]]) -> str:
    """Return one digest over (digest, label) pairs, whatever their order: 32 hexadecimal digits."""
    total = hashlib.blake2b(digest_size=16)
    for digest, label in sorted((d, "" if k is None else f"={k}") for d, k in pairs):
        # A label comes with its length, so that no two tables give the same bytes.
        total.update(f"{digest}:{len(label)}:{label};".encode("utf-8", "surrogatepass"))
    return total.hexdigest()


def summary(n: int, classes: Mapping[str, int], splits: Mapping[str, int]) -> str:
    """Describe a table in one line: ``1,399 pictures, 2 classes: cat 700, dog 699``."""
    text = pictures(n)
    if classes:
        names = [f"{shown(name)[1:-1]} {count:,}" for name, count in classes.items()]
        if len(names) > _SHOWN_CLASSES:
            names[_SHOWN_CLASSES - 1 :] = ["..."]
        text += f", {len(classes)} class{'' if len(classes) == 1 else 'es'}: {', '.join(names)}"
    parts = [f"{name} {count:,}" for name, count in splits.items() if count]
    return f"{text}; {', '.join(parts)}" if parts else text
