"""The one way from what a user calls data to a dataset, for every command.

A folder, a table, arrays in a file: what is given decides. Further data can be given for the
validation and the test part.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from kindsight.dataset.labels import as_labels, class_order
from kindsight.dataset.loaders.arrays import from_arrays
from kindsight.dataset.loaders.csv_table import ARRAY_ENDINGS, is_file_of_images
from kindsight.dataset.loaders.file_names import with_names
from kindsight.dataset.loaders.folder_roles import UNLABELLED, role_of, split_roles
from kindsight.dataset.loaders.folders import Tree, arrange, nearly
from kindsight.dataset.loaders.npz import from_npz
from kindsight.dataset.loaders.sources import from_files, from_folder
from kindsight.dataset.loaders.tables import from_table
from kindsight.dataset.names import file_is_passed_over, images, shown, shown_list
from kindsight.dataset.options import DataOptions
from kindsight.dataset.table import SPLITS, ImageDataset, exclude_rows
from kindsight.dataset.walk import walk
from kindsight.errors import DatasetError

__all__ = [
    "as_dataset",
    "concatenate",
    "files_in",
    "folder_of_names",
    "open_dataset",
    "open_splits",
    "split_files",
]

# SECTION: Several datasets as one, such as a training part and a test part that lie in two places.


def concatenate(parts: Sequence[tuple[str | None, ImageDataset]]) -> ImageDataset:
    """Put datasets one after the other.

    Parameters
    ----------
    parts : sequence of (split, ImageDataset)
        The split that all rows of the dataset get; None leaves them what they have.

    Returns
    -------
    ImageDataset
        Its root is the nearest folder that all files lie in, and paths start there; if there is
        none (two drives of Windows) paths are absolute.

    Raises
    ------
    DatasetError
        If some are files and others are in memory.
    """
    datasets = [dataset for _, dataset in parts]
    in_memory = [dataset.arrays is not None for dataset in datasets]
    if any(in_memory) != all(in_memory):
        raise DatasetError(
            "All parts of the data must be files, or all of them arrays or pixels. Received: both. "
            "Bring them into one form."
        )
    root, paths = None, [path for dataset in datasets for path in dataset.path]
    if not any(in_memory):
        root, paths = _common(datasets)
    ignored: Counter[str] = Counter()
    for dataset in datasets:
        ignored.update(dataset.ignored)
    labels = [label for dataset in datasets for label in dataset.label]
    known = datasets[0].classes
    return ImageDataset(
        path=tuple(paths),
        label=tuple(labels),
        split=tuple(split or given for split, dataset in parts for given in dataset.split),
        group=tuple(group for dataset in datasets for group in dataset.group),
        digest=tuple(digest for dataset in datasets for digest in dataset.digest),
        size=tuple(size for dataset in datasets for size in dataset.size),
        root=root,
        arrays=tuple(array for dataset in datasets for array in dataset.arrays or ())
        if any(in_memory)
        else None,
        classes=known if {*labels} <= {*known, None} else class_order(labels),
        ignored=dict(sorted(ignored.items())),
        notes=tuple(dict.fromkeys(note for dataset in datasets for note in dataset.notes)),
    )


def _common(datasets: Sequence[ImageDataset]) -> tuple[Path | None, list[str]]:
    """Return the nearest common folder, and all paths as they are spelled from there."""
    roots = [dataset.root for dataset in datasets]
    if roots[0] is not None and all(root == roots[0] for root in roots):
        return roots[0], [path for dataset in datasets for path in dataset.path]
    folders = [str(root or Path().absolute()) for root in roots]
    try:
        common = os.path.commonpath(folders)
    except ValueError:  # on different drives
        files = [str(dataset.file(row)) for dataset in datasets for row in range(len(dataset))]
        return None, [file.replace(os.sep, "/") for file in files]
    paths: list[str] = []
    for dataset, folder in zip(datasets, folders, strict=True):
        start = os.path.relpath(folder, common).replace(os.sep, "/")
        prefix = "" if start == "." else start + "/"
        paths.extend(
            path if os.path.isabs(path) else prefix + path  # noqa: PTH117
            for path in dataset.path
        )
    return Path(common), paths


# SECTION: Folders without class folders: of tables called after splits, of images with telling
# names.


def folder_of_names(name: str) -> ImageDataset:
    """Open a folder of images whose names hold their labels; its folders may be splits."""
    dataset = from_folder(name, labelled=False)
    folders = [path.split("/")[:-1] for path in dataset.path]
    pairs = zip(min(folders), max(folders), strict=False)
    depth = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    beyond = [parts[depth] if len(parts) > depth else "" for parts in folders]
    roles = split_roles(set(beyond))
    if roles is None:
        return dataset
    split = [roles[part] if roles[part] != UNLABELLED else None for part in beyond]
    dataset = dataset.with_columns(split=split)
    out = [row for row, part in enumerate(beyond) if roles[part] == UNLABELLED]
    if not out:
        return dataset
    note = f"Taken to be without labels, and so left out: {images(len(out))}."
    return exclude_rows(dataset, out, "image to be predicted", note)


def files_in(folder: str) -> list[str]:
    """Return the names of tables and arrays that lie in a folder."""
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208
    except (OSError, ValueError):
        return []
    return [
        name
        for name in names
        if is_file_of_images(name) and file_is_passed_over(name) != "hidden file"
    ]


def split_files(folder: str) -> dict[str | None, str]:
    """Return the tables or arrays of a folder that are its splits: split -> path.

    Empty where there are none, or where the folder has class folders all the same.
    """
    stems = {name: name.rpartition(".")[0] for name in files_in(folder)}
    every = set(stems.values())
    roles = split_roles(every) or split_roles(stem for stem in every if role_of(stem))
    if roles is None:
        return {}
    arrangement = arrange(Tree.of(walk(folder, Counter())))
    if len({place.label for place in arrangement.places.values()}) > 1:
        return {}
    found: dict[str | None, str] = {}
    for part in SPLITS:
        names = [name for name, stem in stems.items() if roles.get(stem) == part]
        if len(names) > 1:
            raise DatasetError(
                f"A folder of tables must have one for each part. Received: {shown_list(names)} in "
                f"{shown(folder)}. Give the one that is meant."
            )
        found.update((part, os.path.join(folder, name)) for name in names)  # noqa: PTH118
    return found


def open_dataset(
    data: str | os.PathLike[str],
    options: DataOptions | None = None,
    *,
    labelled: bool = True,
    min_classes: int = 2,
    classes: Sequence[str] = (),
) -> ImageDataset:
    """Make a dataset of whatever the data are.

    Parameters
    ----------
    data : str or Path
        A folder of class folders or split folders; a folder of images, where
        ``options.label_from`` says how their names tell their labels; a folder that holds tables
        or arrays called after splits (``train.csv`` and ``test.csv``); a table, CSV or Parquet, of
        paths or pixels; or arrays, ``.npz`` or ``.npy``.
    options : DataOptions, optional
        What the data do not say themselves.
    labelled : bool
        False: take all images, without labels and splits.
    min_classes : int
        How many classes there must be; 1 where data are only evaluated.
    classes : sequence of str
        Names known to be classes: folders so named are never taken for a wrapper or a split.

    Returns
    -------
    ImageDataset

    Raises
    ------
    DatasetError
        If no dataset can be made of the data; the message names what is in the way.
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
    if os.path.isfile(name) and is_file_of_images(name):  # noqa: PTH113
        return {None: name}
    return split_files(name)


