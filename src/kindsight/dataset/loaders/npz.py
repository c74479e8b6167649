"""Datasets of arrays in files, ``.npz`` and ``.npy``.

Files are not trusted: arrays are never unpickled, and their sizes are checked before reading.
"""

from __future__ import annotations

import math
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from kindsight.dataset.labels import MISSING, class_order
from kindsight.dataset.loaders.arrays import as_images, as_pixels, from_arrays, scaling_notes
from kindsight.dataset.loaders.from_names import UNLABELLED, role_of, with_names
from kindsight.dataset.loaders.values import read_labels, resolve_labels
from kindsight.dataset.names import MAX_IGNORED_FILES, IgnoredFile, n_images, quoted, quoted_list
from kindsight.dataset.options import DataOptions
from kindsight.dataset.several_labels import one_hot_labels
from kindsight.dataset.table import ImageDataset, exclude_rows
from kindsight.encoding import valid_text
from kindsight.errors import DatasetError

__all__ = ["from_npz"]

MAX_ARRAY_BYTES = 4 * 2**30
"""Limit of the unpacked size of all arrays of a file: 4 GiB."""

MAX_ARRAYS = 1000
"""Limit of the number of arrays of a file."""


def _read_arrays(path: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file by name; the name of an ``.npy`` array is ``""``."""
    where = quoted(os.path.basename(path))  # noqa: PTH119
    with _clear_errors(where):
        if path.lower().endswith(".npy"):
            with Path(path).open("rb") as file:
                _check(file, os.fstat(file.fileno()).st_size, where)
                file.seek(0)
                return {"": npy.read_array(file, allow_pickle=False)}
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            total = sum(info.file_size for info in members)
            if len(members) > MAX_ARRAYS or total > MAX_ARRAY_BYTES:
                raise _too_large(where, f"{len(members):,} arrays of {total:,} bytes")
            arrays = {}
            for info in members:
                name = info.filename.removesuffix(".npy")
                with archive.open(info) as file:
                    _check(file, info.file_size, f"the array {quoted(name)} in {where}")
                with archive.open(info) as file:
                    arrays[name] = npy.read_array(file, allow_pickle=False)
    return arrays


def _check(file: IO[bytes], size: int, where: str) -> None:
    """Check an array's header against the size of the file before reading it."""
    version = npy.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = npy.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = npy.read_array_header_2_0(file)
    else:
        raise ValueError(f"version {version[0]}.{version[1]}")
    if dtype.hasobject or dtype.names:
        raise DatasetError(
            f"{where} has the dtype {dtype}, which could contain code and is not read. Save the "
            "array with a dtype of numbers or texts."
        )
    size_stated = math.prod(shape) * dtype.itemsize
    if size_stated > MAX_ARRAY_BYTES:
        raise _too_large(where, f"{size_stated:,} bytes")
    if size_stated != size - file.tell():
        raise ValueError(f"{where} is truncated, or longer than its header says")


def _too_large(where: str, received: str) -> DatasetError:
    return DatasetError(
        f"{where} is too large ({received}); the limits are {MAX_ARRAYS:,} arrays and "
        f"{MAX_ARRAY_BYTES:,} bytes. Split it, or write the images as files."
    )


@contextmanager
def _clear_errors(where: str) -> Iterator[None]:
    """Convert the errors of zipfile and NumPy to DatasetError."""
    try:
        yield
    except DatasetError:
        raise
    except MemoryError:
        raise DatasetError(f"The arrays in {where} do not fit into memory.") from None
    except OSError as error:
        raise DatasetError(f"Could not read {where}: {error.strerror}.") from error
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, KeyError,
            NotImplementedError, SyntaxError, TypeError, OverflowError) as error:  # fmt: skip
        raise DatasetError(
            f"{where} is not a complete file of NumPy arrays: {quoted(str(error)[:200])[1:-1]}."
        ) from error


