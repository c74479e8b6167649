"""Process the images of a dataset in the worker processes of a cluster.

A task is a block of images: their addresses, or their pixels if they are in memory. The rows that
workers compute come back in the order of the dataset and are written by this process alone, so that
the nodes need no shared storage other than the images.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.table import ImageDataset
from kindsight.digest import content_digest
from kindsight.distributed import Executor, LostTask, Shared, open_executor
from kindsight.errors import ClusterError, ImageError, StorageError
from kindsight.images.formats import detect_format
from kindsight.images.read import read_bytes
from kindsight.storage.address import is_address
from kindsight.threads import map_ordered

__all__ = [
    "CHECKED", "LOST_REASON", "Cluster", "ClusterOutcome", "ClusterProcessor", "check_nodes",
    "process_on_cluster", "why_unsupported",
]  # fmt: skip

# Images per task: enough that sending it takes a small fraction of its time, few enough that little
# work is lost with a worker and that each worker gets several tasks.
MAX_BLOCK = 64
MIN_BLOCK = 4
BLOCKS = 64
# Bytes of images in memory that a task carries, or of files that it reads ahead.
BLOCK_BYTES = 16 << 20
# Threads of a worker that read images from an object store, whose latency is high.
READERS = 8
# Number of images that every node must be able to read before the work starts.
CHECKED = 3

LOST_REASON = "The process that read it crashed each time, possibly because of a bug in a decoder."
"""The reason for skipping an image that crashes every process that reads it."""

Image = str | NDArray[np.uint8]


class ClusterProcessor(Protocol):
    """Computes the rows of a table in a worker process."""

    def read(self, digest: str, data: bytes | NDArray[np.uint8]) -> Any:
        """Return the row of an image file's bytes or an array; ImageError if unusable."""

    def failed(self, digest: str, error: ImageError) -> Any:
        """Return the row of an unusable image."""

    def collected(self) -> list[Any]:
        """Return what else was computed from the images since the last call."""


@dataclass(frozen=True)
class Cluster:
    """Where a dataset is processed, and how.

    - `on`: as for :func:`kindsight.distributed.open_executor`, other than ``"local"``.
    - `make`: called with a function that shares a large value with the workers; returns a small
      picklable function that makes a :class:`ClusterProcessor` in each worker process.
    - `collect`: called with the results of :meth:`ClusterProcessor.collected`.
    """

    on: str
    make: Callable[[Callable[[Any], Shared]], Callable[[], ClusterProcessor]]
    collect: Callable[[list[Any]], None] | None = None


class ClusterOutcome(NamedTuple):
    """The result for one row."""

    row: int
    digest: str | None = None
    new: Any = None  # new row for the table; None where it has one
    error: ImageError | None = None


@dataclass
class _Block:
    """A task: some rows and their images."""

    rows: list[int]
    images: list[Image]


@dataclass
class _Result:
    outcomes: list[ClusterOutcome]
    collected: list[Any]


