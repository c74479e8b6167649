"""Decode and resize the images of a dataset that a table lacks.

Results (features, resized pixels) are cached by file content. Names, folders and splits therefore
do not matter, copies are processed once, and a file with unchanged size and times is not even read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kindsight.cache.folder import Cache
from kindsight.dataset.reading.on_cluster import Cluster
from kindsight.dataset.reading.process_files import (
    ImageTable,
    ProcessedFiles,
    Progress,
    process_files,
)
from kindsight.dataset.table import ImageDataset
from kindsight.distributed import Shared
from kindsight.errors import ImageError
from kindsight.images import InputSpec, read_loaded, resize_image

__all__ = [
    "ClusterBuilder", "DecodeObserver", "ProcessedDataset", "Progress", "RowBuilder",
    "WorkerObserver", "process_images",
]  # fmt: skip


class RowBuilder(Protocol):
    """Computes the rows of an :class:`ImageTable` from pixels; called on many threads."""

    def make(self, digest: str, pixels: NDArray[np.uint8], size: tuple[int, int]) -> Any:
        """Return an image's row; ImageError if it is unusable after all.

        - `pixels`: uint8 array (height, width, 3); resized.
        - `size`: (height, width); before resizing.
        """

    def failed(self, digest: str, error: ImageError) -> Any:
        """Return the row of an unusable image."""


@dataclass(frozen=True)
class ClusterBuilder:
    """Where the images of a dataset are resized and processed, and how.

    - `on`: as for :func:`kindsight.distributed.open_executor`, other than ``"local"``.
    - `make`: called with a function that shares a large value with the workers; returns a small
      picklable function that makes a :class:`RowBuilder` in each worker process.
    """

    on: str
    make: Callable[[Callable[[Any], Shared]], Callable[[], RowBuilder]]


class DecodeObserver(Protocol):
    """Decodes images in place of :func:`kindsight.images.read_image`, and also uses them."""

    def decode(self, digest: str, data: bytes, spec: InputSpec) -> NDArray[np.uint8]:
        """Return the decoded image; called on many threads.

        - `data`: bytes; the file.
        - `spec`: the size to which it will be resized, and its range of values.

        Raises
        ------
        ImageError
            As that function.
        """

    def for_worker(self) -> Callable[[], WorkerObserver]:
        """Return a small picklable function that makes an observer in a worker process."""

    def add(self, collected: list[Any]) -> None:
        """Add the results of observers in worker processes."""


class WorkerObserver(Protocol):
    """A :class:`DecodeObserver` in a worker process of a cluster."""

    def decode(self, digest: str, data: bytes, spec: InputSpec) -> NDArray[np.uint8]:
        """Return the decoded image; see :meth:`DecodeObserver.decode`."""

    def collected(self) -> list[Any]:
        """Return what was collected since the last call."""


@dataclass(frozen=True)
class ProcessedDataset:
    """Result of :func:`process_images`."""

    dataset: ImageDataset  # the readable images, with digests
    problems: tuple[ImageError, ...]  # skipped images, with their paths
    problem_labels: tuple[str | None, ...]  # labels of the skipped images
    # number of distinct images that were processed, and that were cached
    computed: int
    reused: int


def process_images(  # noqa: PLR0913 (the last ones have defaults)
    dataset: ImageDataset,
    spec: InputSpec,
    cache: Cache,
    table: ImageTable,
    lookup_table: ImageTable,
    builder: Callable[[int], RowBuilder],
    threads: int,
    progress: Progress | None = None,
    observer: DecodeObserver | None = None,
    *,
    batch: int = 1,
    cluster: ClusterBuilder | None = None,
) -> ProcessedDataset:
    """Ensure that a table has a row for every image of a dataset, computed from resized pixels.

    - `dataset`, `cache`, `table`, `lookup_table`, `threads`, `progress`, `batch`: as in
      :func:`kindsight.dataset.reading.process_files.process_files`.
    - `spec`: how images are resized.
    - `builder`: returns a RowBuilder; called with the number of images to process, if any.
    - `observer`: decodes the images.
    - `cluster`: where images are processed, and how, in place of `builder` and `threads`.

    Raises
    ------
    CacheError
        If the cache cannot be used; DamagedTableError if it is damaged: call again.
    """

    def processor(count: int) -> _Resizer:
        return _Resizer(spec, builder(count), observer)

    files = process_files(
        dataset,
        cache,
        table,
        lookup_table,
        processor,
        threads,
        progress,
        batch=batch,
        detect_fast=False,
        cluster=_resized_on(cluster, spec, observer),
    )
    return _skip_unreadable(dataset, table, files)


@dataclass
class _Resizer:
    """Decodes and resizes images for a :class:`RowBuilder`; a FileProcessor."""

    spec: InputSpec
    builder: RowBuilder
    observer: WorkerObserver | DecodeObserver | None = None

    def read(self, digest: str, data: bytes | NDArray[np.uint8]) -> Any:
        if self.observer is not None and isinstance(data, bytes):
            image = self.observer.decode(digest, data, self.spec)
        else:
            image = read_loaded(data, self.spec)
        pixels, size = resize_image(image, self.spec), (image.shape[0], image.shape[1])
        del image  # large; free it before waiting for a network
        return self.builder.make(digest, pixels, size)

    def failed(self, digest: str, error: ImageError) -> Any:
        return self.builder.failed(digest, error)


@dataclass
class _WorkerResizer(_Resizer):
    """A :class:`_Resizer` in a worker process."""

    observer: WorkerObserver | None = None

    def collected(self) -> list[Any]:
        return [] if self.observer is None else self.observer.collected()


@dataclass(frozen=True)
class _MakeResizer:
    """Makes a :class:`_WorkerResizer` in a worker process."""

    spec: InputSpec
    make_builder: Callable[[], RowBuilder]
    make_observer: Callable[[], WorkerObserver] | None

    def __call__(self) -> _WorkerResizer:
        observer = None if self.make_observer is None else self.make_observer()
        return _WorkerResizer(self.spec, self.make_builder(), observer)


def _resized_on(
    cluster: ClusterBuilder | None, spec: InputSpec, observer: DecodeObserver | None
) -> Cluster | None:
    """Return how a dataset is processed on a cluster, with its images resized there."""
    if cluster is None:
        return None
    make_observer = None if observer is None else observer.for_worker()

    def make(share: Callable[[Any], Shared]) -> _MakeResizer:
        return _MakeResizer(spec, cluster.make(share), make_observer)

    return Cluster(cluster.on, make, None if observer is None else observer.add)


def _skip_unreadable(
    dataset: ImageDataset, table: ImageTable, files: ProcessedFiles
) -> ProcessedDataset:
    digests = files.digests
    failed = table.problems(digest for digest in digests if digest is not None)
    errors = dict(files.errors)
    for row, digest in enumerate(digests):
        if digest in failed:
            errors[row] = ImageError(*failed[digest])
    good = np.array([row for row in range(len(dataset)) if row not in errors], np.int64)
    readable = dataset.with_columns(digest=digests)[good]
    return ProcessedDataset(
        readable,
        tuple(errors[row].at(dataset.path[row]) for row in sorted(errors)),
        tuple(dataset.label[row] for row in sorted(errors)),
        files.computed,
        len(set(readable.digest)) - files.computed,
    )