# Meanings of arrays by their names. Usual names are recognised: ``x_train`` and ``y_train``,
# ``train_images`` and ``train_labels``, ``X`` and ``y``, ``images`` and ``labels``, ``testX`` and
# ``testY``. Arrays that were saved without a name (``arr_0``, ``arr_1``) are images and labels.
_WORDS_OF_KIND = {
    "images": (
        *("x", "xs", "image", "images", "img", "imgs", "photo", "photos", "data", "pixels"),
        *("inputs", "features"),
    ),
    "labels": ("y", "ys", "label", "labels", "target", "targets", "class", "classes"),
    "groups": ("group", "groups", "patient", "patients", "subject", "subjects", "person"),
}
_KIND_OF_WORD = {word: kind for kind, words in _WORDS_OF_KIND.items() for word in words}
_UNLABELLED = "array without labels"
_UNNAMED = {"": "images", "arr_0": "images", "arr_1": "labels"}
_FILLER = ("set", "sets", "array")
_CLASS_NAMES = ("class_names", "label_names", "target_names", "names", "classnames")
_JOINED = re.compile(r"(x|y)(train|val|valid|test|dev)|(train|val|valid|test|dev)(x|y)")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W_]+")


class _SplitArrays(NamedTuple):
    """Names of the arrays of one split; `split` is None if the names contain none."""

    split: str | None
    images: str
    labels: str | None
    groups: str | None


class _FileArrays(NamedTuple):
    """Names of all arrays of a file: by split, class names, and unused ones."""

    splits: tuple[_SplitArrays, ...]
    class_names: str | None
    unused: tuple[str, ...]


def _find_arrays(names: Iterable[str], where: str) -> _FileArrays:
    """Return the meanings of arrays; DatasetError if they are ambiguous or images are missing."""
    found: dict[tuple[str | None, str], str] = {}
    class_names, unused = None, []
    for name in names:
        meaning = _meaning(name)
        if name.lower() in _CLASS_NAMES and class_names is None:
            class_names = name
        elif meaning is None:
            unused.append(name)
        elif meaning in found:
            raise DatasetError(
                f"The names of the arrays in {where} are ambiguous: "
                f"{quoted_list((found[meaning], name))} could both be {meaning[1]}. Save the right "
                "ones as x and y."
            )
        else:
            found[meaning] = name
    splits = []
    for split in (None, "train", "validation", "test"):
        kinds = {kind: name for (part, kind), name in found.items() if part == split}
        if kinds and "images" not in kinds:
            raise _no_images(tuple(names), where)
        if kinds:
            splits.append(
                _SplitArrays(split, kinds["images"], kinds.get("labels"), kinds.get("groups"))
            )
    if not splits:
        raise _no_images(tuple(names), where)
    return _FileArrays(tuple(splits), class_names, tuple(unused))


def _meaning(name: str) -> tuple[str | None, str] | None:
    """Return split and kind of an array; None if its name is not recognised."""
    if name in _UNNAMED:
        return None, _UNNAMED[name]
    words: list[str] = []
    for word in _WORD.findall(name):
        joined = _JOINED.fullmatch(word.lower())
        words += [part for part in joined.groups() if part] if joined else [word.lower()]
    kinds = {_KIND_OF_WORD[word] for word in words if word in _KIND_OF_WORD}
    rest = [word for word in words if word not in _KIND_OF_WORD and word not in _FILLER]
    roles = [role_of(word) for word in rest]
    if len(kinds) != 1 or len(roles) > 1 or None in roles or UNLABELLED in roles:
        return None
    return (roles[0] if roles else None), kinds.pop()


def _no_images(names: tuple[str, ...], where: str) -> DatasetError:
    there = quoted_list(names) if names else "nothing"
    return DatasetError(
        f"{where} has no array of images; it contains {there}. Save images and labels as x and "
        "y, or as x_train, y_train, x_test and y_test."
    )


_Arrays = Mapping[str, NDArray[Any]]


