"""The table of a cost matrix."""

from __future__ import annotations

import csv
import io
import math
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.names import quoted, quoted_list
from kindsight.errors import SettingsError

__all__ = ["read_costs"]

MAX_BYTES = 64 * 1024**2


def read_costs(path: str | os.PathLike[str], classes: tuple[str, ...]) -> NDArray[np.float64]:
    """Return the cost of an image by label (row) and decision (column): float64 (k, k).

    Parameters
    ----------
    path : str or Path
        CSV. The first line has the names of the predicted classes, from its second cell on; each
        other line the name of a label and a cost for each of them, in any order.
    classes : tuple of str
        The k classes of the classifier.

    Raises
    ------
    SettingsError
        If the file cannot be read, or has not exactly one cost for each pair of classes.
    """
    name = quoted(str(path))
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise SettingsError(f"Could not read `costs`, {name}: {error.strerror}.") from error
    except UnicodeDecodeError:
        raise SettingsError(f"`costs` must be UTF-8 text; {name} is not.") from None
    if len(content) > MAX_BYTES:
        raise SettingsError(f"`costs` must be at most {MAX_BYTES // 1024**2} MB; {name} is larger.")
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if any(row)]
    except csv.Error as error:
        raise SettingsError(f"`costs` must be a CSV table; {name}: {error}.") from None
    header = [cell.strip() for cell in rows[0][1:]] if rows else []
    labels = [row[0].strip() for row in rows[1:]]
    for kind, found in (("columns", header), ("rows", labels)):
        _check_names(kind, found, classes, name)
    costs = np.empty((len(classes), len(classes)))
    for label, row in zip(labels, rows[1:], strict=True):
        if len(row) != len(header) + 1:
            raise SettingsError(
                f"`costs` must have a number for each class; the row of {quoted(label)} in {name} "
                f"has {len(row) - 1} of {len(header)}."
            )
        for column, cell in zip(header, row[1:], strict=True):
            costs[classes.index(label), classes.index(column)] = _cost(cell, label, column, name)
    return costs


def _check_names(kind: str, found: list[str], classes: tuple[str, ...], name: str) -> None:
    missing = [each for each in classes if each not in found]
    unknown = [each for each in found if each not in classes]
    if missing or unknown or len(found) != len(classes):
        problem = (
            f"no {quoted_list(missing)}"
            if missing
            else f"{quoted_list(unknown)}, which the classifier does not know"
            if unknown
            else "a class twice"
        )
        raise SettingsError(
            f"`costs` must have the classes as {kind}: {quoted_list(classes)}; "
            f"{name} has {problem}."
        )


def _cost(cell: str, label: str, column: str, name: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SettingsError(
            f"`costs` must be numbers; got {cell.strip()!r} for {quoted(label)} predicted as "
            f"{quoted(column)} in {name}."
        )
    return value
