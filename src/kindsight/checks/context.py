"""What a check may look at."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from kindsight.checks.measurements import Measurements
from kindsight.dataset.names import file_is_passed_over, folder_is_passed_over
from kindsight.dataset.table import ImageDataset

__all__ = [
    "MAX_OTHERS",
    "CheckContext",
    "FolderContents",
    "OtherFile",
    "OutOfFoldPredictions",
    "RowFeatures",
    "scan_folder",
]

# SECTION: What lies in the data's folder beside the images of the dataset.

MAX_OTHERS = 100_000
"""Files beside the images that are remembered; further ones are counted only."""


@dataclass(frozen=True)
class OtherFile:
    """A file in the data's folder that is not in the dataset.

    Parameters
    ----------
    path : str
        Relative to the data's folder, ``/`` between the parts.
    reason : str
        Why it was passed over, as in ``ImageDataset.ignored``; ``"link"`` for every link;
        empty for
        an image that the dataset leaves out for another reason.
    size : int
        Bytes.
    """

    path: str
    reason: str
    size: int


@dataclass(frozen=True)
class FolderContents:
    """What lies in the data's folder beside the images of the dataset.

    Parameters
    ----------
    others : tuple of OtherFile
        Files that are not in the dataset, sorted by path, hidden ones left out.
    folders : tuple of str
        All folders, also empty ones, relative to the data's folder.
    uncounted : int
        Files beyond :data:`MAX_OTHERS`.
    """

    others: tuple[OtherFile, ...] = ()
    folders: tuple[str, ...] = ()
    uncounted: int = 0


def scan_folder(root: str | os.PathLike[str], paths: Iterable[str]) -> FolderContents:
    """Look what lies in a folder beside the images of a dataset; links are not followed.

    Parameters
    ----------
    root : path
        The folder.
    paths : iterable of str
        The dataset's paths, relative to it.
    """
    known = set(paths)
    others: list[OtherFile] = []
    folders: list[str] = []
    uncounted = 0
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
                if folder_is_passed_over(entry.name) is None:
                    folders.append(path)
                    pending.append(path)
            elif path not in known and not entry.name.startswith("."):
                if len(others) >= MAX_OTHERS:
                    uncounted += 1
                    continue
                reason = "link" if entry.is_symlink() else file_is_passed_over(entry.name) or ""
                others.append(OtherFile(path, reason, _size(entry)))
    others.sort(key=lambda other: other.path)
    return FolderContents(tuple(others), tuple(sorted(folders)), uncounted)


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except OSError:
        return 0


T = TypeVar("T")


class RowFeatures(NamedTuple):
    """The features of those rows of a dataset that can be read.

    Attributes
    ----------
    rows : int64 array (m,)
        Which rows of the context's dataset, ascending.
    vectors : float32 array (m, width)
        Their features.
    """

    rows: NDArray[np.int64]
    vectors: NDArray[np.float32]


class OutOfFoldPredictions(NamedTuple):
    """What a classifier that has not seen an image says of it, for labelled rows.

    Attributes
    ----------
    rows : int64 array (m,)
        Which rows of the context's dataset, ascending.
    probabilities : float64 array (m, classes)
        In the order of the dataset's classes; each row's sum is 1.
    """

    rows: NDArray[np.int64]
    probabilities: NDArray[np.float64]


@dataclass
class CheckContext:
    """All that checks look at; what is costly is made when it is first asked for.

    Parameters
    ----------
    dataset : ImageDataset
        All images, also those that cannot be read; digests filled in where there are any.
    measurements : Measurements
        One row a row of the dataset.
    folder_contents : FolderContents, optional
        What else lies in the data's folder; None where the data are not a folder.
    compute_features : callable, optional
        Gives :class:`RowFeatures`. None where nobody asked for what is costly.
    compute_out_of_fold : callable, optional
        Gives :class:`OutOfFoldPredictions`; None likewise.
    feature_blocks : tuple of slice, optional
        Which of the features' numbers belong together, such as the means at the end of a stage.
    """

    dataset: ImageDataset
    measurements: Measurements
    folder_contents: FolderContents | None = None
    compute_features: Callable[[], RowFeatures] | None = None
    compute_out_of_fold: Callable[[], OutOfFoldPredictions] | None = None
    feature_blocks: tuple[slice, ...] = ()
    _remembered: dict[str, Any] = field(default_factory=dict, repr=False)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Return what `make` gives; called again with the same name, the same without making it.

        For what several checks need: the first that asks for it pays.
        """
        if name not in self._remembered:
            self._remembered[name] = make()
        found: T = self._remembered[name]
        return found

    @cached_property
    def readable_rows(self) -> NDArray[np.int64]:
        """The rows that can be read, int64 (m,), ascending."""
        return np.flatnonzero(self.measurements.readable).astype(np.int64)

    @cached_property
    def features(self) -> RowFeatures | None:
        """The features; None where they are not to be had."""
        return self.compute_features() if self.compute_features is not None else None

    @cached_property
    def out_of_fold(self) -> OutOfFoldPredictions | None:
        """Out-of-fold probabilities; None where they are not to be had."""
        return self.compute_out_of_fold() if self.compute_out_of_fold is not None else None