def from_npz(
    path: str | os.PathLike[str], options: DataOptions | None = None, *, labelled: bool = True
) -> ImageDataset:
    """Return the dataset of the arrays in an ``.npz`` or ``.npy`` file.

    Arrays are recognised by their names (``x_train``, ``labels``, ...). Images are
    (n, height, width), (n, height, width, 1) or (n, height, width, 3), or with the channels first,
    or rows of pixels, (n, height * width). Booleans become 0 and 255; whole numbers 0-255 are
    unchanged; floats from 0 to 1 are multiplied by 255, others scaled by one range over all images,
    with a note. Labels and groups are (n,) or (n, 1), whole numbers or texts; labels may also be
    one-hot rows.

    Parameters
    ----------
    path : str or Path
        The file.
    options : DataOptions, optional
        Options for what the file does not state.
    labelled : bool
        False: read only the images.

    Returns
    -------
    ImageDataset
        Train, validation and test split in this order. The path of an image is its array and
        index, ``digits.npz:x_train[12]``.

    Raises
    ------
    DatasetError
        If the file is invalid, contains Python objects, is larger than 4 GiB, or its arrays are not
        images and labels.
    """
    options = options or DataOptions()
    options.check()
    name = os.fspath(path)
    where = quoted(os.path.basename(name))  # noqa: PTH119
    arrays = _read_arrays(name)
    splits, class_names, unused = _find_arrays(arrays, where)
    notes = [f"Unused arrays in {where}: {quoted_list(unused)}."] if unused else []
    every = splits
    if labelled:
        splits = _labelled(splits, arrays, where, notes)
    sources = [f"{quoted(part.images)} in {where}" if part.images else where for part in splits]
    shaped = [
        as_images(arrays[part.images], options.shape, source)
        for part, source in zip(splits, sources, strict=True)
    ]
    pixels, value_range = as_pixels([array for array, _ in shaped], sources, options.value_range)
    notes += [*filter(None, (note for _, note in shaped)), *scaling_notes(value_range, where)]
    memory = from_arrays([image for array in pixels for image in array])
    columns: dict[str, Any] = {}
    skipped = np.zeros(0, np.int64)
    if labelled:
        names = options.label_names or _class_names(arrays, class_names, where, options)
        columns, skipped = _columns(arrays, splits, replace(options, label_names=names), where)
    left_out = [part for part in every if part not in splits]
    ignored = tuple(path for part in left_out for path in _paths(name, part, arrays))
    dataset = ImageDataset(
        path=tuple(path for part in splits for path in _paths(name, part, arrays)),
        size=memory.size,
        arrays=memory.arrays,
        value_range=value_range,
        notes=tuple(dict.fromkeys(notes)),
        ignored={_UNLABELLED: len(ignored)} if left_out else {},
        ignored_files=tuple(IgnoredFile(path, _UNLABELLED) for path in ignored[:MAX_IGNORED_FILES]),
        **columns,
    )
    if labelled:
        dataset = _without_unlabelled(dataset, skipped, where, _locator(arrays, splits))
    return with_names(dataset, options, labelled=labelled)


def _paths(file: str, part: _SplitArrays, arrays: Mapping[str, NDArray[Any]]) -> Iterator[str]:
    """Yield the name of each image of an array: ``digits.npz:x_train[12]``."""
    start = file.replace(os.sep, "/") + (f":{part.images}" if part.images else "")
    return (f"{start}[{row}]" for row in range(len(arrays[part.images])))


def _without_unlabelled(
    dataset: ImageDataset, skipped: NDArray[np.int64], where: str, location: Callable[[int], str]
) -> ImageDataset:
    """Exclude images without a label, and those with several that are skipped, with notes."""
    several = set(skipped.tolist())
    missing = [
        row for row, label in enumerate(dataset.label) if label is None and row not in several
    ]
    names = dataset.path
    for rows, reason, what in (
        (skipped.tolist(), "several labels", "with several labels"),
        (missing, "no label", "without a label"),
    ):
        if not rows:
            continue
        note = f"Ignored {what}: {n_images(len(rows))} of {where}, first {location(rows[0])}."
        out = {names[row] for row in rows}
        left = [row for row, path in enumerate(dataset.path) if path in out]
        dataset = exclude_rows(dataset, left, reason, note)
    return dataset


def _labelled(
    splits: Sequence[_SplitArrays], arrays: _Arrays, where: str, notes: list[str]
) -> tuple[_SplitArrays, ...]:
    """Exclude splits without labels, with a note; DatasetError if none has labels."""
    labelled = tuple(part for part in splits if part.labels is not None)
    if not labelled:
        raise DatasetError(
            f"{where} has no array of labels; it contains {quoted_list(tuple(arrays))}. Save "
            "images and labels as x and y, or as x_train, y_train, x_test and y_test."
        )
    notes.extend(
        f"Ignored without labels: {n_images(len(arrays[part.images]))} in the array "
        f"{quoted(part.images)} of {where}."
        for part in splits
        if part not in labelled
    )
    return labelled


