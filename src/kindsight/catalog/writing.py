"""Writing a catalog as a table that is read back as the same."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from kindsight.catalog.catalog import Catalog
from kindsight.errors import CatalogError
from kindsight.files import write_csv

__all__ = ["paths_from", "write_catalog"]


def write_catalog(catalog: Catalog, path: str | os.PathLike[str]) -> None:
    """Write a CSV of a catalog: path, and label, split and group where there are any.

    :func:`kindsight.catalog.from_table` reads it back. Paths are written from the folder of the
    CSV on, so that the two can be moved together; on another drive they are absolute.

    Parameters
    ----------
    catalog : Catalog
        Of files.
    path : str or Path
        The CSV; its ending must be ``.csv`` for it to be taken for a table.

    Raises
    ------
    CatalogError
        For pictures in memory, which have no paths.
    """
    if catalog.arrays is not None:
        raise CatalogError(
            "Only files can be written as a table of paths. Received: pictures in memory. Write "
            "them as files first."
        )
    columns = {"label": catalog.label, "split": catalog.split, "group": catalog.group}
    kept = {name: cells for name, cells in columns.items() if any(cells)}
    names = paths_from(catalog, Path(path).absolute().parent)
    write_csv(path, ("path", *kept), _rows(names, kept))


def _rows(names: Iterator[str], columns: dict[str, tuple[str | None, ...]]) -> Iterator[list[str]]:
    for row, name in enumerate(names):
        yield [name, *(cells[row] or "" for cells in columns.values())]


def paths_from(catalog: Catalog, folder: Path) -> Iterator[str]:
    """Yield the paths as they are spelled from a folder on."""
    if catalog.root == folder:
        yield from catalog.path
        return
    for row in range(len(catalog)):
        file = str(catalog.file(row))
        try:
            yield os.path.relpath(file, folder).replace(os.sep, "/")
        except ValueError:  # another drive of Windows
            yield file.replace(os.sep, "/")
