"""The dataset: an immutable table of images, one row each."""

from __future__ import annotations

import hashlib
import operator
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from kindsight import dataset as package
from kindsight.dataset.labels import class_indices
from kindsight.dataset.names import images, shown
from kindsight.errors import DatasetError

__all__ = [
    "SPLITS",
    "ImageDataset",
    "as_rows",
    "digest_of_rows",
    "exclude_rows",
    "summary",
    "take",
    "three_channels",
]

# SECTION: Picking rows by NumPy's rules out of tuples, and showing a table in one line.

_T = TypeVar("_T")
_SHOWN_CLASSES = 6


def as_rows(key: Any, n: int) -> slice | list[int]:
    """Turn an index into a table of `n` rows into a slice or a list of row numbers.

    Parameters
    ----------
    key : int, slice, integer array, boolean mask or (one of these, Ellipsis)
        As for a one-dimensional NumPy array; scikit-learn uses the form with the ellipsis.

    Raises
    ------
    IndexError
        If a row does not exist, or a mask has another length than `n`.
    TypeError
        If `key` is none of these.
    """
    if isinstance(key, tuple) and len(key) == 2 and key[1] is Ellipsis:
        key = key[0]
    if isinstance(key, slice):
        return key
    if isinstance(key, (tuple, str, bytes, type(None), type(Ellipsis))):
        raise TypeError(
            "A dataset is indexed by an integer, a slice, an array of integers or a mask. "
            f"Received: {key!r}"
        )
    index = np.asarray(key)
    if index.size == 0 and not hasattr(key, "dtype"):
        index = index.astype(np.int64)
    if index.dtype.kind not in "iub" or index.ndim > 1 or (index.dtype == bool and not index.ndim):
        raise TypeError(
            "A dataset is indexed by integers or a mask, in one dimension. "
            f"Received: {index.dtype} of shape {index.shape}"
        )
    if index.dtype == bool:
        if len(index) != n:
            raise IndexError(f"a mask must have {n} values. Received: {len(index)}")
        index = np.flatnonzero(index)
    index = np.atleast_1d(index)
    if index.size and not (-n <= int(index.min()) and int(index.max()) < n):
        raise IndexError(f"rows go from 0 to {n - 1}. Received: {index.min()} to {index.max()}")
    rows: list[int] = index.tolist()
    return rows


def take(column: Sequence[_T], rows: slice | list[int]) -> tuple[_T, ...]:
    """Return the rows of a column."""
    if isinstance(rows, slice):
        return tuple(column[rows])
    if len(rows) > 1:
        picked: tuple[_T, ...] = operator.itemgetter(*rows)(column)
        return picked
    return tuple(column[row] for row in rows)


