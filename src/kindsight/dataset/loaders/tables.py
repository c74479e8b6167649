"""Datasets of tables, one row per image: a table, or the tables and arrays in a folder."""

from __future__ import annotations

import difflib
import itertools
import os
import re
from collections.abc import Mapping, Sequence

from kindsight.dataset.loaders.arrays import shape_of_row
from kindsight.dataset.loaders.folders import Tree
from kindsight.dataset.loaders.from_names import loose_role, role_of, split_roles, with_names
from kindsight.dataset.loaders.table_files import (
    ARRAY_ENDINGS,
    PARQUET_ENDINGS,
    CsvTable,
    ParquetTable,
    is_file_of_images,
    parquet_parts,
)
from kindsight.dataset.loaders.table_reader import TableReader
from kindsight.dataset.loaders.values import NoLabelsError
from kindsight.dataset.names import (
    IMAGE_EXTENSIONS,
    extension_of,
    n_images,
    quoted,
    quoted_list,
    why_folder_is_ignored,
    why_name_is_ignored,
)
from kindsight.dataset.options import DataOptions
from kindsight.dataset.table import SPLITS, ImageDataset
from kindsight.errors import DatasetError, KindsightError
from kindsight.storage.address import join, undirected
from kindsight.storage.files import names_in

__all__ = [
    "data_files", "find_columns", "find_split_files", "folder_of_tables", "from_table",
    "open_table_of_labels",
]  # fmt: skip

_USUAL = {
    "path": (
        *("path", "paths", "filepath", "filepaths", "file", "files", "filename", "filenames"),
        *("imagepath", "imagefile", "imagefilename", "imagename", "imgpath", "imgfile", "imgname"),
        *("image", "images", "img", "photopath", "photo", "relativepath", "relpath", "fullpath"),
        *("imageindex", "isicid", "idcode", "imageid", "imgid", "id"),
    ),
    "label": (
        *("label", "labels", "class", "classes", "category", "target", "labelname", "classname"),
        *("categoryname", "classlabel", "labelid", "classid", "categoryid", "y"),
        *("species", "breed", "diagnosis", "dx", "emotion", "level", "grade", "findinglabels"),
    ),
    "split": ("split", "subset", "set", "part", "partition", "usage"),
    "group": (
        *("group", "groups", "groupid", "patient", "patientid", "person", "personid", "subject"),
        *("subjectid", "individual", "individualid", "scene", "sceneid", "lesionid"),
    ),
}
"""Usual names of columns, in lower case without blanks and punctuation, preferred ones first."""

_PIXEL = re.compile(r"(pixels?|pix|px|p|x|v|f)?[ _.-]?(\d{1,9})", re.I)
_PIXEL_POSITION = re.compile(r"(\d{1,5})x(\d{1,5})", re.I)
_FEWEST_PIXELS = 4


def find_columns(
    header: Sequence[str],
    given: Mapping[str, str],
    where: str,
    taken: Sequence[int] = (),
) -> dict[str, int]:
    """Return the columns of paths, labels, splits and groups.

    - `header`: column names.
    - `given`: kind -> column name; it need not be a usual one.
    - `where`: name of the table, for messages.
    - `taken`: columns that are used for something else.

    Returns
    -------
    dict of str to int
        Kind -> index in the header, of those that exist.

    Raises
    ------
    DatasetError
        If a given column does not exist, or two columns have its name.
    """
    found: dict[str, int] = {}
    for kind, name in given.items():
        found[kind] = _index(header, name, where)
    plain = [re.sub(r"[\W_]+", "", name).casefold() for name in header]
    for kind, names in _USUAL.items():
        if kind in given:
            continue
        used = {*found.values(), *taken}
        free = {plain[i]: i for i in reversed(range(len(plain))) if i not in used}
        usual = next((name for name in names if name in free), None)
        if usual is not None:
            found[kind] = _index(header, header[free[usual]], where)
    return found


def _one_hot_columns(header: Sequence[str], given: Mapping[str, str], where: str) -> list[int]:
    """Return the columns of ``label=A,B,C``; none for a single column of labels."""
    text = given.get("label", "")
    names = [name.strip() for name in text.split(",") if name.strip()]
    if text in header or len(names) < 2:
        return []
    return list(dict.fromkeys(_index(header, name, where) for name in names))


def _index(header: Sequence[str], name: str, where: str) -> int:
    exact = [i for i, column in enumerate(header) if column == name]
    if len(exact) == 1:
        return exact[0]
    if exact:
        raise DatasetError(
            f"{where} has {len(exact)} columns named {quoted(name)}. Rename all but one."
        )
    near = difflib.get_close_matches(name, header, 1)
    hint = f"Did you mean {quoted(near[0])}?" if near else f"It has: {quoted_list(header)}."
    raise NoLabelsError(f"{where} has no column {quoted(name)}. {hint}")


