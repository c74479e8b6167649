"""Going through the images of a dataset once: what was made of an image is found again.

Whatever is kept of images (features, resized pixels) is kept by the content of their files. So
it does not matter how a file is called, in which folder it lies, or how the data are split; copies
are made once; and a file whose size and times have not changed is not even read to be known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kindsight.cache.folder import Cache
from kindsight.dataset.reading.ledger import Progress, Table
from kindsight.dataset.reading.read_files import Read, Reader, process_files
from kindsight.dataset.table import ImageDataset
from kindsight.errors import ImageError
from kindsight.images import InputSpec, read_image, resize_image

__all__ = ["Beside", "Maker", "ProcessedDataset", "Progress", "Reader", "Table", "process_images"]


class Maker(Protocol):
    """Makes the rows of a :class:`Table`; called on many threads."""

    def make(self, digest: str, pixels: NDArray[np.uint8], size: tuple[int, int]) -> Any:
        """Make an image's row.

        Parameters
        ----------
        digest : str
        pixels : uint8 array (height, width, 3)
            Resized.
        size : (height, width)
            Before it was resized.

        Raises
        ------
        ImageError
            If it is of no use after all.
        """

    def failed(self, digest: str, error: ImageError) -> Any:
        """Make the row of an image that is of no use."""


class Beside(Protocol):
    """Looks at images that are read for another purpose; called on many threads."""

    def see(
        self,
        digest: str,
        data: bytes,
        size: tuple[int, int],
    ) -> NDArray[np.uint8]:
        """Read an image, look at it, and return it.

        Parameters
        ----------
        digest : str
        data : bytes
            Its file.
        size : (height, width)
            As ``target`` of :func:`kindsight.images.read_image`.

        Raises
        ------
        ImageError
            As that function.
        """


@dataclass(frozen=True)
class ProcessedDataset:
    """How the images of a dataset fared.

    Parameters
    ----------
    dataset : ImageDataset
        The readable ones, digests filled in.
    problems : tuple of ImageError
        Those that were set aside, with their paths.
    problem_labels : tuple of str or None
        The labels of those that were set aside.
    made, reused : int
        How many distinct images were made, and how many did not have to be.
    """

    dataset: ImageDataset
    problems: tuple[ImageError, ...]
    problem_labels: tuple[str | None, ...]
    made: int
    reused: int


def process_images(
    dataset: ImageDataset,
    spec: InputSpec,
    cache: Cache,
    table: Table,
    look_up: Table,
    maker: Callable[[], Maker],
    threads: int,
    progress: Progress | None = None,
    beside: Beside | None = None,
    *,
    together: int = 1,
) -> ProcessedDataset:
    """See to it that a table has every image of a dataset.

    Parameters
    ----------
    dataset : ImageDataset
        Which images.
    spec : InputSpec
        How they are resized.
    cache : Cache
        Whose index of files is used.
    table, look_up : Table
        The table, over two connections: many threads look contents up, and on a connection of
        their own no write holds them up.
    maker : callable
        Called if there is anything to make.
    threads : int
        How many images are under way at once.
    progress : callable, optional
        Called from this thread.
    beside : Beside, optional
        Looks at the images that are read.
    together : int
        How many images a thread is handed at once, at most.

    Raises
    ------
    CacheError
        Where the cache cannot be used, or is damaged (DamagedTableError: go through again).
    """

    def reader() -> Reader:
        return _Resizing(spec, maker(), beside)

    read = process_files(
        dataset, cache, table, look_up, reader, threads, progress, together=together, quick=False
    )
    return _part(dataset, table, read)


@dataclass
class _Resizing:
    """Reads and resizes images, and hands them on; a :class:`Reader`."""

    spec: InputSpec
    maker: Maker
    beside: Beside | None = None

    def read(self, digest: str, data: bytes | NDArray[np.uint8]) -> Any:
        if not isinstance(data, bytes):
            image = data
        elif self.beside is not None:
            image = self.beside.see(digest, data, self.spec.size)
        else:
            image = read_image(data, target=self.spec.size)
        pixels = resize_image(image, self.spec)
        return self.maker.make(digest, pixels, (image.shape[0], image.shape[1]))

    def failed(self, digest: str, error: ImageError) -> Any:
        return self.maker.failed(digest, error)


def _part(dataset: ImageDataset, table: Table, read: Read) -> ProcessedDataset:
    """Part the readable images from those set aside."""
    digests = read.digests
    failed = table.problems(digest for digest in digests if digest is not None)
    errors = dict(read.errors)
    for row, digest in enumerate(digests):
        if digest in failed:
            errors[row] = ImageError(*failed[digest])
    good = np.array([row for row in range(len(dataset)) if row not in errors], np.int64)
    kept = dataset.with_columns(digest=digests)[good]
    return ProcessedDataset(
        kept,
        tuple(errors[row].at(dataset.path[row]) for row in sorted(errors)),
        tuple(dataset.label[row] for row in sorted(errors)),
        read.made,
        len(set(kept.digest)) - read.made,
    )
