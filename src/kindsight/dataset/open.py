"""Open folders, tables, files of arrays and Python objects as datasets."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.columns.codes import CodeColumn
from kindsight.dataset.columns.convert import concatenate, count_values
from kindsight.dataset.columns.texts import TextColumn
from kindsight.dataset.labels import as_labels, class_order
from kindsight.dataset.loaders.arrays import from_arrays
from kindsight.dataset.loaders.folders import Tree, arrange, similar_names
from kindsight.dataset.loaders.from_names import (
    UNLABELLED,
    are_containers,
    split_roles,
    with_names,
)
from kindsight.dataset.loaders.npz import from_npz
from kindsight.dataset.loaders.renames import check_label_map, read_label_map, rename_labels
from kindsight.dataset.loaders.shards import find_shards, from_shards
from kindsight.dataset.loaders.sources import from_files, from_folder
from kindsight.dataset.loaders.table_files import (
    ARRAY_ENDINGS,
    is_file_of_images,
    is_shards,
    parquet_parts,
)
from kindsight.dataset.loaders.tables import (
    data_files,
    find_split_files,
    folder_of_tables,
    from_table,
    open_table_of_labels,
)
from kindsight.dataset.loaders.values import NoLabelsError
from kindsight.dataset.names import (
    LINK_OUTSIDE,
    MAX_IGNORED_FILES,
    IgnoredFile,
    IgnoredFiles,
    n_images,
    quoted,
    quoted_list,
)
from kindsight.dataset.options import DataOptions
from kindsight.dataset.table import SPLITS, ImageDataset, exclude_rows
from kindsight.dataset.walk import is_inside, real_prefix, walk
from kindsight.errors import DatasetError, ImageError
from kindsight.storage.address import base_name, common_folder, is_address, undirected
from kindsight.storage.files import cached_listings, is_file

__all__ = ["as_dataset", "open_dataset", "open_splits"]

_UNIT = (0.0, 1.0)

_IMAGES_RULE = (
    "Images must be a folder, a table, an ImageDataset, an array of pixels 0-255, or a list of "
    "paths, of files in bytes, of file objects, of PIL images or of arrays"
)


def open_dataset(
    data: str | os.PathLike[str],
    options: DataOptions | None = None,
    *,
    labelled: bool = True,
    min_classes: int = 2,
    classes: Sequence[str] = (),
) -> ImageDataset:
    """Open data of any supported kind.

    Parameters
    ----------
    data : str or Path
        A folder of class folders or split folders; a folder of images, with
        ``options.label_from``; a folder of tables or arrays named after splits (``train.csv``,
        ``test.csv``); a CSV or Parquet table of paths or pixels; arrays, ``.npz`` or ``.npy``; or
        tar files of images: a folder of them, or one name, ``train-{000..099}.tar``. Without
        labels, also a single image. All of them may be addresses: ``s3://bucket/photos``.
    options : DataOptions, optional
        Options for data whose structure is not obvious.
    labelled : bool
        False: take all images, without labels and splits.
    min_classes : int
        Required number of classes; 1 for data that are only evaluated.
    classes : sequence of str
        Known class names: folders with these names are classes, not wrappers or splits.

    Raises
    ------
    DatasetError
        If the data cannot be opened as a dataset.
    SettingsError
        If `options` are invalid.
    MissingExtraError
        For Parquet if PyArrow is not installed; for an address without the package for it.
    StorageError
        If the storage at an address cannot be reached, or refuses access.
    """
    options = options or DataOptions()
    options.check()
    name = os.fspath(data)
    with cached_listings():
        files = _files_of(name, options, labelled)
        if not files:
            options.check_unused([name])
        dataset = _open(name, files, options, labelled, min_classes, classes)
    if labelled:
        check_label_map(dataset, options.label_map)
    return dataset


def open_splits(
    data: str | os.PathLike[str],
    options: DataOptions | None = None,
    *,
    validation: str | os.PathLike[str] | None = None,
    test: str | os.PathLike[str] | None = None,
) -> ImageDataset:
    """Open data to train on, with other data as the validation or test split.

    Parameters
    ----------
    data : str or Path
        As in :func:`open_dataset`.
    options : DataOptions, optional
        For all data.
    validation, test : str or Path, optional
        Data all of whose images are the validation or test split.

    Returns
    -------
    ImageDataset
        Paths are relative to the nearest folder that contains all data.

    Raises
    ------
    DatasetError
        As in :func:`open_dataset`; also if a split is given twice, if files and arrays are mixed,
        or if a class has no images to train on.
    """
    with cached_listings():
        return _open_splits(os.fspath(data), options or DataOptions(), validation, test)


def _open_splits(
    name: str,
    options: DataOptions,
    validation: str | os.PathLike[str] | None,
    test: str | os.PathLike[str] | None,
) -> ImageDataset:
    options.check()
    others = {"validation": validation, "test": test}
    extra = {split: os.fspath(source) for split, source in others.items() if source}
    files = {each: _files_of(each, options, True) for each in (name, *extra.values())}
    if not any(files.values()):
        options.check_unused(list(files))
    local = [each for each in files if not is_address(each)]
    roots = tuple(each if os.path.isdir(each) else os.path.dirname(each) for each in local)  # noqa: PTH112, PTH120
    dataset = _open(name, files[name], options, True, 2, (), roots)
    if not extra:
        check_label_map(dataset, options.label_map)
        return dataset
    for split, source in extra.items():
        if split in dataset.split:
            raise DatasetError(
                f"There are two {split} splits: {quoted(source)}, and one in {quoted(name)}. Leave "
                "one of them out."
            )

    def with_others(first: ImageDataset, options: DataOptions) -> ImageDataset:
        others = [
            (split, _open(source, files[source], options, True, 1, first.classes, roots))
            for split, source in extra.items()
        ]
        return _concatenate([(None, first), *others])

    def opened(options: DataOptions) -> ImageDataset:
        return with_others(_open(name, files[name], options, True, 2, (), roots), options)

    whole = _in_one_range(with_others(dataset, options), options, opened)
    check_label_map(whole, options.label_map)
    return _check_classes(whole, quoted(name), 2)


def as_dataset(
    X: Any,
    y: Any = None,
    *,
    labelled: bool = True,
    value_range: tuple[float, float] | None = None,
) -> ImageDataset:
    """Return images given as any supported Python object as a dataset, with `y` as their labels.

    Parameters
    ----------
    X : ImageDataset, str, Path, or sequence or array of paths or images
        A single path is that of an image, or is opened by :func:`kindsight.dataset.open_dataset`.
        Images that are not paths may be arrays, or anything that :func:`kindsight.read_image`
        reads; they stay in memory.
    y : sequence of str or int, optional
        Labels; they replace those of a dataset. A folder or file has its own.
    labelled : bool
        Whether a folder or file is read with its labels.
    value_range : (low, high), optional
        As in :class:`kindsight.dataset.DataOptions`.

    Raises
    ------
    DatasetError
        If `X` is of another type, or `y` does not fit.
    ImageError
        If the bytes, file object or PIL image of a list cannot be read.
    """
    try:
        return _as_dataset(X, y, labelled, value_range)
    except DatasetError as error:
        if _OPTION.search(str(error)) is None:
            raise
        raise DatasetError(
            f"{error} Give the option to ImageDataset.open, from_files or from_arrays, and use the "
            "dataset."
        ) from None


_OPTION = re.compile(
    r"`(columns|encoding|group_from|keep_na_labels|label_from|label_map|label_names|multi_label"
    r"|pixel_shape|root)\b"
)
"""An option of :class:`DataOptions` that a message suggests."""


def _as_dataset(
    X: Any, y: Any, labelled: bool, value_range: tuple[float, float] | None
) -> ImageDataset:
    if isinstance(X, ImageDataset):
        return X if y is None else X.with_columns(label=as_labels(y, len(X)))
    if isinstance(X, (str, os.PathLike)):
        # Without labels, open_dataset takes a single image, too.
        if y is not None and os.path.isfile(X) and not is_file_of_images(X):  # noqa: PTH113
            return from_files([os.fspath(X)], y)
        if y is not None:
            raise DatasetError(
                f"A folder or a table has its own labels; got {str(X)!r} with `y`. Leave `y` out, "
                "or give a list of files."
            )
        return open_dataset(X, DataOptions(value_range=value_range), labelled=labelled)
    if not hasattr(X, "__len__") or isinstance(X, (bytes, dict)):
        raise DatasetError(f"{_IMAGES_RULE}; got {type(X).__name__}.")
    items = X if isinstance(X, (list, tuple)) else np.atleast_1d(np.asarray(X))
    if len(items) == 0:
        raise DatasetError(f"{_IMAGES_RULE}; got an empty {type(X).__name__}.")
    # The first item decides; the functions below reject mixtures.
    if isinstance(items[0], (str, os.PathLike)):
        return from_files(items, y)
    if hasattr(items[0], "__array__") or isinstance(items[0], (list, tuple)):
        return from_arrays(items, y, value_range=value_range)
    from PIL import Image

    if isinstance(items[0], (bytes, bytearray, Image.Image)) or hasattr(items[0], "read"):
        return from_arrays([_read(item, i) for i, item in enumerate(items)], y)
    raise DatasetError(f"{_IMAGES_RULE}; got {type(X).__name__} of {type(items[0]).__name__}.")


def _read(item: Any, i: int) -> NDArray[np.uint8]:
    """Read an image given as bytes, a file object or a Pillow image."""
    from kindsight.images.read import read_image

    try:
        return read_image(item)
    except ImageError as error:
        raise error.at(f"image {i}") from error


_Files = dict[str | None, str | ImageDataset]
"""The tables or arrays that make up the data: split -> path, or the dataset if it is open."""


def _files_of(name: str, options: DataOptions, labelled: bool) -> _Files:
    """Return the tables or arrays that make up the data; empty if there are none."""
    if is_shards(name) or (is_file_of_images(name) and is_file(name)):
        return {None: name}
    name = folder_of_tables(name)
    if parquet_parts(name):
        return {None: name}
    if not data_files(name):
        return {None: name} if find_shards(name, options.follow_links) else {}
    tree = Tree.of(walk(name, IgnoredFiles(), follow_links=options.follow_links))
    classes = {entry.label for entry in arrange(tree).entries.values()}
    if len(classes) > 1 and not are_containers(classes):
        return {}
    files: _Files = {**find_split_files(name)}
    if files or not labelled or options.label_from is not None:
        return files
    dataset = open_table_of_labels(name, options, tree)
    return {} if dataset is None else {None: dataset}


def _open(
    name: str,
    files: _Files,
    options: DataOptions,
    labelled: bool,
    min_classes: int,
    classes: Sequence[str],
    roots: Sequence[str] = (),
) -> ImageDataset:
    if len(files) > 1:

        def opened(options: DataOptions) -> ImageDataset:
            return _open_split_files(files, options, labelled, roots)

        dataset = _in_one_range(opened(options), options, opened)
    elif files:
        (file,) = files.values()
        dataset = _without_links(_open_file(file, options, labelled), options, roots)
    elif not labelled and is_file(name):
        return from_files([name])
    elif labelled and options.label_from is not None:
        dataset = with_names(_open_unlabelled_folder(name, options, roots), options)
    else:
        dataset = _open_folder(name, options, labelled, min_classes, classes, roots)
        return with_names(dataset, options, labelled=labelled)
    if not labelled:
        return dataset
    dataset = rename_labels(dataset, read_label_map(options.label_map), classes)
    return _check_classes(dataset, quoted(name), min_classes, _more_classes(files, options))


def _in_one_range(
    dataset: ImageDataset, options: DataOptions, opened: Callable[[DataOptions], ImageDataset]
) -> ImageDataset:
    """Return arrays of several sources with one range of values, opened again if necessary."""
    if options.value_range is not None or dataset.value_range in (None, _UNIT):
        return dataset
    return opened(replace(options, value_range=dataset.value_range))


def _open_split_files(
    files: _Files, options: DataOptions, labelled: bool, roots: Sequence[str]
) -> ImageDataset:
    """Open the tables or arrays of the splits; those without labels are for predictions."""
    opened: list[tuple[str | None, ImageDataset]] = []
    without: list[str] = []
    errors = []
    for split, file in files.items():
        try:
            dataset = _open_file(file, options, labelled)
        except NoLabelsError as error:
            without.append(base_name(str(file)))
            errors.append(error)
        else:
            dataset = _without_links(dataset, options, roots)
            opened.append((split if labelled else None, dataset))
    first = opened[0][0] if opened else "none"
    if errors and (not opened or ("train" in files and first != "train")):
        raise errors[0]
    dataset = _concatenate(opened)
    if not without:
        return dataset
    return dataset.with_notes(
        f"Ignored {quoted_list(without)}, without labels: its images are for 'kindsight predict'."
    )


def _open_file(file: str | ImageDataset, options: DataOptions, labelled: bool) -> ImageDataset:
    if isinstance(file, ImageDataset):
        return file
    if is_shards(file) or not (is_file_of_images(file) or parquet_parts(file)):
        return from_shards(file, options, labelled=labelled)
    if undirected(file).lower().endswith(ARRAY_ENDINGS):
        return from_npz(file, options, labelled=labelled)
    return from_table(file, options, labelled=labelled)


def _without_links(
    dataset: ImageDataset, options: DataOptions, roots: Sequence[str]
) -> ImageDataset:
    """Exclude a table's files that are links to outside its folder, unless links are followed."""
    if options.follow_links or dataset.arrays is not None or isinstance(dataset.root, str):
        return dataset
    own = str((dataset.root or Path()).absolute())
    inside = tuple(map(real_prefix, (own, *roots)))
    out = [
        row
        for row in range(len(dataset))
        if is_inside(os.path.normpath(dataset.address(row)), (own.rstrip(os.sep) + os.sep,))
        and not is_inside(os.path.realpath(dataset.address(row)), inside)
    ]
    if not out:
        return dataset
    first = quoted(dataset.path[out[0]])
    note = f"Ignored: {len(out):,} x {LINK_OUTSIDE}, first {first}."
    return exclude_rows(dataset, out, LINK_OUTSIDE, note)


