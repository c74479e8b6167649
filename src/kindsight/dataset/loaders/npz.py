"""ImageDatasets of arrays in files, ``.npz`` and ``.npy``."""

from __future__ import annotations

import math
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from kindsight.dataset.labels import check_label_typos, class_order
from kindsight.dataset.loaders.arrays import from_arrays
from kindsight.dataset.loaders.file_names import with_names
from kindsight.dataset.loaders.folder_roles import UNLABELLED, role_of
from kindsight.dataset.loaders.pixels import SCALED, as_images, as_pixels
from kindsight.dataset.loaders.values import name_labels, read_labels
from kindsight.dataset.names import images, shown, shown_list
from kindsight.dataset.options import DataOptions
from kindsight.dataset.table import ImageDataset
from kindsight.errors import DatasetError

__all__ = [
    "Part",
    "Parts",
    "find_parts",
    "from_npz",
    "read_arrays",
]

# SECTION: Arrays in files, ``.npz`` and ``.npy``: never unpickled, and bounded before they are
# read.

MAX_ARRAY_BYTES = 4 * 2**30
"""The most bytes of all arrays of a file, unpacked: 4 GiB."""

MAX_ARRAYS = 1000
"""The most arrays of a file."""


def read_arrays(path: str) -> dict[str, NDArray[Any]]:
    """Read the arrays of a file by their names; that of an ``.npy`` is called ``""``.

    Parameters
    ----------
    path : str
        The file.

    Raises
    ------
    DatasetError
        If it is no such file, is damaged, holds Python objects, or is too large.
    """
    where = shown(os.path.basename(path))  # noqa: PTH119
    with _told(where):
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
                    _check(file, info.file_size, f"the array {shown(name)} in {where}")
                with archive.open(info) as file:
                    arrays[name] = npy.read_array(file, allow_pickle=False)
    return arrays


def _check(file: IO[bytes], size: int, where: str) -> None:
    """Hold an array's heading to the size of the file before anything is made of it."""
    version = npy.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = npy.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = npy.read_array_header_2_0(file)
    else:
        raise ValueError(f"version {version[0]}.{version[1]}")
    if dtype.hasobject or dtype.names:
        raise DatasetError(
            f"Arrays must hold numbers or texts. Received: {dtype} in {where}, which is not read: "
            "it could hold a program. Save the array with a plain dtype."
        )
    told = math.prod(shape) * dtype.itemsize
    if told > MAX_ARRAY_BYTES:
        raise _too_large(where, f"{told:,} bytes")
    if told != size - file.tell():
        raise ValueError(f"{where} is cut off, or has more than its heading says")