def pixel_columns(header: Sequence[str], taken: Sequence[int], where: str) -> list[int] | None:
    """Return the columns of pixels, in the order of the numbers in their names.

    - `header`: column names: ``pixel1``, ``pixel2``, ...; ``0``, ``1``, ...; ``1x1``, ``1x2``, ...
    - `taken`: indices of other columns.
    - `where`: name of the table, for messages.

    Returns
    -------
    list of int or None
        Indices in the header; None if there are no such columns.

    Raises
    ------
    DatasetError
        If one is missing or repeated.
    """
    found: dict[str, list[tuple[tuple[int, ...], int]]] = {}
    for index, name in enumerate(header):
        if index in taken:
            continue
        text = name.strip()
        if match := _PIXEL_POSITION.fullmatch(text):
            found.setdefault("row x column", []).append(((int(match[1]), int(match[2])), index))
        elif match := _PIXEL.fullmatch(text):
            found.setdefault((match[1] or "").casefold(), []).append(((int(match[2]),), index))
    numbered = max(found.values(), key=len, default=[])
    if len(numbered) < _FEWEST_PIXELS:
        return None
    numbered.sort()
    first = numbered[0][0]
    for (one, _), (following, index) in itertools.pairwise(numbered):
        if following not in _next(one, first):
            raise DatasetError(
                f"The columns of pixels in {where} have a gap or repetition: "
                f"{quoted(header[index])} follows number {'x'.join(map(str, one))}."
            )
    return [index for _, index in numbered]