def _open_folder(
    name: str,
    options: DataOptions,
    labelled: bool,
    min_classes: int,
    classes: Sequence[str],
    roots: Sequence[str],
) -> ImageDataset:
    try:
        return from_folder(
            name,
            labelled=labelled,
            min_classes=min_classes,
            classes=classes,
            follow_links=options.follow_links,
            roots=roots,
            label_map=read_label_map(options.label_map if labelled else None),
        )
    except DatasetError as error:
        if files := data_files(name):
            raise DatasetError(
                f"{error} If the labels are in {quoted_list(files)}, give that file instead of the "
                "folder: it has no columns of paths and labels with usual names, or its files are "
                "elsewhere."
            ) from None
        raise


def _open_unlabelled_folder(name: str, options: DataOptions, roots: Sequence[str]) -> ImageDataset:
    """Open a folder of images whose names contain the labels; its folders may be splits."""
    dataset = from_folder(name, labelled=False, follow_links=options.follow_links, roots=roots)
    folders = [path.split("/")[:-1] for path in dataset.path]
    pairs = zip(min(folders), max(folders), strict=False)
    depth = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    below = [names[depth] if len(names) > depth else "" for names in folders]
    roles = split_roles(set(below))
    if roles is None:
        return dataset
    split = [roles[folder] if roles[folder] != UNLABELLED else None for folder in below]
    dataset = dataset.with_columns(split=split)
    out = [row for row, folder in enumerate(below) if roles[folder] == UNLABELLED]
    if not out:
        return dataset
    note = f"Ignored, in a folder of unlabelled images: {n_images(len(out))}."
    return exclude_rows(dataset, out, "unlabelled image", note)


