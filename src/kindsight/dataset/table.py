"""The dataset: an immutable table of images, one row each."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from kindsight import dataset as package
from kindsight.dataset.columns.base import Rows
from kindsight.dataset.columns.convert import (
    as_codes,
    as_column,
    count_values,
    has_missing,
    is_equal,
    take_rows,
)
from kindsight.dataset.columns.texts import BytesColumn
from kindsight.dataset.labels import class_indices
from kindsight.dataset.names import MAX_IGNORED_FILES, IgnoredFile, n_images, quoted
from kindsight.errors import DatasetError, ImageError, StorageError
from kindsight.storage.address import is_address, join, member_address, split_member

__all__ = ["SPLITS", "ImageDataset", "exclude_rows", "relative_paths"]

SPLITS = ("train", "validation", "test")
"""The splits that an image can belong to."""

_COLUMNS = {"label": None, "split": None, "group": None, "digest": None, "size": 0}
_SHOWN_CLASSES = 6


@dataclass(frozen=True, eq=False, repr=False)
class ImageDataset:
    """A table of images with their labels, splits and groups; one row per image.

    A dataset is immutable; methods return a new one. It can be indexed like a one-dimensional
    NumPy array, so scikit-learn's cross-validation works on it. All columns have the same length; a
    column that is left out is None (0 for `size`) in every row. Columns are tuples, or from 100,000
    rows on compact sequences that are equal to tuples and hold no Python object per row.

    Parameters
    ----------
    path : sequence of str
        Path of the image file, relative to `root`, with ``/``; as given if there is no root; an
        address; ``shards/train-0.tar!cat/1.jpg`` in a tar file; an invented name
        (``array-000012``) for an image in memory.
    label : sequence of (str or None), optional
        Class name; None if unknown.
    split : sequence of (str or None), optional
        ``"train"``, ``"validation"``, ``"test"`` or None (undecided).
    group : sequence of (str or None), optional
        Images of one group (a patient, a scene) stay in one split.
    digest : sequence of (str or None), optional
        Content digest; None until the image has been read.
    size : sequence of int, optional
        Bytes on disk or in memory; 0 if unknown.
    root : Path or str, optional
        The folder that paths are relative to; a str is an address, ``s3://bucket/photos``.
    arrays : tuple of uint8 arrays, optional
        Images in memory: (height, width, 3), (height, width, 1) or (height, width), RGB or grey,
        0-255.
    classes : tuple of str, optional
        All class names, in the order of the class indices; by default the labels that occur,
        sorted by code point. A subset retains all classes.
    value_range : (low, high), optional
        The values that become 0 and 255 where samples have more than 8 bits: see
        :func:`kindsight.dataset.with_value_range`. Arrays have been scaled by it.
    ignored : mapping of str to int, optional
        Files and folders that are not in the dataset: reason -> count.
    ignored_files : tuple of IgnoredFile, optional
        The same one by one, at most 100,000: path, reason, label, size.
    notes : tuple of str, optional
        Notes for the user, one sentence each.

    Raises
    ------
    ValueError
        If columns differ in length, or contain an unknown split or a label that is not a class.
    """

    path: Sequence[str]
    label: Sequence[str | None] = ()
    split: Sequence[str | None] = ()
    group: Sequence[str | None] = ()
    digest: Sequence[str | None] = ()
    size: Sequence[int] = ()
    root: Path | str | None = None
    arrays: tuple[NDArray[np.uint8], ...] | None = None
    classes: tuple[str, ...] = ()
    value_range: tuple[float, float] | None = None
    ignored: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    ignored_files: tuple[IgnoredFile, ...] = ()

    def __post_init__(self) -> None:
        """Fill in missing columns and validate."""
        n = len(self.path)
        for name, default in (("path", ""), *_COLUMNS.items()):
            column = as_column(name, getattr(self, name), default, n)
            object.__setattr__(self, name, column)
            if len(column) != n:
                raise ValueError(f"every column must have {n} rows; got {len(column)} for {name}")
        if self.arrays is not None and len(self.arrays) != n:
            raise ValueError(f"there must be {n} arrays; got {len(self.arrays)}")
        if unknown := set(count_values(self.split)) - {*SPLITS, None}:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}; got {unknown}")
        labels = {label for label in count_values(self.label) if label is not None}
        object.__setattr__(self, "classes", tuple(self.classes) or tuple(sorted(labels)))
        if len(set(self.classes)) != len(self.classes) or not labels <= set(self.classes):
            raise ValueError(f"classes must be unique and contain every label; got {self.classes}")
        object.__setattr__(self, "ignored", dict(self.ignored))

    @classmethod
    def from_folder(
        cls,
        path: str | Path,
        *,
        labelled: bool = True,
        min_classes: int = 2,
        classes: Sequence[str] = (),
        follow_links: bool = True,
    ) -> ImageDataset:
        """Return the dataset of a folder; see :func:`kindsight.dataset.from_folder`."""
        return package.from_folder(
            path,
            labelled=labelled,
            min_classes=min_classes,
            classes=classes,
            follow_links=follow_links,
        )

    @classmethod
    def from_files(
        cls,
        paths: Iterable[str | Path] | str | Path,
        labels: Any = None,
        **options: Any,
    ) -> ImageDataset:
        """Return a dataset of files; see :func:`kindsight.dataset.from_files`."""
        return package.from_files(paths, labels, **options)

    @classmethod
    def from_arrays(cls, arrays: Any, labels: Any = None, **options: Any) -> ImageDataset:
        """Return a dataset of arrays in memory; see :func:`kindsight.dataset.from_arrays`."""
        return package.from_arrays(arrays, labels, **options)

    @classmethod
    def open(
        cls,
        data: str | Path,
        *,
        labelled: bool = True,
        min_classes: int = 2,
        classes: Sequence[str] = (),
        **options: Any,
    ) -> ImageDataset:
        r"""Return the dataset of a folder, a table or a file of arrays, as the command line does.

        `options` are those of :class:`kindsight.dataset.DataOptions`, such as
        ``label_from=r"^(.+?)_\d+"``; the rest is as in :func:`kindsight.dataset.open_dataset`.
        """
        chosen = package.DataOptions(**options)
        return package.open_dataset(
            data, chosen, labelled=labelled, min_classes=min_classes, classes=classes
        )

    def write_csv(self, path: str | Path) -> None:
        """Write a table of paths; see :func:`kindsight.dataset.write_dataset`."""
        package.write_dataset(self, path)

    def write_parquet(self, path: str | Path) -> None:
        """Write Parquet, a file or parts; see :func:`kindsight.dataset.write_parquet`."""
        package.write_parquet(self, path)

    def __len__(self) -> int:
        return len(self.path)

    @property
    def shape(self) -> tuple[int]:
        """``(number of images,)``."""
        return (len(self.path),)

    def __getitem__(self, key: Any) -> ImageDataset:
        """Return rows as NumPy would; an integer gives a dataset of one row."""
        rows = _rows(key, len(self))
        names = ("path", *_COLUMNS) if self.arrays is None else ("path", *_COLUMNS, "arrays")
        columns: dict[str, Any] = {name: take_rows(getattr(self, name), rows) for name in names}
        return replace(self, **columns)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ImageDataset):
            return NotImplemented
        names = ("path", *_COLUMNS, "root", "classes", "value_range", "ignored", "ignored_files")
        names += ("notes",)
        if any(getattr(self, name) != getattr(other, name) for name in names):
            return False
        if self.arrays is None or other.arrays is None:
            return self.arrays is other.arrays
        return all(map(np.array_equal, self.arrays, other.arrays))

    __hash__ = None  # type: ignore[assignment]  # as for arrays: too expensive

    def __repr__(self) -> str:
        text = n_images(len(self))
        if counts := self.counts():
            names = [f"{quoted(name)[1:-1]} {count:,}" for name, count in counts.items()]
            if len(names) > _SHOWN_CLASSES:
                names[_SHOWN_CLASSES - 1 :] = ["..."]
            text += f", {len(counts)} class{'' if len(counts) == 1 else 'es'}: {', '.join(names)}"
        splits = [f"{name} {count:,}" for name, count in self.split_counts().items() if count]
        return f"ImageDataset({'; '.join([text, ', '.join(splits)]) if splits else text})"

    def _repr_html_(self) -> str:
        from kindsight.dataset.thumbnails import dataset_thumbnails
        from kindsight.notebook.values import dataset_html

        return dataset_html(self, dataset_thumbnails(self))

    def __array__(self, *_: object, **__: object) -> NoReturn:
        # NumPy would otherwise index rows recursively without end.
        raise TypeError("An ImageDataset is not an array. Use dataset.path or dataset.targets.")

    def file(self, i: int) -> Path:
        """Return the absolute path of row `i`.

        DatasetError for images in memory, at addresses and in tar files.
        """
        if self.arrays is not None:
            raise DatasetError(f"Image {i} is in memory and has no file. Use load({i}).")
        path, root = self.path[i], self.root
        if isinstance(root, str) or is_address(path) or split_member(path) is not None:
            name = join(root, path)
            if not os.path.lexists(name):
                raise DatasetError(f"Image {i} is no local file: {quoted(name)}. Use load({i}).")
        return Path(root or "").joinpath(path).absolute()

    def address(self, i: int) -> str:
        """Return the name by which any process reads row `i`; DatasetError for images in memory.

        The absolute path of a local file; an address; or, for an image in a tar file, the tar
        file's path, the offset and size, and the name in it: ``/photos.tar!512+8192!cat/1.jpg``.
        :func:`kindsight.images.read.read_bytes` reads all of them.
        """
        path, root = self.path[i], self.root
        if self.arrays is None and (isinstance(root, str) or is_address(path)):
            name = join(root, path)
        elif self.arrays is None and split_member(path) is not None:
            name = str(Path(root or "").joinpath(path).absolute())
        else:
            return str(self.file(i))
        member = split_member(name)
        if member is None or member[1] is not None or os.path.lexists(name):
            return name
        from kindsight.storage.shards import find_member

        try:
            place = find_member(member[0], member[2])
        except DatasetError:  # reading it gives the error
            place = None
        return name if place is None else member_address(member[0], *place, member[2])

    @property
    def is_remote(self) -> bool:
        """Whether the first image is at an address, so that reading waits for a network."""
        if self.arrays is not None or not len(self):
            return False
        return isinstance(self.root, str) or is_address(self.path[0])

    def load(self, i: int) -> bytes | NDArray[np.uint8]:
        """Return the undecoded image of row `i`: the file's bytes, or the array in memory.

        Arrays are (height, width, 3) uint8, RGB 0-255; grey ones are converted.

        Raises
        ------
        ImageError
            If the file is missing, empty, too large or not readable.
        StorageError
            If the storage at an address cannot be reached: not a fault of one image.
        """
        if self.arrays is None:
            from kindsight.images.read import read_bytes

            try:
                return read_bytes(self.address(i))
            except ImageError as error:
                # Some links to web servers are expected to be dead.
                of_web = self.path[i].startswith(("http://", "https://"))
                if error.code != "unreachable" or of_web:
                    raise
                raise StorageError(error.reason) from error
        array = self.arrays[i]
        if array.ndim == 2:
            array = array[:, :, None]
        return array if array.shape[2] == 3 else np.repeat(array, 3, axis=2)

    @property
    def targets(self) -> NDArray[np.int64]:
        """The class index of each image: (n,) int64, -1 if unlabelled."""
        return class_indices(self.label, self.classes, missing=-1)

    def labels_in(self, split: str | None) -> set[str | None]:
        """Return the labels that occur in a split."""
        return set(count_values(take_rows(self.label, self.rows_in(split))))

    def rows_in(self, *splits: str | None) -> NDArray[np.int64]:
        """Return the rows that are in one of some splits, None for none: int64, increasing."""
        every = as_codes(self.split)
        mask = every.equals(splits[0])
        for split in splits[1:]:
            mask = mask | every.equals(split)
        return np.flatnonzero(mask)

    def present_classes(self) -> tuple[str, ...]:
        """Return the classes that have at least one image, in the order of `classes`."""
        labels = count_values(self.label)
        return tuple(name for name in self.classes if name in labels)

    def counts(self) -> dict[str, int]:
        """Return the number of images of every class, including 0."""
        found = count_values(self.label)
        return {name: found[name] for name in self.classes}

    def split_counts(self) -> dict[str, int]:
        """Return the number of images in train, validation and test."""
        found = count_values(self.split)
        return {name: found[name] for name in SPLITS}

    def where(self, **equal: str | int | None) -> ImageDataset:
        """Return the rows whose columns have the given values: ``where(split="train")``."""
        if unknown := equal.keys() - {"path", *_COLUMNS}:
            raise ValueError(f"where() takes names of columns; got {', '.join(sorted(unknown))}")
        mask = np.ones(len(self), bool)
        for name, value in equal.items():
            mask &= is_equal(getattr(self, name), value)
        return self[mask]

    def with_columns(
        self,
        *,
        label: Sequence[str | None] | None = None,
        split: Sequence[str | None] | None = None,
        group: Sequence[str | None] | None = None,
        digest: Sequence[str | None] | None = None,
        size: Sequence[int] | None = None,
    ) -> ImageDataset:
        """Return the dataset with some columns replaced; None leaves a column unchanged.

        `classes` are unchanged if they contain every new label, and otherwise the new labels.
        """
        given = {"label": label, "split": split, "group": group, "digest": digest, "size": size}
        columns: dict[str, Any] = {}
        for name, values in given.items():
            if values is None:
                continue
            if len(values) != len(self):
                raise ValueError(f"{name} must have {len(self)} rows; got {len(values)}")
            columns[name] = as_column(name, values, _COLUMNS[name], len(self))
        if not {*count_values(columns.get("label", ()))} <= {*self.classes, None}:
            columns["classes"] = ()
        return replace(self, **columns)

    def with_notes(self, *notes: str) -> ImageDataset:
        """Return the dataset with further notes, without repetitions."""
        return replace(self, notes=tuple(dict.fromkeys(self.notes + notes)))

    def dataset_digest(self) -> str:
        """Return a digest of all images and labels, independent of their order and names.

        BLAKE2b, 16 bytes, as 32 hexadecimal digits; ValueError if an image has no digest yet.
        """
        if has_missing(self.digest):
            raise ValueError("every image needs a digest: fill in the digest column first")
        total = hashlib.blake2b(digest_size=16)
        for digest, label in _sorted_pairs(self.digest, self.label):
            # The label's length is included so that different tables cannot give the same bytes.
            total.update(f"{digest}:{len(label)}:{label};".encode("utf-8", "surrogatepass"))
        return total.hexdigest()


def _sorted_pairs(
    digests: Sequence[str | None], labels: Sequence[str | None]
) -> Iterable[tuple[str, str]]:
    """Return the digests, and ``=`` with the label where there is one, sorted."""
    if not isinstance(digests, BytesColumn):
        pairs = zip(map(str, digests), labels, strict=True)
        return sorted((d, "" if k is None else f"={k}") for d, k in pairs)
    coded = as_codes(labels).mapped(lambda label: "" if label is None else f"={label}")
    ranks = np.argsort(np.argsort(np.array(coded.names, object), kind="stable"), kind="stable")
    padding = np.zeros((len(digests), -digests.data.shape[1] % 8), np.uint8)
    words = np.hstack([digests.data, padding]).view(">u8").astype(np.uint64)
    order = np.lexsort((ranks[coded.codes], *words.T[::-1]))
    return zip(digests.take(order), coded.take(order), strict=True)


def exclude_rows(
    dataset: ImageDataset, rows: Collection[int] | NDArray[np.int64], reason: str, note: str
) -> ImageDataset:
    """Return the dataset without some rows, which are counted in ``ignored`` and noted.

    - `rows`: the rows to remove.
    - `reason`: key in ``ignored``.
    - `note`: a sentence for the user.
    """
    left = np.ones(len(dataset), bool)
    left[np.fromiter(rows, np.int64, len(rows))] = False
    rest, excluded = dataset[left], np.flatnonzero(~left)
    counted = dict(rest.ignored)
    counted[reason] = counted.get(reason, 0) + len(excluded)
    listed = (
        IgnoredFile(dataset.path[row], reason, dataset.label[row], dataset.size[row])
        for row in excluded[: max(0, MAX_IGNORED_FILES - len(rest.ignored_files))].tolist()
    )
    return replace(
        rest,
        ignored=dict(sorted(counted.items())),
        ignored_files=(*rest.ignored_files, *listed)[:MAX_IGNORED_FILES],
    ).with_notes(note)


def relative_paths(dataset: ImageDataset, folder: Path) -> Iterator[str]:
    """Yield the images' paths relative to a folder, with ``/``."""
    if dataset.root == folder:
        yield from dataset.path
        return
    for row in range(len(dataset)):
        if isinstance(dataset.root, str) or is_address(dataset.path[row]):
            yield join(dataset.root, dataset.path[row])
            continue
        file = str(Path(dataset.root or "").joinpath(dataset.path[row]).absolute())
        try:
            yield os.path.relpath(file, folder).replace(os.sep, "/")
        except ValueError:  # another drive on Windows
            yield file.replace(os.sep, "/")