def process_on_cluster(
    cluster: Cluster,
    dataset: ImageDataset,
    rows: Sequence[int],
    known: Sequence[str],
    sent: Callable[[int], None],
) -> Iterator[ClusterOutcome]:
    """Yield the outcomes of rows, in their order.

    - `known`: content digests that need no new row, sorted.
    - `sent`: called with each row before a worker may read it.

    Raises
    ------
    ClusterError
        If the cluster cannot be used, or a node cannot read the images.
    """
    if not rows:
        return
    with open_executor(cluster.on) as executor:
        assert executor is not None
        if dataset.arrays is None:
            step = max(1, len(rows) // CHECKED)
            check_nodes(executor, [dataset.address(row) for row in rows[::step][:CHECKED]])
        digests = np.array(known, np.bytes_)
        make = _MakeWorker(cluster.make(executor.share), executor.share(digests))
        waiting: deque[list[int]] = deque()

        def blocks() -> Iterator[_Block]:
            for block in _blocks(dataset, rows):
                for row in block.rows:
                    sent(row)
                waiting.append(block.rows)
                yield block

        for result in executor.map(make, blocks()):
            block = waiting.popleft()
            if isinstance(result, LostTask):
                yield from _one_by_one(executor, make, dataset, block, cluster)
            else:
                yield from _unpack(result, cluster)


def _one_by_one(
    executor: Executor, make: _MakeWorker, dataset: ImageDataset, rows: list[int], cluster: Cluster
) -> Iterator[ClusterOutcome]:
    """Process the images of a block one by one, to find the one that crashes its process."""
    results = executor.isolate(make, (_block(dataset, [row]) for row in rows))
    for row, result in zip(rows, results, strict=True):
        if isinstance(result, LostTask):
            yield ClusterOutcome(row, error=ImageError("corrupt", LOST_REASON))
        else:
            yield from _unpack(result, cluster)


def _unpack(result: _Result, cluster: Cluster) -> Iterator[ClusterOutcome]:
    if result.collected and cluster.collect is not None:
        cluster.collect(result.collected)
    yield from result.outcomes


def _blocks(dataset: ImageDataset, rows: Sequence[int]) -> Iterator[_Block]:
    size = min(MAX_BLOCK, max(MIN_BLOCK, len(rows) // BLOCKS))
    if dataset.arrays is not None and len(rows):
        size = max(1, min(size, BLOCK_BYTES // max(1, dataset.arrays[rows[0]].nbytes)))
    for start in range(0, len(rows), size):
        yield _block(dataset, [int(row) for row in rows[start : start + size]])


def _block(dataset: ImageDataset, rows: list[int]) -> _Block:
    return _Block(rows, [_image(dataset, row) for row in rows])


def _image(dataset: ImageDataset, row: int) -> Image:
    """Return an image in memory, or the address of a file."""
    if dataset.arrays is None:
        return dataset.address(row)
    array = dataset.load(row)
    assert not isinstance(array, bytes)
    return array


def check_nodes(executor: Executor, addresses: Sequence[str]) -> None:
    """Raise ClusterError if a node cannot read images that this process can read."""
    here = read_digests(addresses)
    for node, there in executor.on_every_node(read_digests, addresses):
        for address, expected, found in zip(addresses, here, there, strict=True):
            if expected is not None and found != expected:
                raise ClusterError(
                    f"The node {node} of the Ray cluster cannot read {address}, or finds another "
                    "file there. Put the images where every node has them under the same path, "
                    "such as a shared folder or an address s3://..."
                )


def read_digests(addresses: Sequence[str]) -> list[str | None]:
    """Return the content digests of files, None for those that cannot be read."""
    return [_read_digest(address) for address in addresses]


def _read_digest(address: str) -> str | None:
    try:
        return content_digest(read_bytes(address))
    except Exception:  # any failure of a storage
        return None


@dataclass(frozen=True)
class _MakeWorker:
    """Makes the function that a worker process runs."""

    make_processor: Callable[[], ClusterProcessor]
    known: Shared

    def __call__(self) -> _Worker:
        import cv2

        cv2.setNumThreads(1)  # each core has a worker
        return _Worker(self.make_processor(), self.known.get())


@dataclass
class _Worker:
    """Computes blocks."""

    processor: ClusterProcessor
    known: NDArray[np.bytes_]  # sorted

    def __call__(self, block: _Block) -> _Result:
        outcomes = [
            self._process(row, data)
            for row, data in zip(block.rows, _load_all(block.images), strict=True)
        ]
        return _Result(outcomes, self.processor.collected())

    def _process(self, row: int, data: bytes | NDArray[np.uint8] | ImageError) -> ClusterOutcome:
        if isinstance(data, ImageError):
            if data.code != "empty":
                return ClusterOutcome(row, error=data)
            digest = content_digest(b"")  # identifies it the next time
            return ClusterOutcome(row, digest, self.processor.failed(digest, data), data)
        digest = content_digest(data)
        if isinstance(data, bytes) and (error := why_unsupported(data)):
            return ClusterOutcome(row, error=error)
        if self._is_known(digest):
            return ClusterOutcome(row, digest)
        try:
            return ClusterOutcome(row, digest, self.processor.read(digest, data))
        except ImageError as error:
            return ClusterOutcome(row, digest, self.processor.failed(digest, error), error)

    def _is_known(self, digest: str) -> bool:
        key = digest.encode()
        at = int(self.known.searchsorted(key)) if len(self.known) else 0
        return at < len(self.known) and self.known[at] == key


def _load_all(images: list[Image]) -> Iterator[bytes | NDArray[np.uint8] | ImageError]:
    """Yield the content of images; remote ones are read several at once."""
    if any(isinstance(image, str) and is_address(image) for image in images):
        return map_ordered(_load, images, READERS, ahead=1)
    return map(_load, images)


def _load(image: Image) -> bytes | NDArray[np.uint8] | ImageError:
    if not isinstance(image, str):
        return image
    try:
        return read_bytes(image)
    except ImageError as error:
        # As in ImageDataset.load, a failing storage is not the fault of one image, unless that is a
        # link.
        if error.code == "unreachable" and not image.startswith(("http://", "https://")):
            raise StorageError(error.reason) from error
        return error


def why_unsupported(data: bytes) -> ImageError | None:
    """Return the error of a format that needs another package, which is not cached."""
    try:
        detect_format(data)
    except ImageError as error:
        return error if error.code == "unsupported" else None
    return None