def _concatenate(datasets: Sequence[tuple[str | None, ImageDataset]]) -> ImageDataset:
    """Concatenate datasets; each is paired with the split of all its rows, or None for its own.

    The root is the nearest folder that contains all files; without one (two drives of Windows),
    paths are absolute.
    """
    every = [dataset for _, dataset in datasets]
    in_memory = [dataset.arrays is not None for dataset in every]
    if any(in_memory) != all(in_memory):
        raise DatasetError(
            "The data mix image files with arrays or pixels in tables. Convert all of them to one "
            "form."
        )
    root, prefixes = None, [""] * len(every)
    if not any(in_memory):
        root, prefixes = _common_root(every)
    paths: list[Sequence[str]] = []
    left_out: list[IgnoredFile] = []
    for dataset, prefix in zip(every, prefixes, strict=True):
        below = (_below(prefix, path) for path in dataset.path)
        paths.append(TextColumn.of(below) if prefix else dataset.path)
        left_out.extend(
            file._replace(path=_below(prefix, file.path)) for file in dataset.ignored_files
        )
    ignored: Counter[str] = Counter()
    for dataset in every:
        ignored.update(dataset.ignored)
    label = concatenate([dataset.label for dataset in every])
    labels = {*count_values(label)}
    known = every[0].classes
    return ImageDataset(
        path=concatenate(paths),
        label=label,
        split=concatenate(
            [
                CodeColumn.constant(split, len(dataset)) if split else dataset.split
                for split, dataset in datasets
            ]
        ),
        group=concatenate([dataset.group for dataset in every]),
        digest=concatenate([dataset.digest for dataset in every]),
        size=concatenate([dataset.size for dataset in every]),
        root=root,
        arrays=tuple(array for dataset in every for array in dataset.arrays or ())
        if any(in_memory)
        else None,
        value_range=_union([dataset.value_range for dataset in every]),
        classes=known if labels <= {*known, None} else class_order(labels),
        ignored=dict(sorted(ignored.items())),
        ignored_files=tuple(left_out[:MAX_IGNORED_FILES]),
        notes=tuple(dict.fromkeys(note for dataset in every for note in dataset.notes)),
    )


