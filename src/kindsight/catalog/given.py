"""From whatever Python code calls pictures to a catalog."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from kindsight.catalog.arrays import from_arrays
from kindsight.catalog.catalog import Catalog
from kindsight.catalog.labels import as_labels
from kindsight.catalog.opening import open_catalog
from kindsight.catalog.sources import from_files
from kindsight.errors import CatalogError

__all__ = ["as_catalog"]

_WHAT = (
    "Pictures are given as a folder, a table, a Catalog, a list of paths, or an array of pixels "
    "0-255."
)


def as_catalog(X: Any, y: Any = None, *, labelled: bool = True) -> Catalog:
    """Make a catalog of whatever pictures were given as `X`, with `y` as their labels.

    Parameters
    ----------
    X : Catalog, str, Path, or sequence or array of paths or pictures
        A single path is what :func:`kindsight.catalog.open_catalog` takes: a folder, a table,
        arrays in a file.
    y : sequence of str or int, optional
        Labels; they take the place of those that a catalog has. A folder or a file brings its own.
    labelled : bool
        Whether a folder or a file is read with its labels, or without.

    Returns
    -------
    Catalog

    Raises
    ------
    CatalogError
        If `X` is none of these, or `y` does not fit.
    """
    if isinstance(X, Catalog):
        return X if y is None else X.with_columns(label=as_labels(y, len(X)))
    if isinstance(X, (str, os.PathLike)):
        if y is not None:
            raise CatalogError(
                f"A folder or a table has its own labels. Received: {str(X)!r} with labels. "
                "Leave the labels away, or give a list of files."
            )
        return open_catalog(X, labelled=labelled)
    if not hasattr(X, "__len__") or isinstance(X, (bytes, dict)):
        raise CatalogError(f"{_WHAT} Received: {type(X).__name__}")
    items = X if isinstance(X, (list, tuple)) else np.atleast_1d(np.asarray(X))
    if len(items) == 0:
        raise CatalogError(f"{_WHAT} Received: an empty {type(X).__name__}")
    # By the first item; the functions below refuse a mixture.
    if isinstance(items[0], (str, os.PathLike)):
        return from_files(items, y)
    if hasattr(items[0], "__array__") or isinstance(items[0], (list, tuple)):
        return from_arrays(items, y)
    raise CatalogError(f"{_WHAT} Received: {type(X).__name__} of {type(items[0]).__name__}")
