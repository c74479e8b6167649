"""Writing a dataset as a table that is read back as the same."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from kindsight.dataset.table import ImageDataset
from kindsight.errors import DatasetError
from kindsight.files import write_csv

__all__ = ["relative_paths", "write_dataset"]


def write_dataset(dataset: ImageDataset, path: str | os.PathLike[str]) -> None:
    """Write a CSV of a dataset: path, and label, split and group where there are any.

    :func:`kindsight.dataset.from_table` reads it back. Paths are written from the folder of the
    CSV on, so that the two can be moved together; on another drive they are absolute.

    Parameters
    ----------
    dataset : ImageDataset
        Of files.
    path : str or Path
        The CSV; its ending must be ``.csv`` for it to be taken for a table.

    Raises
    ------
    DatasetError
        For images in memory, which have no paths.
    """
    if dataset.arrays is not None:
        raise DatasetError(
            "Only files can be written as a table of paths. Received: images in memory. Write "
            "them as files first."
        )
    columns = {"label": dataset.label, "split": dataset.split, "group": dataset.group}
    kept = {name: cells for name, cells in columns.items() if any(cells)}
    names = relative_paths(dataset, Path(path).absolute().parent)
    write_csv(path, ("path", *kept), _rows(names, kept))


def _rows(names: Iterator[str], columns: dict[str, tuple[str | None, ...]]) -> Iterator[list[str]]:
    for row, name in enumerate(names):
        yield [name, *(cells[row] or "" for cells in columns.values())]


def relative_paths(dataset: ImageDataset, folder: Path) -> Iterator[str]:
    """Yield the paths as they are spelled from a folder on."""
    if dataset.root == folder:
        yield from dataset.path
        return
    for row in range(len(dataset)):
        file = str(dataset.file(row))
        try:
            yield os.path.relpath(file, folder).replace(os.sep, "/")
        except ValueError:  # another drive of Windows
            yield file.replace(os.sep, "/")