def three_channels(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image of shape (h, w, 3), (h, w, 1) or (h, w) as (h, w, 3)."""
    if image.ndim == 2:
        image = image[:, :, None]
    return image if image.shape[2] == 3 else np.repeat(image, 3, axis=2)


def digest_of_rows(pairs: Iterable[tuple[str, str | None]]) -> str:
    """Return one digest over (digest, label) pairs, whatever their order: 32 hexadecimal digits."""
    total = hashlib.blake2b(digest_size=16)
    for digest, label in sorted((d, "" if k is None else f"={k}") for d, k in pairs):
        # A label comes with its length, so that no two tables give the same bytes.
        total.update(f"{digest}:{len(label)}:{label};".encode("utf-8", "surrogatepass"))
    return total.hexdigest()


def summary(n: int, classes: Mapping[str, int], splits: Mapping[str, int]) -> str:
    """Describe a table in one line: ``1,399 images, 2 classes: cat 700, dog 699``."""
    text = images(n)
    if classes:
        names = [f"{shown(name)[1:-1]} {count:,}" for name, count in classes.items()]
        if len(names) > _SHOWN_CLASSES:
            names[_SHOWN_CLASSES - 1 :] = ["..."]
        text += f", {len(classes)} class{'' if len(classes) == 1 else 'es'}: {', '.join(names)}"
    parts = [f"{name} {count:,}" for name, count in splits.items() if count]
    return f"{text}; {', '.join(parts)}" if parts else text


SPLITS = ("train", "validation", "test")
"""The parts that an image can belong to."""

_COLUMNS = {"label": None, "split": None, "group": None, "digest": None, "size": 0}


@dataclass(frozen=True, eq=False, repr=False)
class ImageDataset:
    """Which images there are, where they lie and what they are called; one row an image.

    A dataset never changes; every method that seems to change it returns another one. It can be
    indexed like a one-dimensional NumPy array, so scikit-learn's cross-validation works on it.
    All columns are tuples of the same length; a column that is left out holds None (0 for `size`)
    in every row.

    Parameters
    ----------
    path : tuple of str
        Where the image lies: relative to `root`, ``/`` between the parts; as given where there
        is no root; a made-up name (``array-000012``) for an image in memory.
    label : tuple of (str or None), optional
        The class of the image; None where it is not known.
    split : tuple of (str or None), optional
        ``"train"``, ``"validation"``, ``"test"`` or None (not yet decided).
    group : tuple of (str or None), optional
        Images of one group (a patient, a scene) stay on one side of a split.
    digest : tuple of (str or None), optional
        The image's content digest; None until it has been read.
    size : tuple of int, optional
        Bytes on disk or in memory; 0 where it is not known.
    root : Path, optional
        The folder that paths are relative to.
    arrays : tuple of uint8 arrays, optional
        The images themselves, where they are in memory: (height, width, 3), (height, width, 1)
        or (height, width), RGB or grey, 0-255.
    classes : tuple of str, optional
        All class names, the number of a class being its place here. Left out: the labels that
        occur, sorted by code point. A subset of a dataset keeps the classes of the whole.
    ignored : mapping of str to int, optional
        Files and folders that are not in the dataset: how many, by reason.
    notes : tuple of str, optional
        Findings worth saying, one sentence each.

    Raises
    ------
    ValueError
        If columns differ in length, or hold an unknown split or a label that is no class.
    """

    path: tuple[str, ...]
    label: tuple[str | None, ...] = ()
    split: tuple[str | None, ...] = ()
    group: tuple[str | None, ...] = ()
    digest: tuple[str | None, ...] = ()
    size: tuple[int, ...] = ()
    root: Path | None = None
    arrays: tuple[NDArray[np.uint8], ...] | None = None
    classes: tuple[str, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Fill the columns that were left out and hold the table to its rules."""
        n = len(self.path)
        for name, default in _COLUMNS.items():
            column = tuple(getattr(self, name)) or (default,) * n
            object.__setattr__(self, name, column)
            if len(column) != n:
                raise ValueError(
                    f"every column must have {n} rows. Received: {name}, {len(column)}"
                )
        if self.arrays is not None and len(self.arrays) != n:
            raise ValueError(f"there must be {n} arrays. Received: {len(self.arrays)}")
        if unknown := set(self.split) - {*SPLITS, None}:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}. Received: {unknown}")
        labels = {label for label in self.label if label is not None}
        object.__setattr__(self, "classes", tuple(self.classes) or tuple(sorted(labels)))
        if len(set(self.classes)) != len(self.classes) or not labels <= set(self.classes):
            raise ValueError(
                f"classes must be unique and hold every label. Received: {self.classes}"
            )
        object.__setattr__(self, "ignored", dict(self.ignored))

    @classmethod
    def from_folder(
        cls,
        path: str | Path,
        *,
        labelled: bool = True,
        min_classes: int = 2,
        classes: Sequence[str] = (),
    ) -> ImageDataset:
        """Make a dataset of a folder; see :func:`kindsight.dataset.loaders.sources.from_folder`."""
        return package.from_folder(
            path, labelled=labelled, min_classes=min_classes, classes=classes
        )

    @classmethod
    def from_files(
        cls, paths: Iterable[str | Path], labels: Sequence[object] | None = None
    ) -> ImageDataset:
        """Make a dataset of files; see :func:`kindsight.dataset.loaders.sources.from_files`."""
        return package.from_files(paths, labels)

    @classmethod
    def from_arrays(cls, arrays: Any, labels: Sequence[object] | None = None) -> ImageDataset:
        """Make a dataset of arrays; see :func:`kindsight.dataset.loaders.arrays.from_arrays`."""
        return package.from_arrays(arrays, labels)

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
        r"""Make a dataset of a folder, a table or arrays in a file, as the command line does.

        `options` are those of :class:`kindsight.dataset.DataOptions`, such as
        ``label_from=r"^(.+?)_\d+"``; the rest is as in :func:`kindsight.dataset.open_dataset`.
        """
        chosen = package.DataOptions(**options)
        return package.open_dataset(
            data, chosen, labelled=labelled, min_classes=min_classes, classes=classes
        )

    def write_csv(self, path: str | Path) -> None:
        """Write a table of paths; see :func:`kindsight.dataset.write_table.write_dataset`."""
        package.write_dataset(self, path)

    def __len__(self) -> int:
        return len(self.path)

    @property
    def shape(self) -> tuple[int]:
        """``(number of images,)``, as a one-dimensional array has it."""
        return (len(self.path),)

    def __getitem__(self, key: Any) -> ImageDataset:
        """Return the rows that `key` names, by NumPy's rules; an integer gives one row."""
        rows = as_rows(key, len(self))
        names = ("path", *_COLUMNS) if self.arrays is None else ("path", *_COLUMNS, "arrays")
        columns: dict[str, Any] = {name: take(getattr(self, name), rows) for name in names}
        return replace(self, **columns)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ImageDataset):
            return NotImplemented
        names = ("path", *_COLUMNS, "root", "classes", "ignored", "notes")
        if any(getattr(self, name) != getattr(other, name) for name in names):
            return False
        if self.arrays is None or other.arrays is None:
            return self.arrays is other.arrays
        return all(map(np.array_equal, self.arrays, other.arrays))

    __hash__ = None  # type: ignore[assignment]  # as for arrays: too much to look at

    def __repr__(self) -> str:
        return f"ImageDataset({summary(len(self), self.counts(), self.split_counts())})"

    def __array__(self, *_: object, **__: object) -> NoReturn:
        # NumPy would otherwise take the rows apart for ever.
        raise TypeError("An ImageDataset is not an array. Take dataset.path or dataset.targets.")

    def file(self, i: int) -> Path:
        """Return the absolute path of row `i`; DatasetError where the image is in memory."""
        if self.arrays is not None:
            raise DatasetError(
                f"Only an image on disk has a file. Received: row {i} of a dataset of arrays. "
                "Use load(i)."
            )
        return (self.root or Path()).joinpath(self.path[i]).absolute()

    def load(self, i: int) -> bytes | NDArray[np.uint8]:
        """Return the image of row `i`, not decoded: the file's bytes, or the array in memory.

        An array is (height, width, 3) uint8, RGB 0-255, grey ones made RGB. ImageError if the
        file is missing, empty, too large or may not be read.
        """
        if self.arrays is not None:
            return three_channels(self.arrays[i])
        from kindsight.images.read import read_bytes

        return read_bytes(self.file(i))

    @property
    def targets(self) -> NDArray[np.int64]:
        """The class number of each image: (n,) int64, -1 where unlabelled."""
        return class_indices(self.label, self.classes, missing=-1)

    def present_classes(self) -> tuple[str, ...]:
        """Return the classes that have at least one image here, in the order of `classes`."""
        labels = set(self.label)
        return tuple(name for name in self.classes if name in labels)

    def counts(self) -> dict[str, int]:
        """Return the number of images of every class, those of absent classes being 0."""
        found = Counter(self.label)
        return {name: found[name] for name in self.classes}

    def split_counts(self) -> dict[str, int]:
        """Return the number of images in train, validation and test."""
        found = Counter(self.split)
        return {name: found[name] for name in SPLITS}

    def where(self, **equal: str | int | None) -> ImageDataset:
        """Return the rows whose columns have the given values: ``where(split="train")``."""
        if unknown := equal.keys() - {"path", *_COLUMNS}:
            raise ValueError(f"where() takes columns. Received: {', '.join(sorted(unknown))}")
        keep = np.ones(len(self), bool)
        for name, value in equal.items():
            keep &= np.fromiter((cell == value for cell in getattr(self, name)), bool, len(self))
        return self[keep]

    def with_columns(
        self,
        *,
        label: Sequence[str | None] | None = None,
        split: Sequence[str | None] | None = None,
        group: Sequence[str | None] | None = None,
        digest: Sequence[str | None] | None = None,
        size: Sequence[int] | None = None,
    ) -> ImageDataset:
        """Return the same dataset with other columns; what is None stays as it is.

        `classes` stay when every new label is one of them, and are otherwise made anew.
        """
        given = {"label": label, "split": split, "group": group, "digest": digest, "size": size}
        columns: dict[str, Any] = {k: tuple(v) for k, v in given.items() if v is not None}
        for name, column in columns.items():
            if len(column) != len(self):
                raise ValueError(f"{name} must have {len(self)} rows. Received: {len(column)}")
        if not {*columns.get("label", ())} <= {*self.classes, None}:
            columns["classes"] = ()  # made anew from the labels
        return replace(self, **columns)

    def with_notes(self, *notes: str) -> ImageDataset:
        """Return the same dataset with further notes; none is said twice."""
        return replace(self, notes=tuple(dict.fromkeys(self.notes + notes)))

    def dataset_digest(self) -> str:
        """Return one digest over all images and their labels, whatever their order and names.

        BLAKE2b, 16 bytes, as 32 hexadecimal digits; ValueError if an image has no digest yet.
        """
        if None in self.digest:
            raise ValueError("every image needs a digest: fill the digest column first")
        return digest_of_rows(zip(map(str, self.digest), self.label, strict=True))


# SECTION: Leaving rows out of a dataset: counted by reason, said in a note, never in silence.


def exclude_rows(
    dataset: ImageDataset, rows: Collection[int], reason: str, note: str
) -> ImageDataset:
    """Return a dataset without some of its rows.

    Parameters
    ----------
    dataset : ImageDataset
        Of which a part is kept.
    rows : collection of int
        The rows that go.
    reason : str
        What they are counted as in ``ignored``.
    note : str
        The sentence that says so.
    """
    gone = set(rows)
    kept = dataset[[row for row in range(len(dataset)) if row not in gone]]
    counted = dict(kept.ignored)
    counted[reason] = counted.get(reason, 0) + len(gone)
    return replace(kept, ignored=dict(sorted(counted.items()))).with_notes(note)
