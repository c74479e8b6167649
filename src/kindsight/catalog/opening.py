"""The one way from what a user calls data to a catalog, for every command.

A folder, a table, arrays in a file: what is given decides. Further data can be given for the
validation and the test part.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from kindsight.catalog.catalog import SPLITS, Catalog
from kindsight.catalog.folders import nearly
from kindsight.catalog.from_names import with_names
from kindsight.catalog.joining import join_parts
from kindsight.catalog.names import pictures, shown, shown_list
from kindsight.catalog.options import DataOptions
from kindsight.catalog.other_folders import files_in, folder_of_names, split_files
from kindsight.catalog.readers.endings import ARRAY_ENDINGS, is_file_of_pictures
from kindsight.catalog.readers.npz import from_npz
from kindsight.catalog.readers.tables import from_table
from kindsight.catalog.sources import from_folder
from kindsight.errors import CatalogError

__all__ = ["open_catalog", "open_parts"]


def open_catalog(
    data: str | os.PathLike[str],
    options: DataOptions | None = None,
    *,
    labelled: bool = True,
    min_classes: int = 2,
    classes: Sequence[str] = (),
) -> Catalog:
    """Make a catalog of whatever the data are.

    Parameters
    ----------
    data : str or Path
        A folder of class folders or split folders; a folder of pictures, where
        ``options.label_from`` says how their names tell their labels; a folder that holds tables
        or arrays called after splits (``train.csv`` and ``test.csv``); a table, CSV or Parquet, of
        paths or pixels; or arrays, ``.npz`` or ``.npy``.
    options : DataOptions, optional
        What the data do not say themselves.
    labelled : bool
        False: take all pictures, without labels and splits.
    min_classes : int
        How many classes there must be; 1 where data are only evaluated.
    classes : sequence of str
        Names known to be classes: folders so named are never taken for a wrapper or a split.

    Returns
    -------
    Catalog

    Raises
    ------
    CatalogError
        If no catalog can be made of the data; the message names what is in the way.
    SettingsError
        If `options` cannot be.
    MissingExtraError
        For Parquet where PyArrow is not installed.
    """
    options = options or DataOptions()
    options.check()
    name = os.fspath(data)
    files = _files_of(name)
    if not files:
        options.refuse_for_files([name])
    return _open(name, files, options, labelled, min_classes, classes)


def _files_of(name: str) -> dict[str | None, str]:
    """Return the tables or arrays that the data are: split -> path; empty where they are none."""
    if os.path.isfile(name) and is_file_of_pictures(name):  # noqa: PTH113
        return {None: name}
    return split_files(name)


def _open(
    name: str,
    files: dict[str | None, str],
    options: DataOptions,
    labelled: bool,
    min_classes: int,
    classes: Sequence[str],
) -> Catalog:
    if len(files) > 1:
        catalog = _joined(files, options, labelled)
    elif files:
        catalog = _file(next(iter(files.values())), options, labelled)
    elif labelled and options.label_from is not None:
        catalog = with_names(folder_of_names(name), options)
    else:
        catalog = _folder(name, labelled, min_classes, classes)
        return with_names(catalog, options, labelled=labelled)
    return check_parts(catalog, shown(name), min_classes) if labelled else catalog


def _file(name: str, options: DataOptions, labelled: bool) -> Catalog:
    if name.lower().endswith(ARRAY_ENDINGS):
        return from_npz(name, options, labelled=labelled)
    return from_table(name, options, labelled=labelled)


def _folder(name: str, labelled: bool, min_classes: int, classes: Sequence[str]) -> Catalog:
    try:
        return from_folder(name, labelled=labelled, min_classes=min_classes, classes=classes)
    except CatalogError as error:
        if files := files_in(name):
            raise CatalogError(
                f"{error} If what the pictures are stands in {shown_list(files)}, give that file "
                "in place of the folder."
            ) from None
        raise


def _joined(tables: dict[str | None, str], options: DataOptions, labelled: bool) -> Catalog:
    parts = [
        (split if labelled else None, _file(path, options, labelled))
        for split, path in tables.items()
    ]
    return join_parts(parts)


def open_parts(
    data: str | os.PathLike[str],
    options: DataOptions | None = None,
    *,
    validation: str | os.PathLike[str] | None = None,
    test: str | os.PathLike[str] | None = None,
) -> Catalog:
    """Make a catalog to train on, with other data as its validation or test part.

    Parameters
    ----------
    data : str or Path
        As in :func:`open_catalog`.
    options : DataOptions, optional
        What the data do not say themselves; for all of them.
    validation, test : str or Path, optional
        Data all of whose pictures are the validation or the test part.

    Returns
    -------
    Catalog
        Paths start at the nearest folder that all data lie in.

    Raises
    ------
    CatalogError
        As in :func:`open_catalog`; also if a part is given twice, if files and arrays are mixed,
        or if there are classes of which the training part has no picture.
    """
    options = options or DataOptions()
    options.check()
    name = os.fspath(data)
    others = {"validation": validation, "test": test}
    parts = {split: os.fspath(part) for split, part in others.items() if part}
    files = {each: _files_of(each) for each in (name, *parts.values())}
    if not any(files.values()):
        options.refuse_for_files(list(files))
    catalog = _open(name, files[name], options, True, 2, ())
    opened: list[tuple[str | None, Catalog]] = [(None, catalog)]
    for split, part in parts.items():
        if split in catalog.split:
            raise CatalogError(
                f"A {split} part must be given once. Received: {shown(part)}, and {shown(name)} "
                "has one of its own. Leave one of them out."
            )
        opened.append((split, _open(part, files[part], options, True, 1, catalog.classes)))
    return check_parts(join_parts(opened), shown(name), 2) if parts else catalog


def check_parts(catalog: Catalog, where: str, min_classes: int) -> Catalog:
    """Refuse data that no classifier can be made of; note which parts lack classes.

    Raises
    ------
    CatalogError
        If there are fewer than `min_classes`, or one of them is absent from the training part.
    """
    names = catalog.present_classes()
    if len(names) < min_classes:
        word = "class" if len(names) == 1 else "classes"
        raise CatalogError(
            f"At least {min_classes} classes are needed. Received: {len(names)} {word}, "
            f"{shown_list(names) or 'none'}, with {pictures(len(catalog))}, in {where}."
        )
    in_part: dict[str | None, set[str | None]] = {}
    for split, label in zip(catalog.split, catalog.label, strict=True):
        in_part.setdefault(split, set()).add(label)
    learned = in_part.get("train", set()) | in_part.get(None, set())
    if min_classes > 1 and learned and (missing := [n for n in names if n not in learned]):
        present = [str(name) for name in learned]
        raise CatalogError(
            "Every class must have pictures in the training part. Received: none of "
            f"{shown_list(missing)}{nearly(missing, present)} in {where}. Add some, or leave "
            "these pictures out of the other parts."
        )
    notes = []
    for split in SPLITS[1:]:
        missing = [name for name in names if name not in in_part.get(split, set())]
        if split in in_part and missing:
            notes.append(f"The {split} part has no pictures of {shown_list(missing)}.")
    return catalog.with_notes(*notes)