def _next(number: tuple[int, ...], first: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the numbers that may follow; for (row, column), also the start of the next row."""
    following = [(*number[:-1], number[-1] + 1)]
    return following if len(number) == 1 else [*following, (number[0] + 1, first[1])]


# In a table of pixels, these columns contain numbers rather than paths.
_ID_NAMES = ("id", "imageid", "imgid")


def from_table(
    path: str | os.PathLike[str], options: DataOptions | None = None, *, labelled: bool = True
) -> ImageDataset:
    """Return the dataset of a table: CSV with commas, semicolons, tabs or bars; or Parquet.

    Each row is an image. A column contains paths, relative to the table's folder; or columns
    ``pixel1``, ``pixel2``, ... contain whole numbers 0-255, row by row; or one column ``pixels``
    contains all of them, separated by blanks. Only text tables can contain pixels; without a
    header, the label comes first.

    Columns of paths, labels, splits and groups are found by usual names, such as ``filename``,
    ``class``, ``subset`` and ``patient``, or named in `options`. If no column of labels is found
    and all other columns contain 0 and 1 only, these are one-hot labels, and their names the
    classes. A path without an extension, as in the tables of competitions, stands for the image of
    this name in the table's folder or below it.

    Parameters
    ----------
    path : str or Path
        The table; Parquet may also be a folder of part files.
    options : DataOptions, optional
        Options for what the table does not state.
    labelled : bool
        False: read neither labels nor splits.

    Returns
    -------
    ImageDataset
        Rows in the table's order. The path of an image given as pixels is its line,
        ``train.csv:17``.

    Raises
    ------
    DatasetError
        For invalid rows, such as one path with two labels; the message names them.
    MissingExtraError
        For Parquet if PyArrow is not installed.
    """
    options = options or DataOptions()
    options.check()
    name = os.fspath(path)
    parquet = undirected(name).lower().endswith(PARQUET_ENDINGS) or bool(parquet_parts(name))
    table: CsvTable | ParquetTable
    table = ParquetTable(name) if parquet else CsvTable(name, options.encoding)
    if isinstance(table, CsvTable):
        table.unpack()
        _check_header(table)
    one_hot = _one_hot_columns(table.header, options.columns, table.where)
    given = {kind: name for kind, name in options.columns.items() if kind != "label" or not one_hot}
    found = find_columns(table.header, given, table.where, one_hot)
    if one_hot:
        found.pop("label", None)
    pixels = None
    if isinstance(table, CsvTable) and "path" not in options.columns:
        pixels = _pixels(table, found, options)
    reader = TableReader(table, found, options, labelled, one_hot)
    dataset = reader.of_pixels(*pixels) if pixels else reader.of_paths()
    return with_names(dataset, options, labelled=labelled)


def _check_header(table: CsvTable) -> None:
    """Raise NoLabelsError if the first line has the name of an image: it would be lost."""
    for index, name in enumerate(table.header):
        if extension_of(name) in IMAGE_EXTENSIONS:
            names = ["path" if k == index else "label" for k in range(len(table.header))]
            line = table.separator.join(names if len(names) == 2 else ("path", "label", "..."))
            raise NoLabelsError(
                f"The first line of {table.where} must contain the names of the columns; got "
                f"{quoted(name)}. Insert a line such as {quoted(line)} before it."
            )


def _pixels(
    table: CsvTable, found: dict[str, int], options: DataOptions
) -> tuple[list[int], bool] | None:
    """Return the pixels' columns, and whether the first line is a header."""
    header = table.header
    numbers = [int(name) if name.isascii() and name.isdigit() else -1 for name in header]
    counted = numbers == list(range(len(header)))
    if len(header) > 1 and -1 not in numbers:
        # Without names: the first image, or column numbers.
        first = _label_comes_first(len(header), options.shape)
        if first and "label" not in found:
            found["label"] = 0
        return [k for k in range(len(header)) if k not in found.values()], counted
    taken = [index for kind, index in found.items() if kind != "path"]
    columns = pixel_columns(header, taken, table.where)
    if columns is None:
        return None
    name = header[found["path"]] if "path" in found else _ID_NAMES[0]
    if re.sub(r"[\W_]+", "", name).casefold() not in _ID_NAMES:
        return None
    return columns, True


def _label_comes_first(width: int, shape: tuple[int, ...] | None) -> bool:
    """Return whether a line of `width` numbers is a label and pixels, rather than pixels alone."""
    try:
        shape_of_row(width, shape, "")
    except DatasetError:
        return True
    return False


def data_files(folder: str) -> list[str]:
    """Return the names of the tables and arrays in a folder."""
    try:
        names = names_in(folder)
    except KindsightError:  # some are ValueErrors
        raise
    except (OSError, ValueError):
        return []
    return [
        name
        for name in names
        if is_file_of_images(name) and why_name_is_ignored(name) != "hidden file"
    ]


_MOST_WRAPPERS = 8


def folder_of_tables(folder: str) -> str:
    """Return the folder with tables: `folder`, or its only subfolder, as in unpacked archives."""
    inner = folder
    for _ in range(_MOST_WRAPPERS):
        if data_files(inner):
            return inner
        try:
            names = [name for name in names_in(inner) if why_folder_is_ignored(name) is None]
        except KindsightError:
            raise
        except (OSError, ValueError):
            break
        if len(names) != 1:
            break
        inner = join(inner, names[0])
    return folder


def find_split_files(folder: str) -> dict[str | None, str]:
    """Return the tables or arrays in a folder that are its splits: split -> path."""
    stems = {name: name.rpartition(".")[0] for name in data_files(folder)}
    every = set(stems.values())
    roles = split_roles(every) or split_roles(stem for stem in every if role_of(stem))
    if roles is None:
        return {}
    found: dict[str | None, str] = {}
    for split in SPLITS:
        names = [name for name, stem in stems.items() if roles.get(stem) == split]
        if len(names) > 1:
            raise DatasetError(
                f"{quoted(folder)} has several tables for the {split} split: {quoted_list(names)}. "
                "Give the path of one table."
            )
        found.update((split, join(folder, name)) for name in names)
    return found


def open_table_of_labels(folder: str, options: DataOptions, tree: Tree) -> ImageDataset | None:
    """Open the only table in a folder that gives labels to images; None if there is none.

    A competition's folder has such a table beside the folders of images.
    """
    found: dict[str, ImageDataset] = {}
    for name in data_files(folder):
        if name.lower().endswith(ARRAY_ENDINGS) or "submission" in name.lower():
            continue
        try:
            found[name] = from_table(join(folder, name), options)
        except NoLabelsError:
            continue
    roles = {name: loose_role(name.rpartition(".")[0]) for name in found}
    if len(found) > 1 and list(roles.values()).count("train") == 1:
        found = {name: dataset for name, dataset in found.items() if roles[name] == "train"}
    if len(found) > 1:
        raise DatasetError(
            f"{quoted(folder)} has several tables with labels of images: "
            f"{quoted_list(tuple(found))}. Give the path of one table."
        )
    if not found:
        return None
    ((name, dataset),) = found.items()
    every = {
        f"{parent}/{file}".lstrip("/") for parent, files, _ in tree.listings for file, _ in files
    }
    rest = sorted(every.difference(dataset.path))
    notes = [f"The labels are those of the table {quoted(name)}."]
    if rest:
        notes.append(
            f"Not in {quoted(name)}: {n_images(len(rest))}, such as {quoted(rest[0])}. Images "
            "without labels are for 'kindsight predict'."
        )
    return dataset.with_notes(*notes)