def _open(
    name: str,
    files: dict[str | None, str],
    options: DataOptions,
    labelled: bool,
    min_classes: int,
    classes: Sequence[str],
) -> ImageDataset:
    if len(files) > 1:
        dataset = _joined(files, options, labelled)
    elif files:
        dataset = _file(next(iter(files.values())), options, labelled)
    elif labelled and options.label_from is not None:
        dataset = with_names(folder_of_names(name), options)
    else:
        dataset = _folder(name, labelled, min_classes, classes)
        return with_names(dataset, options, labelled=labelled)
    return check_parts(dataset, shown(name), min_classes) if labelled else dataset


def _file(name: str, options: DataOptions, labelled: bool) -> ImageDataset:
    if name.lower().endswith(ARRAY_ENDINGS):
        return from_npz(name, options, labelled=labelled)
    return from_table(name, options, labelled=labelled)


def _folder(name: str, labelled: bool, min_classes: int, classes: Sequence[str]) -> ImageDataset:
    try:
        return from_folder(name, labelled=labelled, min_classes=min_classes, classes=classes)
    except DatasetError as error:
        if files := files_in(name):
            raise DatasetError(
                f"{error} If what the images are stands in {shown_list(files)}, give that file "
                "in place of the folder."
            ) from None
        raise


def _joined(tables: dict[str | None, str], options: DataOptions, labelled: bool) -> ImageDataset:
    parts = [
        (split if labelled else None, _file(path, options, labelled))
        for split, path in tables.items()
    ]
    return concatenate(parts)


