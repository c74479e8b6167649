"""Tables: a row an image, given by its path or by its pixels."""

from __future__ import annotations

import difflib
import itertools
import os
import re
from collections.abc import Mapping, Sequence

from kindsight.dataset.loaders.csv_table import PARQUET_ENDINGS, CsvTable
from kindsight.dataset.loaders.file_names import with_names
from kindsight.dataset.loaders.parquet_table import ParquetTable
from kindsight.dataset.loaders.pixels import shape_of_row
from kindsight.dataset.loaders.table_reader import TableReader
from kindsight.dataset.names import shown, shown_list
from kindsight.dataset.options import DataOptions
from kindsight.dataset.table import ImageDataset
from kindsight.errors import DatasetError

__all__ = [
    "find_columns",
    "from_table",
    "pixel_columns",
]

# SECTION: Which column of a table is what: by the usual spellings, or as it is said.

_USUAL = {
    "path": (
        *("path", "paths", "filepath", "filepaths", "file", "files", "filename", "filenames"),
        *("imagepath", "imagefile", "imagefilename", "imagename", "imgpath", "imgfile", "imgname"),
        *("image", "images", "img", "imagepath", "image", "images", "photopath", "photo"),
        *("relativepath", "relpath", "fullpath", "imageid", "imgid", "id"),
    ),
    "label": (
        *("label", "labels", "class", "classes", "category", "target", "labelname", "classname"),
        *("categoryname", "classlabel", "labelid", "classid", "categoryid", "y"),
        *("species", "breed", "diagnosis", "dx", "emotion"),
    ),
    "split": ("split", "subset", "set", "part", "partition", "usage"),
    "group": (
        *("group", "groups", "groupid", "patient", "patientid", "person", "personid", "subject"),
        *("subjectid", "individual", "individualid", "scene", "sceneid", "lesionid"),
    ),
}
"""Names of columns, without case, blanks and marks, what is preferred coming first."""

_PIXEL = re.compile(r"(pixels?|pix|px|p|x|v|f)?[ _.-]?(\d{1,9})", re.I)
_PIXEL_PLACE = re.compile(r"(\d{1,5})x(\d{1,5})", re.I)
_FEWEST_PIXELS = 4


def find_columns(header: Sequence[str], given: Mapping[str, str], where: str) -> dict[str, int]:
    """Find the columns of paths, labels, splits and groups.

    Parameters
    ----------
    header : sequence of str
        The columns' names.
    given : mapping of str to str
        What a kind of column is called; it need not be among the usual names.
    where : str
        The table, for messages.

    Returns
    -------
    dict of str to int
        Kind -> place in the header, of those that are there.

    Raises
    ------
    DatasetError
        If a column that is given is not there, or two columns have its name.
    """
    found: dict[str, int] = {}
    for kind, name in given.items():
        found[kind] = _place(header, name, where)
    plain = [re.sub(r"[\W_]+", "", name).casefold() for name in header]
    for kind, names in _USUAL.items():
        if kind in given:
            continue
        free = {plain[i]: i for i in reversed(range(len(plain))) if i not in found.values()}
        usual = next((name for name in names if name in free), None)
        if usual is not None:
            found[kind] = _place(header, header[free[usual]], where)
    return found


def _place(header: Sequence[str], name: str, where: str) -> int:
    exact = [i for i, column in enumerate(header) if column == name]
    if len(exact) == 1:
        return exact[0]
    if exact:
        raise DatasetError(
            f"The columns of a table must have different names. Received: {len(exact)} columns "
            f"called {shown(name)} in {where}."
        )
    near = difflib.get_close_matches(name, header, 1)
    hint = f"Is {shown(near[0])} meant?" if near else f"There are: {shown_list(tuple(header))}."
    raise DatasetError(f"{where} must have the column {shown(name)}. Received: none. {hint}")


