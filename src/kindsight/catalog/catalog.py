"""The catalog: an immutable table of pictures, one row each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from kindsight.catalog.rows import as_rows, digest_of_rows, summary, take, three_channels
from kindsight.errors import CatalogError

__all__ = ["SPLITS", "Catalog"]

SPLITS = ("train", "validation", "test")
"""The parts that a picture can belong to."""

_COLUMNS = {"label": None, "split": None, "group": None, "digest": None, "size": 0}


@dataclass(frozen=True, eq=False, repr=False)
class Catalog:
    """Which pictures there are, where they lie and what they are called; one row a picture.

    A catalog never changes; every method that seems to change it returns another one. It can be
    indexed like a one-dimensional NumPy array, so scikit-learn's cross-validation works on it.
    All columns are tuples of the same length; a column that is left out holds None (0 for `size`)
    in every row.

    Parameters
    ----------
    path : tuple of str
        Where the picture lies: relative to `root`, ``/`` between the parts; as given where there
        is no root; a made-up name (``array-000012``) for a picture in memory.
    label : tuple of (str or None), optional
        The class of the picture; None where it is not known.
    split : tuple of (str or None), optional
        ``"train"``, ``"validation"``, ``"test"`` or None (not yet decided).
    group : tuple of (str or None), optional
        Pictures of one group (a patient, a scene) stay on one side of a split.
    digest : tuple of (str or None), optional
        The picture's content digest; None until it has been read.
    size : tuple of int, optional
        Bytes on disk or in memory; 0 where it is not known.
    root : Path, optional
        The folder that paths are relative to.
    arrays : tuple of uint8 arrays, optional
        The pictures themselves, where they are in memory: (height, width, 3), (height, width, 1)
        or (height, width), RGB or grey, 0-255.
    classes : tuple of str, optional
        All class names, the number of a class being its place here. Left out: the labels that
        occur, sorted by code point. A subset of a catalog keeps the classes of the whole.
    passed_over : mapping of str to int, optional
        Files and folders that are not in the catalog: how many, by reason.
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
    passed_over: Mapping[str, int] = field(default_factory=dict)
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
        object.__setattr__(self, "passed_over", dict(self.passed_over))

    @classmethod
    def from_folder(
        cls,
        path: str | Path,
        *,
        labelled: bool = True,
        min_classes: int = 2,
        classes: Sequence[str] = (),
    ) -> Catalog:
        """Make a catalog of a folder; see :func:`kindsight.catalog.sources.from_folder`."""
        from kindsight.catalog.sources import from_folder

        return from_folder(path, labelled=labelled, min_classes=min_classes, classes=classes)

    @classmethod
    def from_files(
        cls, paths: Iterable[str | Path], labels: Sequence[object] | None = None
    ) -> Catalog:
        """Make a catalog of files; see :func:`kindsight.catalog.sources.from_files`."""
        from kindsight.catalog.sources import from_files

        return from_files(paths, labels)

    @classmethod
    def from_arrays(cls, arrays: Any, labels: Sequence[object] | None = None) -> Catalog:
        """Make a catalog of arrays; see :func:`kindsight.catalog.arrays.from_arrays`."""
        from kindsight.catalog.arrays import from_arrays

        return from_arrays(arrays, labels)

    @classmethod
    def open(
        cls,
        data: str | Path,
        *,
        labelled: bool = True,
        min_classes: int = 2,
        classes: Sequence[str] = (),
        **options: Any,
    ) -> Catalog:
        r"""Make a catalog of a folder, a table or arrays in a file, as the command line does.

        `options` are those of :class:`kindsight.catalog.DataOptions`, such as
        ``label_from=r"^(.+?)_\d+"``; the rest is as in :func:`kindsight.catalog.open_catalog`.
        """
        from kindsight.catalog.opening import open_catalog
        from kindsight.catalog.options import DataOptions

        chosen = DataOptions(**options)
        return open_catalog(
            data, chosen, labelled=labelled, min_classes=min_classes, classes=classes
        )

    def write_csv(self, path: str | Path) -> None:
        """Write a table of paths; see :func:`kindsight.catalog.writing.write_catalog`."""
        from kindsight.catalog.writing import write_catalog

        write_catalog(self, path)

    def __len__(self) -> int:
        return len(self.path)

    @property
    def shape(self) -> tuple[int]:
        """``(number of pictures,)``, as a one-dimensional array has it."""
        return (len(self.path),)

    def __getitem__(self, key: Any) -> Catalog:
        """Return the rows that `key` names, by NumPy's rules; an integer gives one row."""
        rows = as_rows(key, len(self))
        names = ("path", *_COLUMNS) if self.arrays is None else ("path", *_COLUMNS, "arrays")
        columns: dict[str, Any] = {name: take(getattr(self, name), rows) for name in names}
        return replace(self, **columns)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Catalog):
            return NotImplemented
        names = ("path", *_COLUMNS, "root", "classes", "passed_over", "notes")
        if any(getattr(self, name) != getattr(other, name) for name in names):
            return False
        if self.arrays is None or other.arrays is None:
            return self.arrays is other.arrays
        return all(map(np.array_equal, self.arrays, other.arrays))

    __hash__ = None  # type: ignore[assignment]  # as for arrays: too much to look at

    def __repr__(self) -> str:
        return f"Catalog({summary(len(self), self.counts(), self.split_counts())})"

    def __array__(self, *_: object, **__: object) -> NoReturn:
        # NumPy would otherwise take the rows apart for ever.
        raise TypeError("A Catalog is not an array. Take catalog.path or catalog.targets.")

    def file(self, i: int) -> Path:
        """Return the absolute path of row `i`; CatalogError where the picture is in memory."""
        if self.arrays is not None:
            raise CatalogError(
                f"Only a picture on disk has a file. Received: row {i} of a catalog of arrays. "
                "Use load(i)."
            )
        return (self.root or Path()).joinpath(self.path[i]).absolute()

    def load(self, i: int) -> bytes | NDArray[np.uint8]:
        """Return the picture of row `i`, not decoded: the file's bytes, or the array in memory.

        An array is (height, width, 3) uint8, RGB 0-255, grey ones made RGB. PictureError if the
        file is missing, empty, too large or may not be read.
        """
        if self.arrays is not None:
            return three_channels(self.arrays[i])
        from kindsight.pictures.read import read_bytes

        return read_bytes(self.file(i))

    @property
    def targets(self) -> NDArray[np.int64]:
        """The class number of each picture: (n,) int64, -1 where unlabelled."""
        number: dict[str | None, int] = {name: k for k, name in enumerate(self.classes)}
        return np.fromiter((number.get(label, -1) for label in self.label), np.int64, len(self))

    def present_classes(self) -> tuple[str, ...]:
        """Return the classes that have at least one picture here, in the order of `classes`."""
        labels = set(self.label)
        return tuple(name for name in self.classes if name in labels)

    def counts(self) -> dict[str, int]:
        """Return the number of pictures of every class, those of absent classes being 0."""
        found = Counter(self.label)
        return {name: found[name] for name in self.classes}

    def split_counts(self) -> dict[str, int]:
        """Return the number of pictures in train, validation and test."""
        found = Counter(self.split)
        return {name: found[name] for name in SPLITS}

    def where(self, **equal: str | int | None) -> Catalog:
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
    ) -> Catalog:
        """Return the same catalog with other columns; what is None stays as it is.

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

    def with_notes(self, *notes: str) -> Catalog:
        """Return the same catalog with further notes; none is said twice."""
        return replace(self, notes=tuple(dict.fromkeys(self.notes + notes)))

    def digest_of_data(self) -> str:
        """Return one digest over all pictures and their labels, whatever their order and names.

        BLAKE2b, 16 bytes, as 32 hexadecimal digits; ValueError if a picture has no digest yet.
        """
        if None in self.digest:
            raise ValueError("every picture needs a digest: fill the digest column first")
        return digest_of_rows(zip(map(str, self.digest), self.label, strict=True))