def _too_large(where: str, received: str) -> DatasetError:
    return DatasetError(
        f"Arrays in files may have {MAX_ARRAY_BYTES:,} bytes and {MAX_ARRAYS:,} names. Received: "
        f"{received} in {where}. Part the file, or write the images as files."
    )


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Say in our own words what is wrong with a file."""
    try:
        yield
    except DatasetError:
        raise
    except MemoryError:
        raise DatasetError(
            f"Arrays must fit into this machine's memory. Received: {where}, which does not."
        ) from None
    except OSError as error:
        raise DatasetError(
            f"Data must be a file that can be read. Received: {where} ({error.strerror})."
        ) from error
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, KeyError,
            NotImplementedError, SyntaxError, TypeError, OverflowError) as error:  # fmt: skip
        raise DatasetError(
            f"Arrays must be files as NumPy writes them, whole. Received: {where}, which is none "
            f"({shown(str(error)[:200])[1:-1]})."
        ) from error


# SECTION: What the arrays of a file are, told by their names.
#
# All usual spellings are understood: ``x_train`` and ``y_train``, ``train_images`` and
# ``train_labels``, ``X`` and ``y``, ``images`` and ``labels``, ``testX`` and ``testY``. Arrays that
# were saved without a name (``arr_0``, ``arr_1``) are images and labels.

_WORDS_OF_KIND = {
    "images": (
        *("x", "xs", "image", "images", "img", "imgs", "image", "images", "photo", "photos"),
        *("data", "pixels", "inputs", "features"),
    ),
    "labels": ("y", "ys", "label", "labels", "target", "targets", "class", "classes"),
    "groups": ("group", "groups", "patient", "patients", "subject", "subjects", "person"),
}
_KIND_OF_WORD = {word: kind for kind, words in _WORDS_OF_KIND.items() for word in words}
_UNNAMED = {"": "images", "arr_0": "images", "arr_1": "labels"}
_FILLER = ("set", "sets", "array")
_CLASS_NAMES = ("class_names", "label_names", "target_names", "names", "classnames")
_JOINED = re.compile(r"(x|y)(train|val|valid|test|dev)|(train|val|valid|test|dev)(x|y)")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W_]+")


class Part(NamedTuple):
    """The arrays of one split.

    Attributes
    ----------
    split : str or None
        ``"train"``, ``"validation"``, ``"test"``; None where the names say none.
    images : str
        The array's name.
    labels, groups : str or None
        Theirs.
    """

    split: str | None
    images: str
    labels: str | None
    groups: str | None


class Parts(NamedTuple):
    """All arrays of a file.

    Attributes
    ----------
    parts : tuple of Part
        In the order None, train, validation, test.
    class_names : str or None
        The array that names the labels 0, 1, 2, ...
    unused : tuple of str
        Arrays that mean nothing here.
    """

    parts: tuple[Part, ...]
    class_names: str | None
    unused: tuple[str, ...]


def find_parts(names: Iterable[str], where: str) -> Parts:
    """Find out which array holds what.

    Parameters
    ----------
    names : iterable of str
        The arrays' names.
    where : str
        The file, for messages.

    Raises
    ------
    DatasetError
        If two arrays are the same, or a split has no images.
    """
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
                "The arrays of a file must be told apart by their names. Received: "
                f"{shown_list((found[meaning], name))} in {where}, both of which would be "
                f"{meaning[1]}. Save those that are meant as x and y."
            )
        else:
            found[meaning] = name
    parts = []
    for split in (None, "train", "validation", "test"):
        kinds = {kind: name for (part, kind), name in found.items() if part == split}
        if kinds and "images" not in kinds:
            raise _no_images(tuple(names), where)
        if kinds:
            parts.append(Part(split, kinds["images"], kinds.get("labels"), kinds.get("groups")))
    if not parts:
        raise _no_images(tuple(names), where)
    return Parts(tuple(parts), class_names, tuple(unused))


def _meaning(name: str) -> tuple[str | None, str] | None:
    """Return split and kind of an array; None where its name says neither."""
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
    there = shown_list(names) if names else "nothing"
    return DatasetError(
        f"Arrays of labels must have arrays of images beside them, called x and y, or x_train, "
        f"y_train, x_test and y_test. Received: {there} in {where}."
    )


_Arrays = Mapping[str, NDArray[Any]]


def from_npz(
    path: str | os.PathLike[str],
    options: DataOptions | None = None,
    *,
    labelled: bool = True,
) -> ImageDataset:
    """Make a dataset of the arrays in an ``.npz`` or ``.npy`` file.

    The arrays are told by their names; see :mod:`.array_names`. Images are
    (n, height, width), (n, height, width, 1) or (n, height, width, 3), also with the channels
    before the height, or rows of pixels, (n, height * width). Truth values become 0 and 255; whole
    numbers 0-255 stay; floats that all lie from 0 to 1 are multiplied by 255, which a note says.
    Labels and groups are (n,) or (n, 1), whole numbers or texts; labels may be one-hot rows, too.

    Parameters
    ----------
    path : str or Path
        The file.
    options : DataOptions, optional
        What the file does not say itself.
    labelled : bool
        Whether there must be labels. Without it only the images are read.

    Returns
    -------
    ImageDataset
        Training, validation and test part one after the other, where the names tell them apart.
        Images are called after their arrays, ``digits.npz:x_train[12]``.

    Raises
    ------
    DatasetError
        If the file is no such file, holds Python objects, is larger than 4 GiB, or if its arrays
        are not images and labels.
    """
    options = options or DataOptions()
    options.check()
    name = os.fspath(path)
    where = shown(os.path.basename(name))  # noqa: PTH119
    arrays = read_arrays(name)
    parts, class_names, unused = find_parts(arrays, where)
    notes = [f"Not used of {where}: the arrays {shown_list(unused)}."] if unused else []
    if labelled:
        parts = _labelled(parts, arrays, where, notes)
    called = [f"{shown(part.images)} in {where}" if part.images else where for part in parts]
    shaped = []
    for part, said in zip(parts, called, strict=True):
        array, note = as_images(arrays[part.images], options.shape, said)
        shaped.append(array)
        notes.extend([note] if note else [])
    held, fractions = as_pixels(shaped, called)
    if fractions:
        notes.append(SCALED.format(where=where))
    memory = from_arrays([image for array in held for image in array])
    columns: dict[str, Any] = {}
    if labelled:
        given = options.label_names or _class_names(arrays, class_names)
        columns = _columns(arrays, parts, given, where)
    start = name.replace(os.sep, "/")
    dataset = ImageDataset(
        path=tuple(
            f"{start}:{part.images}[{row}]" if part.images else f"{start}[{row}]"
            for part, array in zip(parts, held, strict=True)
            for row in range(len(array))
        ),
        size=memory.size,
        arrays=memory.arrays,
        notes=tuple(dict.fromkeys(notes)),
        **columns,
    )
    return with_names(dataset, options, labelled=labelled)


def _labelled(
    parts: Sequence[Part], arrays: _Arrays, where: str, notes: list[str]
) -> tuple[Part, ...]:
    """Leave out parts without labels, with a note; there must be one that has some."""
    kept = tuple(part for part in parts if part.labels is not None)
    if not kept:
        raise DatasetError(
            "Arrays of images must have arrays of labels beside them, called x and y, or "
            f"x_train, y_train, x_test and y_test. Received: {shown_list(tuple(arrays))} in "
            f"{where}."
        )
    notes.extend(
        f"Without labels, and so left out: {images(len(arrays[part.images]))} of {where}, the "
        f"array {shown(part.images)}."
        for part in parts
        if part not in kept
    )
    return kept


def _class_names(arrays: _Arrays, name: str | None) -> list[str]:
    """Return the names of the labels 0, 1, 2, ... that the file itself gives."""
    if name is None or arrays[name].ndim != 1 or arrays[name].dtype.kind not in "US":
        return []
    return [_text(value) for value in arrays[name].tolist()]


def _columns(
    arrays: _Arrays, parts: Sequence[Part], names: Sequence[str], where: str
) -> dict[str, Any]:
    """Return labels, splits and groups of all parts, one part after the other."""
    labels: list[str | None] = []
    groups: list[str | None] = []
    splits: list[str | None] = []
    for part in parts:
        n = len(arrays[part.images])
        labels += _cells(arrays, str(part.labels), n, part, where)
        groups += [None] * n if part.groups is None else _cells(arrays, part.groups, n, part, where)
        splits += [part.split] * n
    place = _placer(arrays, parts)
    missing = [row for row, label in enumerate(labels) if label is None]
    if missing:
        raise DatasetError(
            f"Every image must have a label. Received: {len(missing):,} without in {where}, the "
            f"first being {place(missing[0])}."
        )
    labels = name_labels(read_labels(map(str, labels)), names, place)
    check_label_typos(labels, place)
    return {
        "label": tuple(labels),
        "split": tuple(splits),
        "group": tuple(groups),
        "classes": class_order(labels),
    }


def _placer(arrays: _Arrays, parts: Sequence[Part]) -> Callable[[int], str]:
    """Return a function that says where row i is: ``y_train[12]``."""

    def place(row: int) -> str:
        for part in parts:
            n = len(arrays[part.images])
            if row < n:
                break
            row -= n
        return f"{part.labels}[{row}]"

    return place


def _cells(arrays: _Arrays, name: str, n: int, part: Part, where: str) -> list[str | None]:
    """Return an array of labels or groups as texts; None for not-a-number and empty texts."""
    array = arrays[name]
    received = f"{array.dtype} of shape {array.shape} as {shown(name)} in {where}"
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2 and array.dtype.kind in "buif":
        array = _one_hot(array, received)
    if array.ndim != 1 or array.dtype.kind not in "buifUS":
        raise DatasetError(
            "Labels and groups are whole numbers or texts, one for each image. Received: "
            f"{received}."
        )
    if len(array) != n:
        raise DatasetError(
            f"There must be one label for each image. Received: {received}; there are "
            f"{images(n)} in {shown(part.images)}."
        )
    if array.dtype.kind == "f" and (array[np.isfinite(array)] % 1).any():
        raise DatasetError(f"Labels and groups are whole numbers or texts. Received: {received}.")
    return [_text(value) or None for value in array.tolist()]


def _one_hot(array: NDArray[Any], received: str) -> NDArray[np.int64]:
    """Return the number of the one column of each row that is 1."""
    if not (((array == 0) | (array == 1)).all() and (array.sum(axis=1) == 1).all()):
        raise DatasetError(
            f"Rows of labels must have a single 1 and otherwise 0. Received: {received}, which "
            "have not: an image has one class here."
        )
    columns: NDArray[np.int64] = array.argmax(axis=1)
    return columns


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape").strip()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else ""
    return str(value).strip()