def _class_names(arrays: _Arrays, name: str | None, where: str, options: DataOptions) -> list[str]:
    """Return the class names in the file, for the labels 0, 1, 2, ..."""
    if name is None or arrays[name].ndim != 1 or arrays[name].dtype.kind not in "US":
        return []
    return [_text(value, name, where, options.encoding) for value in arrays[name].tolist()]


def _columns(
    arrays: _Arrays, splits: Sequence[_SplitArrays], options: DataOptions, where: str
) -> tuple[dict[str, Any], NDArray[np.int64]]:
    """Return the columns label, split and group, the classes, and the rows with several labels."""
    labels: list[tuple[str, ...]] = []
    groups: list[str | None] = []
    split: list[str | None] = []
    for part in splits:
        n = len(arrays[part.images])
        labels += _labels(arrays, str(part.labels), part, where, options)
        groups += [None] * n if part.groups is None else _groups(arrays, part, where, options)
        split += [part.split] * n
    what = f"The labels in {where}"
    chosen, skipped = resolve_labels(labels, options, what, _locator(arrays, splits))
    columns = {
        "label": chosen,
        "split": tuple(split),
        "group": tuple(groups),
        "classes": class_order(chosen),
    }
    return columns, skipped


def _locator(arrays: _Arrays, splits: Sequence[_SplitArrays]) -> Callable[[int], str]:
    """Return a function from a row to its location: ``y_train[12]``."""

    def location(row: int) -> str:
        for part in splits:
            n = len(arrays[part.images])
            if row < n:
                break
            row -= n
        return f"{part.labels}[{row}]"

    return location


def _labels(
    arrays: _Arrays, name: str, part: _SplitArrays, where: str, options: DataOptions
) -> Sequence[tuple[str, ...]]:
    """Return the labels of each image: of one-hot rows, or of one label for each image."""
    array = arrays[name]
    if array.ndim == 2 and array.shape[1] > 1 and array.dtype.kind in "buif":
        if not np.isin(array, (0, 1)).all():
            raise DatasetError(
                "Labels of shape (images, classes) must be one-hot rows, only 0 and 1; got "
                f"{array.dtype} of shape {array.shape} as {quoted(name)} in {where}."
            )
        _check_length(array, name, part, arrays, where)
        numbers = [str(k) for k in range(array.shape[1])]
        return one_hot_labels(list(array.astype(bool).T), numbers)
    cells = _cells(arrays, name, part, where, options)
    return read_labels(cells, keep_na=options.keep_na_labels)


def _groups(
    arrays: _Arrays, part: _SplitArrays, where: str, options: DataOptions
) -> list[str | None]:
    cells = _cells(arrays, str(part.groups), part, where, options)
    return [None if cell in MISSING else cell for cell in cells]


def _cells(
    arrays: _Arrays, name: str, part: _SplitArrays, where: str, options: DataOptions
) -> list[str]:
    """Return an array of labels or groups as texts; empty for NaN."""
    array = arrays[name]
    received = f"{array.dtype} of shape {array.shape} as {quoted(name)} in {where}"
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "buifUS":
        raise DatasetError(
            f"Labels and groups must be whole numbers or texts, one for each image; got {received}."
        )
    _check_length(array, name, part, arrays, where)
    return [_text(value, name, where, options.encoding) for value in array.tolist()]


def _check_length(
    array: NDArray[Any], name: str, part: _SplitArrays, arrays: _Arrays, where: str
) -> None:
    n = len(arrays[part.images])
    if len(array) != n:
        raise DatasetError(
            f"There must be one label for each image; got {array.dtype} of shape {array.shape} as "
            f"{quoted(name)} in {where}, but {n_images(n)} in {quoted(part.images)}."
        )


def _text(value: object, name: str, where: str, encoding: str | None) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode(encoding or "utf-8").strip()
        except UnicodeError:
            cure = (
                "another `encoding`" if encoding else 'their encoding, such as `encoding="cp1252"`'
            )
            raise DatasetError(
                f"The array {quoted(name)} in {where} has texts that are not "
                f"{encoding or 'UTF-8'}, first {quoted(os.fsdecode(value[:40]))}. Give {cure}."
            ) from None
    if isinstance(value, float):
        if not math.isfinite(value):
            return ""
        return str(int(value)) if value.is_integer() else repr(value)
    return valid_text(str(value).strip())
