"""The input of all checks: dataset, measurements, features and their principal components."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from kindsight import random_stream
from kindsight.checks.measurements import Measurements
from kindsight.dataset.names import (
    MAX_IGNORED_FILES,
    UNSUPPORTED_FORMAT,
    IgnoredFile,
    IgnoredFiles,
)
from kindsight.dataset.table import ImageDataset
from kindsight.dataset.walk import reason_with_extension, walk

__all__ = [
    "CheckContext", "FolderContents", "OutOfFoldPredictions", "Progress", "RowFeatures", "Vectors",
    "delayed", "principal_components", "scan_folder",
]  # fmt: skip

Floats = NDArray[np.float32]

COMPONENTS = 64

OVERSAMPLED = 32
"""Extra random directions of the randomised decomposition."""

SAMPLE = 4096
"""Rows from which the components are computed; more rows change them little."""

BLOCK = 4096
"""Rows projected at once."""


def principal_components(
    vectors: Vectors,
    blocks: Sequence[slice] = (),
    components: int = COMPONENTS,
    seed: int = 0,
    rows: NDArray[np.int64] | None = None,
    dtype: type[np.floating] = np.float32,
    progress: Callable[[int], None] = lambda done: None,
) -> Floats:
    """Project features on their principal components, with equal weight for each block.

    Each block of columns (the features of one layer) is scaled to unit length per image, then each
    column is standardised. The components come from a randomised singular value decomposition
    (Halko, Martinsson, Tropp 2011).

    Parameters
    ----------
    vectors : Vectors
        Features, (m, width); they are read in blocks of rows.
    blocks : sequence of slice, optional
        Columns that belong together. Default: one block.
    components : int
        Maximum number of components.
    seed : int
        Seed of the sample and of the random directions.
    rows : int64 array (n,), optional
        The rows that are used. Default: all.
    dtype : type
        dtype of the result.
    progress : callable, optional
        Called with the number of rows that are projected.

    Returns
    -------
    array (n, components or fewer)
    """
    rows = np.arange(len(vectors)) if rows is None else rows
    n, width = len(rows), vectors.shape[1]
    blocks = list(blocks) or [slice(0, width)]
    sample = np.sort(random_stream.permutation(seed, "check space", 0, n)[:SAMPLE])
    known = _unit_blocks(vectors[rows[sample]], blocks)
    mean, spread = known.mean(axis=0), known.std(axis=0)
    spread[spread < 1e-6] = np.inf  # constant columns carry no information
    known = (known - mean) / spread
    directions = _directions(known, min(components, *known.shape), seed)
    found = np.empty((n, directions.shape[1]), dtype)
    for at in range(0, n, BLOCK):
        some = (_unit_blocks(vectors[rows[at : at + BLOCK]], blocks) - mean) / spread
        found[at : at + BLOCK] = some @ directions
        progress(min(n, at + BLOCK))
    return found


def _unit_blocks(vectors: Floats, blocks: Sequence[slice]) -> Floats:
    scaled = vectors.astype(np.float32, copy=True)
    for block in blocks:
        columns = scaled[:, block]
        columns /= np.linalg.norm(columns, axis=1, keepdims=True) + np.float32(1e-6)
    return scaled


def _directions(rows: Floats, count: int, seed: int) -> Floats:
    """Return the first right singular vectors, float32 (width, count)."""
    width = rows.shape[1]
    draws = random_stream.uniforms(
        seed, "check directions", 0, np.arange(width), count + OVERSAMPLED
    )
    sample = rows @ (draws - 0.5).astype(np.float32)
    for _ in range(2):
        basis, _ = np.linalg.qr(sample)
        sample = rows @ (rows.T @ basis)
    basis, _ = np.linalg.qr(sample)
    _, _, right = np.linalg.svd(basis.T @ rows, full_matrices=False)
    return np.ascontiguousarray(right[:count].T, np.float32)


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
        :data:`kindsight.dataset.names.MAX_IGNORED_FILES`; with an empty reason for an image that
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


def _not_shown(stage: str, done: int, total: int) -> None:
    """Show nothing."""


class Vectors(Protocol):
    """Features in memory, or read where they are indexed: float32 (m, width)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(m, width)."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any:
        """Return the features of some rows."""


class RowFeatures(NamedTuple):
    """Features of the readable images.

    Attributes
    ----------
    rows : int64 array (m,)
        Rows of the dataset, ascending.
    vectors : Vectors
        Features of each row, (m, width).
    """

    rows: NDArray[np.int64]
    vectors: Vectors


class OutOfFoldPredictions(NamedTuple):
    """Predictions for labelled images by classifiers that were not trained on them.

    Attributes
    ----------
    rows : int64 array (m,)
        Rows of the dataset, ascending.
    probabilities : float32 array (m, classes)
        In the order of the dataset's classes; rows sum to 1.
    """

    rows: NDArray[np.int64]
    probabilities: NDArray[np.float32]


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
        label. The search for duplicates skips rows with equal numbers, unless they link rows with
        different numbers.
    progress : callable, optional
        Called with (stage, done, total) by checks that take longer than two seconds; the stages are
        ``"duplicates"``, ``"neighbours"``, ``"crops"``, ``"alignment"``, ``"outliers"`` and
        ``"out of fold"``.
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

    @property
    def late_progress(self) -> Progress:
        """Progress function that shows a stage only after it has taken two seconds."""
        return _not_shown if self.progress is None else delayed(self.progress)

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