def open_splits(
    data: str | os.PathLike[str],
    options: DataOptions | None = None,
    *,
    validation: str | os.PathLike[str] | None = None,
    test: str | os.PathLike[str] | None = None,
) -> ImageDataset:
    """Make a dataset to train on, with other data as its validation or test part.

    Parameters
    ----------
    data : str or Path
        As in :func:`open_dataset`.
    options : DataOptions, optional
        What the data do not say themselves; for all of them.
    validation, test : str or Path, optional
        Data all of whose images are the validation or the test part.

    Returns
    -------
    ImageDataset
        Paths start at the nearest folder that all data lie in.

    Raises
    ------
    DatasetError
        As in :func:`open_dataset`; also if a part is given twice, if files and arrays are mixed,
        or if there are classes of which the training part has no image.
    """
    options = options or DataOptions()
    options.check()
    name = os.fspath(data)
    others = {"validation": validation, "test": test}
    parts = {split: os.fspath(part) for split, part in others.items() if part}
    files = {each: _files_of(each) for each in (name, *parts.values())}
    if not any(files.values()):
        options.refuse_for_files(list(files))
    dataset = _open(name, files[name], options, True, 2, ())
    opened: list[tuple[str | None, ImageDataset]] = [(None, dataset)]
    for split, part in parts.items():
        if split in dataset.split:
            raise DatasetError(
                f"A {split} part must be given once. Received: {shown(part)}, and {shown(name)} "
                "has one of its own. Leave one of them out."
            )
        opened.append((split, _open(part, files[part], options, True, 1, dataset.classes)))
    return check_parts(concatenate(opened), shown(name), 2) if parts else dataset


def check_parts(dataset: ImageDataset, where: str, min_classes: int) -> ImageDataset:
    """Refuse data that no classifier can be made of; note which parts lack classes.

    Raises
    ------
    DatasetError
        If there are fewer than `min_classes`, or one of them is absent from the training part.
    """
    names = dataset.present_classes()
    if len(names) < min_classes:
        word = "class" if len(names) == 1 else "classes"
        raise DatasetError(
            f"At least {min_classes} classes are needed. Received: {len(names)} {word}, "
            f"{shown_list(names) or 'none'}, with {images(len(dataset))}, in {where}."
        )
    in_part: dict[str | None, set[str | None]] = {}
    for split, label in zip(dataset.split, dataset.label, strict=True):
        in_part.setdefault(split, set()).add(label)
    learned = in_part.get("train", set()) | in_part.get(None, set())
    if min_classes > 1 and learned and (missing := [n for n in names if n not in learned]):
        present = [str(name) for name in learned]
        raise DatasetError(
            "Every class must have images in the training part. Received: none of "
            f"{shown_list(missing)}{nearly(missing, present)} in {where}. Add some, or leave "
            "these images out of the other parts."
        )
    notes = []
    for split in SPLITS[1:]:
        missing = [name for name in names if name not in in_part.get(split, set())]
        if split in in_part and missing:
            notes.append(f"The {split} part has no images of {shown_list(missing)}.")
    return dataset.with_notes(*notes)


# SECTION: From whatever Python code calls images to a dataset.

_WHAT = (
    "Images are given as a folder, a table, an ImageDataset, a list of paths, or an array of pixels "  # noqa: E501
    "0-255."
)


def as_dataset(X: Any, y: Any = None, *, labelled: bool = True) -> ImageDataset:
    """Make a dataset of whatever images were given as `X`, with `y` as their labels.

    Parameters
    ----------
    X : ImageDataset, str, Path, or sequence or array of paths or images
        A single path is what :func:`kindsight.dataset.open_dataset` takes: a folder, a table,
        arrays in a file.
    y : sequence of str or int, optional
        Labels; they take the place of those that a dataset has. A folder or a file brings its own.
    labelled : bool
        Whether a folder or a file is read with its labels, or without.

    Returns
    -------
    ImageDataset

    Raises
    ------
    DatasetError
        If `X` is none of these, or `y` does not fit.
    """
    if isinstance(X, ImageDataset):
        return X if y is None else X.with_columns(label=as_labels(y, len(X)))
    if isinstance(X, (str, os.PathLike)):
        if y is not None:
            raise DatasetError(
                f"A folder or a table has its own labels. Received: {str(X)!r} with labels. "
                "Leave the labels away, or give a list of files."
            )
        return open_dataset(X, labelled=labelled)
    if not hasattr(X, "__len__") or isinstance(X, (bytes, dict)):
        raise DatasetError(f"{_WHAT} Received: {type(X).__name__}")
    items = X if isinstance(X, (list, tuple)) else np.atleast_1d(np.asarray(X))
    if len(items) == 0:
        raise DatasetError(f"{_WHAT} Received: an empty {type(X).__name__}")
    # By the first item; the functions below refuse a mixture.
    if isinstance(items[0], (str, os.PathLike)):
        return from_files(items, y)
    if hasattr(items[0], "__array__") or isinstance(items[0], (list, tuple)):
        return from_arrays(items, y)
    raise DatasetError(f"{_WHAT} Received: {type(X).__name__} of {type(items[0]).__name__}")