def pixel_columns(header: Sequence[str], taken: Sequence[int], where: str) -> list[int] | None:
    """Find the columns of pixels, in the order of the numbers in their names.

    Parameters
    ----------
    header : sequence of str
        The columns' names: ``pixel1``, ``pixel2``, ...; ``0``, ``1``, ...; ``1x1``, ``1x2``, ...
    taken : sequence of int
        Places of columns that are something else.
    where : str
        The table, for messages.

    Returns
    -------
    list of int or None
        Places in the header; None where there are no such columns.

    Raises
    ------
    DatasetError
        If one is missing, or there twice.
    """
    found: dict[str, list[tuple[tuple[int, ...], int]]] = {}
    for place, name in enumerate(header):
        if place in taken:
            continue
        text = name.strip()
        if match := _PIXEL_PLACE.fullmatch(text):
            found.setdefault("place", []).append(((int(match[1]), int(match[2])), place))
        elif match := _PIXEL.fullmatch(text):
            found.setdefault((match[1] or "").casefold(), []).append(((int(match[2]),), place))
    numbered = max(found.values(), key=len, default=[])
    if len(numbered) < _FEWEST_PIXELS:
        return None
    numbered.sort()
    first = numbered[0][0]
    for (one, _), (following, place) in itertools.pairwise(numbered):
        if following not in _next(one, first):
            raise DatasetError(
                "The columns of pixels must be numbered without gaps and repetitions. Received: "
                f"{shown(header[place])} as the one that follows number "
                f"{'x'.join(map(str, one))} in {where}."
            )
    return [place for _, place in numbered]


def _next(number: tuple[int, ...], first: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the numbers that may follow; of (row, column), that of the next row as well."""
    following = [(*number[:-1], number[-1] + 1)]
    return following if len(number) == 1 else [*following, (number[0] + 1, first[1])]


# A table of pixels may have a column of numbers that is called like one of paths.
_NUMBERS = ("id", "imageid", "imgid")


def from_table(
    path: str | os.PathLike[str],
    options: DataOptions | None = None,
    *,
    labelled: bool = True,
) -> ImageDataset:
    """Make a dataset of a table: CSV with commas, semicolons, tabs or bars; or Parquet.

    A row is an image. Either a column holds the images' paths, which start at the table's own
    folder, or there are columns of pixels, ``pixel1``, ``pixel2`` and so on: whole numbers 0-255,
    the rows of the image one after the other; or a column ``pixels`` that holds all of them with
    blanks between. Pixels may be in text tables alone; without a line of names, the label comes
    first.

    Columns of paths, labels, splits and groups are found by their usual names, such as
    ``filename``, ``class``, ``subset`` and ``patient``, or called as `options` say.

    Parameters
    ----------
    path : str or Path
        The table.
    options : DataOptions, optional
        What the table does not say itself.
    labelled : bool
        Whether there must be a column of labels. Without it neither labels nor splits are read.

    Returns
    -------
    ImageDataset
        Rows in the table's order. Images given as pixels are called after their lines,
        ``train.csv:17``.

    Raises
    ------
    DatasetError
        Naming the rows that have no place in a table, such as paths that occur twice with
        different labels.
    MissingExtraError
        For Parquet where PyArrow is not installed.
    """
    options = options or DataOptions()
    options.check()
    name = os.fspath(path)
    parquet = name.lower().endswith(PARQUET_ENDINGS)
    table: CsvTable | ParquetTable = ParquetTable(name) if parquet else CsvTable(name)
    if isinstance(table, CsvTable):
        table.unpack()
    found = find_columns(table.header, options.columns, table.where)
    pixels = None
    if isinstance(table, CsvTable) and "path" not in options.columns:
        pixels = _pixels(table, found, options)
    reader = TableReader(table, found, options, labelled)
    dataset = reader.of_pixels(*pixels) if pixels else reader.of_paths()
    return with_names(dataset, options, labelled=labelled)


def _pixels(
    table: CsvTable, found: dict[str, int], options: DataOptions
) -> tuple[list[int], bool] | None:
    """Find the pixels' columns, and whether the first line is one of names."""
    header = table.header
    numbers = [int(name) if name.isascii() and name.isdigit() else -1 for name in header]
    counted = numbers == list(range(len(header)))
    if len(header) > 1 and -1 not in numbers:
        # No names: the numbers of the first image, or those of the columns.
        first = _label_comes_first(len(header), options.shape)
        if first and "label" not in found:
            found["label"] = 0
        return [k for k in range(len(header)) if k not in found.values()], counted
    taken = {kind: place for kind, place in found.items() if kind != "path"}
    columns = pixel_columns(header, list(taken.values()), table.where)
    if columns is None:
        return None
    name = header[found["path"]] if "path" in found else _NUMBERS[0]
    if re.sub(r"[\W_]+", "", name).casefold() not in _NUMBERS:
        return None
    return columns, True


def _label_comes_first(width: int, shape: tuple[int, ...] | None) -> bool:
    """Say whether a line of so many numbers is a label and pixels, or pixels alone."""
    try:
        shape_of_row(width, shape, "")
    except DatasetError:
        return True
    return False