def _below(prefix: str, path: str) -> str:
    if not prefix or is_address(path) or os.path.isabs(path):  # noqa: PTH117
        return path
    return prefix + path


def _union(ranges: Sequence[tuple[float, float] | None]) -> tuple[float, float] | None:
    """Return the range that contains all given ones; None if all are 0-255 or 0-1."""
    given = [each for each in ranges if each is not None]
    if set(given) <= {_UNIT}:
        return _UNIT if len(given) == len(ranges) else None
    return min(low for low, _ in given), max(high for _, high in given)


def _common_root(datasets: Sequence[ImageDataset]) -> tuple[Path | str | None, list[str]]:
    """Return the nearest common folder, and what to put before the paths of each dataset."""
    roots = [dataset.root for dataset in datasets]
    if roots[0] is not None and all(root == roots[0] for root in roots):
        return roots[0], [""] * len(datasets)
    folders = [str(root or Path().absolute()) for root in roots]
    if any(map(is_address, folders)):
        common, below = common_folder(folders)
        return common, ["" if start == "" else start + "/" for start in below]
    try:
        common = os.path.commonpath(folders)
    except ValueError:  # on different drives
        return None, [folder.replace(os.sep, "/").rstrip("/") + "/" for folder in folders]
    starts = [os.path.relpath(folder, common).replace(os.sep, "/") for folder in folders]
    return Path(common), ["" if start == "." else start + "/" for start in starts]


