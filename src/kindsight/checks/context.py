"""The input of all checks: the dataset, its measurements, features and the data folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from kindsight.checks.measurements import Measurements
from kindsight.dataset.names import why_file_is_ignored, why_folder_is_ignored
from kindsight.dataset.table import ImageDataset

__all__ = [
    "MAX_OTHER_FILES",
    "CheckContext",
    "FolderContents",
    "OtherFile",
    "OutOfFoldPredictions",
    "RowFeatures",
    "scan_folder",
]

T = TypeVar("T")

MAX_OTHER_FILES = 100_000
"""Limit of the files listed by :func:`scan_folder`; further files are not listed."""


@dataclass(frozen=True)
class OtherFile:
    """A file of the data folder that is not in the dataset."""

    path: str  # relative to the data folder, with ``/`` as separator
    # why it was skipped, as in ``ImageDataset.ignored``; ``"link"`` for links; empty for an image
    # that the dataset leaves out for another reason
    reason: str
    size: int  # bytes


@dataclass(frozen=True)
class FolderContents:
    """The files of the data folder that are not in the dataset.

    Parameters
    ----------
    other_files : tuple of OtherFile
        Sorted by path, without hidden files, at most :data:`MAX_OTHER_FILES`.
    """

    other_files: tuple[OtherFile, ...] = ()


def scan_folder(root: str | os.PathLike[str], paths: Iterable[str]) -> FolderContents:
    """List the files of a folder that are not in a dataset; links are not followed.

    Parameters
    ----------
    root : path
        The folder.
    paths : iterable of str
        Paths of the dataset, relative to `root`.
    """
    known = set(paths)
    others: list[OtherFile] = []
    pending = [""]
    start = os.fspath(root)
    while pending:
        folder = pending.pop()
        try:
            entries = sorted(os.scandir(os.path.join(start, folder)), key=lambda e: e.name)  # noqa: PTH118
        except OSError:
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir(follow_symlinks=False):
                if why_folder_is_ignored(entry.name) is None:
                    pending.append(path)
            elif path not in known and not entry.name.startswith("."):
                if len(others) >= MAX_OTHER_FILES:
                    continue
                reason = "link" if entry.is_symlink() else why_file_is_ignored(entry.name) or ""
                others.append(OtherFile(path, reason, _size(entry)))
    return FolderContents(tuple(sorted(others, key=lambda other: other.path)))


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except OSError:
        return 0


class RowFeatures(NamedTuple):
    """Features of the readable images.

    Attributes
    ----------
    rows : int64 array (m,)
        Rows of the dataset, ascending.
    vectors : float32 array (m, width)
        Features of each row.
    """

    rows: NDArray[np.int64]
    vectors: NDArray[np.float32]


class OutOfFoldPredictions(NamedTuple):
    """Predictions for labelled images by classifiers that were not trained on them.

    Attributes
    ----------
    rows : int64 array (m,)
        Rows of the dataset, ascending.
    probabilities : float64 array (m, classes)
        In the order of the dataset's classes; rows sum to 1.
    """

    rows: NDArray[np.int64]
    probabilities: NDArray[np.float64]


@dataclass
class CheckContext:
    """Everything that checks read; features and predictions are computed on first access.

    Parameters
    ----------
    dataset : ImageDataset
        All images, unreadable ones included, with their content digests.
    measurements : Measurements
        One row per row of the dataset.
    folder_contents : FolderContents, optional
        The other files of the data folder; None if the data are not a folder.
    compute_features : callable, optional
        Returns :class:`RowFeatures`; None in a cheap run.
    compute_out_of_fold : callable, optional
        Returns :class:`OutOfFoldPredictions`; None in a cheap run.
    feature_blocks : tuple of slice, optional
        Columns of the features by the layer they come from.
    """

    dataset: ImageDataset
    measurements: Measurements
    folder_contents: FolderContents | None = None
    compute_features: Callable[[], RowFeatures] | None = None
    compute_out_of_fold: Callable[[], OutOfFoldPredictions] | None = None
    feature_blocks: tuple[slice, ...] = ()
    _cache: dict[str, Any] = field(default_factory=dict, repr=False)

    def cached(self, name: str, compute: Callable[[], T]) -> T:
        """Return the result of `compute`, which is called once per name and shared by checks."""
        if name not in self._cache:
            self._cache[name] = compute()
        found: T = self._cache[name]
        return found

    @cached_property
    def readable_rows(self) -> NDArray[np.int64]:
        """Rows of the readable images, int64 (m,), ascending."""
        return np.flatnonzero(self.measurements.readable).astype(np.int64)

    @cached_property
    def features(self) -> RowFeatures | None:
        """Features of the readable images; None in a cheap run."""
        return self.compute_features() if self.compute_features is not None else None

    @cached_property
    def out_of_fold(self) -> OutOfFoldPredictions | None:
        """Out-of-fold predictions; None in a cheap run."""
        return self.compute_out_of_fold() if self.compute_out_of_fold is not None else None
