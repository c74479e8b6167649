"""Write a dataset as a table of paths."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from kindsight.dataset.table import ImageDataset
from kindsight.errors import DatasetError
from kindsight.files import write_csv

__all__ = ["relative_paths", "write_dataset"]


def write_dataset(dataset: ImageDataset, path: str | os.PathLike[str]) -> None:
    """Write a CSV with the columns path, and label, split and group where there are any.

    :func:`kindsight.dataset.from_table` reads it back. Paths are relative to the CSV's folder, so
    both can be moved together; files on another drive have absolute paths.

    Parameters
    ----------
    dataset : ImageDataset
        Of files.
    path : str or Path
        The CSV; it must end in ``.csv`` to be recognised as a table.

    Raises
    ------
    DatasetError
        For images in memory, which have no paths.
    """
    if dataset.arrays is not None:
        raise DatasetError(
            "Images in memory cannot be written as a table of paths. Write them as files first."
        )
    columns = {"label": dataset.label, "split": dataset.split, "group": dataset.group}
    used = {name: cells for name, cells in columns.items() if any(cells)}
    paths = relative_paths(dataset, Path(path).absolute().parent)
    rows = (
        [name, *(cells[row] or "" for cells in used.values())] for row, name in enumerate(paths)
    )
    write_csv(path, ("path", *used), rows)


def relative_paths(dataset: ImageDataset, folder: Path) -> Iterator[str]:
    """Yield the images' paths relative to a folder, with ``/``."""
    if dataset.root == folder:
        yield from dataset.path
        return
    for row in range(len(dataset)):
        file = str(dataset.file(row))
        try:
            yield os.path.relpath(file, folder).replace(os.sep, "/")
        except ValueError:  # another drive on Windows
            yield file.replace(os.sep, "/")
