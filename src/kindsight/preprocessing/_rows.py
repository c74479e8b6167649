"""What the iterator over a table does with its columns: checked, filtered, never changed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import ColumnTypeError, SettingsError
from kindsight.preprocessing._traps import warn_of

__all__ = ["WITHOUT_CLASSES", "check_columns", "check_split", "column", "keep_classes"]

WITHOUT_CLASSES = ("input", "multi_output", "raw", None)
"""The class modes in which labels are not words."""

_SOME = 3


def column(table: Any, name: Any, rows: Sequence[int] | None = None) -> NDArray[Any]:
    """Return a column as an array, or some rows of it.

    Parameters
    ----------
    table : pandas.DataFrame or the like
        It gives a column as ``table[name]``.
    name : str
        Which column.
    rows : sequence of int, optional
        Numbers of rows, from 0.
    """
    values: Any = table[name]
    values = values.to_numpy() if hasattr(values, "to_numpy") else values
    if not isinstance(values, np.ndarray):
        # Lists in a column stay lists.
        whole = np.empty(len(values), object)
        whole[:] = list(values)
        values = (
            whole if any(isinstance(one, str | list | tuple) for one in whole) else np.array(values)
        )
    result: NDArray[Any] = values if rows is None else values[list(rows)]
    return result


def check_columns(
    table: Any,
    class_mode: str | None,
    x_col: str,
    y_col: Any,
    weight_col: str | None,
    classes: Sequence[str] | None,
) -> None:
    """Check that a table's columns are what a class mode needs.

    Raises
    ------
    ColumnTypeError
        For a column of the wrong type.
    SettingsError
        For a number of classes that is not two in the mode ``"binary"``.
    """
    if class_mode == "multi_output" and not isinstance(y_col, list):
        raise ColumnTypeError(
            "y_col must be a list of columns with class_mode='multi_output'. "
            f"Received: {type(y_col).__name__}."
        )
    _check_types(table, x_col, (str,), "file names, which are text")
    if class_mode in ("binary", "sparse"):
        _check_types(table, y_col, (str,), f"text with class_mode={class_mode!r}")
    if class_mode == "categorical":
        kinds = "text, or lists of text, with class_mode='categorical'"
        _check_types(table, y_col, (str, list, tuple), kinds)
    if class_mode == "binary":
        found = sorted(set(classes or column(table, y_col).tolist()))
        if len(found) != 2:
            raise SettingsError(
                "class_mode='binary' needs two classes. "
                f"Received: {len(found)} ({', '.join(found[:_SOME])})."
            )
    if classes and class_mode in WITHOUT_CLASSES:
        warnings.warn(f"classes is not used with class_mode={class_mode!r}.", stacklevel=4)
    if weight_col and not np.issubdtype(column(table, weight_col).dtype, np.number):
        raise ColumnTypeError(f"The column of weights must hold numbers. Received: {weight_col!r}.")


def _check_types(table: Any, name: Any, types: tuple[type, ...], kinds: str) -> None:
    for row, value in enumerate(column(table, name).tolist()):
        if not isinstance(value, types):
            raise ColumnTypeError(
                f"Column {name!r} must hold {kinds}. "
                f"Received: {value!r} ({type(value).__name__}) in row {row}."
            )


def keep_classes(
    labels: NDArray[Any], rows: Sequence[int], classes: Sequence[str] | None, y_col: Any
) -> tuple[list[int], list[Any], list[str]]:
    """Leave out the rows whose classes are not asked for.

    Parameters
    ----------
    labels : array
        A class, or a list of classes, for each row of the table.
    rows : sequence of int
        The rows in question.
    classes : sequence of str, optional
        Those that are asked for.
    y_col : str
        What the column is called.

    Returns
    -------
    rows : list of int
    labels : list
        Of these rows; of a list of classes, those that are asked for.
    classes : list of str
        As asked for, without repeats; otherwise those found, sorted.
    """
    given = [labels[row] for row in rows]
    if not classes:
        several = ((one if isinstance(one, list | tuple) else [one]) for one in given)
        return list(rows), given, sorted({name for names in several for name in names})
    asked = list(dict.fromkeys(classes))
    kept_rows, kept_labels = [], []
    for row, label in zip(rows, given, strict=True):
        if isinstance(label, list | tuple):
            label = [name for name in label if name in asked]  # noqa: PLW2901
            keep = bool(label)
        else:
            keep = label in asked
        if keep:
            kept_rows.append(row)
            kept_labels.append(label)
    return kept_rows, kept_labels, asked


def check_split(labels: Sequence[Any], first: int, last: int) -> None:
    """Warn of a part that lacks classes, as the first or last rows of a sorted table do."""
    part, others = labels[first:last], [*labels[:first], *labels[last:]]
    if not part or not others:
        return
    here, there = ({str(label) for label in some} for some in (part, others))
    if missing := sorted(here ^ there):
        names = ", ".join(missing[:_SOME]) + (", ..." if len(missing) > _SOME else "")
        warn_of("sorted-split", missing=len(missing), total=len(here | there), names=names)