def _more_classes(files: _Files, options: DataOptions) -> str:
    """Return the advice on adding classes to data that are not class folders."""
    if options.label_from is not None:
        return "Use another `label_from`, or add images of other classes."
    if all(str(file).lower().endswith(ARRAY_ENDINGS) for file in files.values()):
        return "Add images of other classes."
    return (
        'Name another column of labels, `columns={"label": "NAME"}`, or add images of other '
        "classes."
    )


def _check_classes(
    dataset: ImageDataset, where: str, min_classes: int, cure: str = ""
) -> ImageDataset:
    """Check that there are enough classes with train images; note classes that splits lack.

    `cure` is the advice on adding classes.
    """
    names = dataset.present_classes()
    if len(names) < min_classes:
        word = "class" if len(names) == 1 else "classes"
        at_least = "1 class is" if min_classes == 1 else f"{min_classes} classes are"
        ignored = [note for note in dataset.notes if note.startswith("Ignored")]
        said = (
            f"At least {at_least} needed, but {where} has {len(names)} {word} "
            f"({quoted_list(names) or 'none'}) with {n_images(len(dataset))}."
        )
        raise DatasetError(" ".join([said, *ignored, *([cure] if cure else [])]))
    train = dataset.labels_in("train") | dataset.labels_in(None)
    if min_classes > 1 and train and (missing := [n for n in names if n not in train]):
        raise DatasetError(
            f"The train split in {where} has no images of {quoted_list(missing)}"
            f"{similar_names(missing, map(str, train))}. Add some, or rename the class or remove "
            "it in the other splits."
        )
    notes = []
    for split in SPLITS[1:]:
        present = dataset.labels_in(split)
        missing = [name for name in names if name not in present]
        if present and missing:
            notes.append(f"The {split} split has no images of {quoted_list(missing)}.")
    return dataset.with_notes(*notes)
