"""Write datasets as tables of paths: CSV, or Parquet in one file or in parts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from kindsight.dataset.columns.base import BLOCK
from kindsight.dataset.names import quoted
from kindsight.dataset.table import ImageDataset, relative_paths
from kindsight.encoding import escape_name, valid_text
from kindsight.errors import DatasetError, MissingExtraError
from kindsight.files import replacing, write_csv

__all__ = ["PART_ROWS", "is_parquet", "write_dataset", "write_parquet", "write_table"]

PARQUET_ENDINGS = (".parquet", ".pq")

PART_ROWS = 1_000_000
"""Rows per part file of a folder, about 20 MB."""


def is_parquet(path: str | os.PathLike[str]) -> bool:
    """Return whether a name ends like that of a Parquet file."""
    return os.fspath(path).lower().endswith(PARQUET_ENDINGS)


def write_dataset(dataset: ImageDataset, path: str | os.PathLike[str]) -> None:
    """Write a table with the columns path, and label, split and group where there are any.

    :func:`kindsight.dataset.from_table` reads it back. Paths are relative to the table's folder, so
    both can be moved together; files on another drive have absolute paths. An existing file is
    replaced.

    Parameters
    ----------
    dataset : ImageDataset
        Of files.
    path : str or Path
        The table, a CSV; Parquet if the name ends in ``.parquet`` or ``.pq``.

    Raises
    ------
    DatasetError
        For images in memory, which have no paths.
    MissingExtraError
        For Parquet if PyArrow is not installed.
    """
    header, rows = _table(dataset, Path(path).absolute().parent)
    write_table(path, header, rows)


def write_parquet(dataset: ImageDataset, path: str | os.PathLike[str]) -> None:
    """Write a dataset as Parquet: one file, or a folder of part files.

    The columns are those of :func:`write_dataset`; paths are relative to the folder of the file or
    files.

    Parameters
    ----------
    dataset : ImageDataset
        Of files.
    path : str or Path
        A file if the name ends in ``.parquet`` or ``.pq``, which is replaced if it exists;
        otherwise a new or empty folder, for ``part-00000.parquet`` and so on of a million rows
        each.

    Raises
    ------
    DatasetError
        For images in memory, or if the folder contains anything.
    MissingExtraError
        If PyArrow is not installed.
    """
    if is_parquet(path):
        write_dataset(dataset, path)
        return
    folder = Path(path)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DatasetError(
            f"The parts of a dataset need a new or empty folder; {quoted(str(folder))} is "
            f"{'not empty' if folder.is_dir() else 'a file'}. Give another folder."
        )
    header, rows = _table(dataset, folder.absolute())
    for number in range(max(1, -(-len(dataset) // PART_ROWS))):
        write_table(folder / f"part-{number:05d}.parquet", header, islice(rows, PART_ROWS))


def write_table(
    path: str | os.PathLike[str], header: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """Write a table of texts as CSV, or as Parquet if its name ends like that.

    Parameters
    ----------
    path : str or Path
        The file; an existing one is replaced.
    header : sequence of str
        Names of the columns; one named ``path`` contains paths.
    rows : iterable of sequence of str
        The cells; an empty text is null in Parquet.
    """
    if not is_parquet(path):
        write_csv(path, header, rows)
        return
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError("Writing Parquet", "parquet") from None
    schema = pyarrow.schema([(name, pyarrow.string()) for name in header])
    texts = [escape_name if name == "path" else valid_text for name in header]
    iterator = iter(rows)
    with (
        replacing(path) as temporary,
        parquet.ParquetWriter(temporary, schema, compression="zstd") as file,
    ):
        while block := list(islice(iterator, BLOCK)):
            cells = [
                pyarrow.array([text(cell) if cell else None for cell in column], pyarrow.string())
                for text, column in zip(texts, zip(*block, strict=True), strict=True)
            ]
            file.write_batch(pyarrow.record_batch(cells, schema=schema), len(block))


def _table(dataset: ImageDataset, folder: Path) -> tuple[list[str], Iterator[tuple[str, ...]]]:
    """Return the header of a dataset's table in a folder, and its rows."""
    if dataset.arrays is not None:
        raise DatasetError(
            "Images in memory cannot be written as a table of paths. Write them as files first."
        )
    columns = {"label": dataset.label, "split": dataset.split, "group": dataset.group}
    used = {name: cells for name, cells in columns.items() if any(cells)}
    texts = ((cell or "" for cell in cells) for cells in used.values())
    rows = zip(relative_paths(dataset, folder), *texts, strict=True)
    return ["path", *used], rows