def _rows(key: Any, n: int) -> Rows:
    """Convert a NumPy index into a table of `n` rows to a slice or an array of row numbers."""
    if isinstance(key, tuple) and len(key) == 2 and key[1] is Ellipsis:
        key = key[0]  # the form that scikit-learn uses
    if isinstance(key, slice):
        return key
    if isinstance(key, (tuple, str, bytes, type(None), type(Ellipsis))):
        raise TypeError(
            "A dataset is indexed by an integer, a slice, an array of integers or a boolean mask; "
            f"got {key!r}."
        )
    index = np.asarray(key)
    if index.size == 0 and not hasattr(key, "dtype"):
        index = index.astype(np.int64)
    if index.dtype.kind not in "iub" or index.ndim > 1 or (index.dtype == bool and not index.ndim):
        raise TypeError(
            "A dataset is indexed by integers or a boolean mask, in one dimension; got "
            f"{index.dtype} of shape {index.shape}."
        )
    if index.dtype == bool:
        if len(index) != n:
            raise IndexError(f"a mask must have {n} values; got {len(index)}")
        index = np.flatnonzero(index)
    index = np.atleast_1d(index)
    if index.size and not (-n <= int(index.min()) and int(index.max()) < n):
        raise IndexError(f"rows are 0 to {n - 1}; got {index.min()} to {index.max()}")
    index = index.astype(np.int64, copy=False)
    return np.where(index < 0, index + n, index) if index.size and index.min() < 0 else index
