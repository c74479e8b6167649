"""The input of all checks: the dataset, its measurements, features and the data folder."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from kindsight.checks.measurements import Measurements
from kindsight.dataset.ignored import (
    MAX_IGNORED_FILES,
    UNSUPPORTED_FORMAT,
    IgnoredFile,
    IgnoredFiles,
)
from kindsight.dataset.table import ImageDataset
from kindsight.dataset.walk import reason_with_extension, walk

__all__ = [
    "CheckContext",
    "FolderContents",
    "OutOfFoldPredictions",
    "Progress",
    "RowFeatures",
    "delayed",
    "scan_folder",
]

T = TypeVar("T")
Progress = Callable[[str, int, int], None]

DELAY_SECONDS = 2.0
"""Seconds before progress is shown for a stage that is usually quick."""


@dataclass(frozen=True)
class FolderContents:
    """The files of the data folder that are not in the dataset.

    Parameters
    ----------
    other_files : tuple of IgnoredFile
        Sorted by path, without hidden files, at most
        :data:`kindsight.dataset.ignored.MAX_IGNORED_FILES`; with an empty reason for an image that
        the dataset leaves out for another reason.
    """

    other_files: tuple[IgnoredFile, ...] = ()


def scan_folder(
    root: str | os.PathLike[str], paths: Iterable[str], *, follow_links: bool = True
) -> FolderContents:
    """List the files of a folder that are not in a dataset.

    Parameters
    ----------
    root : path
        The folder.
    paths : iterable of str
        Paths of the dataset, relative to `root`.
    follow_links : bool
        False: links that leave the folder are other files.
    """
    known, ignored = set(paths), IgnoredFiles()
    others: list[IgnoredFile] = []
    for listing in walk(os.fspath(root), ignored, follow_links=follow_links):
        prefix = listing.folder and listing.folder + "/"
        for reason, files in (("", listing.files), (UNSUPPORTED_FORMAT, listing.unsupported)):
            others.extend(
                IgnoredFile(prefix + name, reason and reason_with_extension(reason, name), None, n)
                for name, n in files
                if prefix + name not in known
            )
    others.extend(file for file in ignored.files if file.reason != "hidden file")
    return FolderContents(tuple(sorted(others)[:MAX_IGNORED_FILES]))


def delayed(progress: Progress) -> Progress:
    """Return a progress function that shows a stage only once it has taken two seconds."""
    begun: dict[str, float] = {}

    def show(stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - begun.setdefault(stage, now) >= DELAY_SECONDS:
            progress(stage, done, total)

    return show


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
    together : int64 array (n,), optional
        One number per row; rows with equal numbers always end up in the same split and have one
        label. Duplicates among them are sought only where they link rows of different numbers.
    progress : callable, optional
        Called with (stage, done, total) by checks that take longer than two seconds; the stage is
        ``"duplicates"``.
    """

    dataset: ImageDataset
    measurements: Measurements
    folder_contents: FolderContents | None = None
    compute_features: Callable[[], RowFeatures] | None = None
    compute_out_of_fold: Callable[[], OutOfFoldPredictions] | None = None
    feature_blocks: tuple[slice, ...] = ()
    together: NDArray[np.int64] | None = None
    progress: Progress | None = None
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
