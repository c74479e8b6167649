"""Catalogs of arrays in files, ``.npz`` and ``.npy``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.catalog.arrays import from_arrays
from kindsight.catalog.catalog import Catalog
from kindsight.catalog.from_names import with_names
from kindsight.catalog.names import pictures, shown, shown_list
from kindsight.catalog.options import DataOptions
from kindsight.catalog.readers.array_files import read_arrays
from kindsight.catalog.readers.array_names import Part, find_parts
from kindsight.catalog.readers.pixels import SCALED, as_pictures, as_pixels
from kindsight.catalog.readers.values import name_labels, read_labels
from kindsight.catalog.spelling import check_spelling, class_order
from kindsight.errors import CatalogError

__all__ = ["from_npz"]

_Arrays = Mapping[str, NDArray[Any]]


def from_npz(
    path: str | os.PathLike[str],
    options: DataOptions | None = None,
    *,
    labelled: bool = True,
) -> Catalog:
    """Make a catalog of the arrays in an ``.npz`` or ``.npy`` file.

    The arrays are told by their names; see :mod:`.array_names`. Pictures are
    (n, height, width), (n, height, width, 1) or (n, height, width, 3), also with the channels
    before the height, or rows of pixels, (n, height * width). Truth values become 0 and 255; whole
    numbers 0-255 stay; floats that all lie from 0 to 1 are multiplied by 255, which a note says.
    Labels and groups are (n,) or (n, 1), whole numbers or texts; labels may be one-hot rows, too.

    Parameters
    ----------
    path : str or Path
        The file.
    options : DataOptions, optional
        What the file does not say itself.
    labelled : bool
        Whether there must be labels. Without it only the pictures are read.

    Returns
    -------
    Catalog
        Training, validation and test part one after the other, where the names tell them apart.
        Pictures are called after their arrays, ``digits.npz:x_train[12]``.

    Raises
    ------
    CatalogError
        If the file is no such file, holds Python objects, is larger than 4 GiB, or if its arrays
        are not pictures and labels.
    """
    options = options or DataOptions()
    options.check()
    name = os.fspath(path)
    where = shown(os.path.basename(name))  # noqa: PTH119
    arrays = read_arrays(name)
    parts, class_names, unused = find_parts(arrays, where)
    notes = [f"Not used of {where}: the arrays {shown_list(unused)}."] if unused else []
    if labelled:
        parts = _labelled(parts, arrays, where, notes)
    called = [f"{shown(part.pictures)} in {where}" if part.pictures else where for part in parts]
    shaped = []
    for part, said in zip(parts, called, strict=True):
        array, note = as_pictures(arrays[part.pictures], options.shape, said)
        shaped.append(array)
        notes.extend([note] if note else [])
    held, fractions = as_pixels(shaped, called)
    if fractions:
        notes.append(SCALED.format(where=where))
    memory = from_arrays([picture for array in held for picture in array])
    columns: dict[str, Any] = {}
    if labelled:
        given = options.label_names or _class_names(arrays, class_names)
        columns = _columns(arrays, parts, given, where)
    start = name.replace(os.sep, "/")
    catalog = Catalog(
        path=tuple(
            f"{start}:{part.pictures}[{row}]" if part.pictures else f"{start}[{row}]"
            for part, array in zip(parts, held, strict=True)
            for row in range(len(array))
        ),
        size=memory.size,
        arrays=memory.arrays,
        notes=tuple(dict.fromkeys(notes)),
        **columns,
    )
    return with_names(catalog, options, labelled=labelled)


def _labelled(
    parts: Sequence[Part], arrays: _Arrays, where: str, notes: list[str]
) -> tuple[Part, ...]:
    """Leave out parts without labels, with a note; there must be one that has some."""
    kept = tuple(part for part in parts if part.labels is not None)
    if not kept:
        raise CatalogError(
            "Arrays of pictures must have arrays of labels beside them, called x and y, or "
            f"x_train, y_train, x_test and y_test. Received: {shown_list(tuple(arrays))} in "
            f"{where}."
        )
    notes.extend(
        f"Without labels, and so left out: {pictures(len(arrays[part.pictures]))} of {where}, the "
        f"array {shown(part.pictures)}."
        for part in parts
        if part not in kept
    )
    return kept


def _class_names(arrays: _Arrays, name: str | None) -> list[str]:
    """Return the names of the labels 0, 1, 2, ... that the file itself gives."""
    if name is None or arrays[name].ndim != 1 or arrays[name].dtype.kind not in "US":
        return []
    return [_text(value) for value in arrays[name].tolist()]


def _columns(
    arrays: _Arrays, parts: Sequence[Part], names: Sequence[str], where: str
) -> dict[str, Any]:
    """Return labels, splits and groups of all parts, one part after the other."""
    labels: list[str | None] = []
    groups: list[str | None] = []
    splits: list[str | None] = []
    for part in parts:
        n = len(arrays[part.pictures])
        labels += _cells(arrays, str(part.labels), n, part, where)
        groups += [None] * n if part.groups is None else _cells(arrays, part.groups, n, part, where)
        splits += [part.split] * n
    place = _placer(arrays, parts)
    missing = [row for row, label in enumerate(labels) if label is None]
    if missing:
        raise CatalogError(
            f"Every picture must have a label. Received: {len(missing):,} without in {where}, the "
            f"first being {place(missing[0])}."
        )
    labels = name_labels(read_labels(map(str, labels)), names, place)
    check_spelling(labels, place)
    return {
        "label": tuple(labels),
        "split": tuple(splits),
        "group": tuple(groups),
        "classes": class_order(labels),
    }


def _placer(arrays: _Arrays, parts: Sequence[Part]) -> Callable[[int], str]:
    """Return a function that says where row i is: ``y_train[12]``."""

    def place(row: int) -> str:
        for part in parts:
            n = len(arrays[part.pictures])
            if row < n:
                break
            row -= n
        return f"{part.labels}[{row}]"

    return place


def _cells(arrays: _Arrays, name: str, n: int, part: Part, where: str) -> list[str | None]:
    """Return an array of labels or groups as texts; None for not-a-number and empty texts."""
    array = arrays[name]
    received = f"{array.dtype} of shape {array.shape} as {shown(name)} in {where}"
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2 and array.dtype.kind in "buif":
        array = _one_hot(array, received)
    if array.ndim != 1 or array.dtype.kind not in "buifUS":
        raise CatalogError(
            "Labels and groups are whole numbers or texts, one for each picture. Received: "
            f"{received}."
        )
    if len(array) != n:
        raise CatalogError(
            f"There must be one label for each picture. Received: {received}; there are "
            f"{pictures(n)} in {shown(part.pictures)}."
        )
    if array.dtype.kind == "f" and (array[np.isfinite(array)] % 1).any():
        raise CatalogError(f"Labels and groups are whole numbers or texts. Received: {received}.")
    return [_text(value) or None for value in array.tolist()]


def _one_hot(array: NDArray[Any], received: str) -> NDArray[np.int64]:
    """Return the number of the one column of each row that is 1."""
    if not (((array == 0) | (array == 1)).all() and (array.sum(axis=1) == 1).all()):
        raise CatalogError(
            f"Rows of labels must have a single 1 and otherwise 0. Received: {received}, which "
            "have not: a picture has one class here."
        )
    columns: NDArray[np.int64] = array.argmax(axis=1)
    return columns


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape").strip()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else ""
    return str(value).strip()
