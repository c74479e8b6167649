"""Images decoded once: resized pixels in one file, read by mapping it into memory.

A training from scratch looks at every image in every epoch; reading and resizing it each time
would take longer than the network does. So the resized images (uint8, a few dozen kilobytes
each) are written side by side into one file of the cache, one file for each input spec, in places
of equal size; a table beside it says which content lies in which place. Mapped into memory,
the file costs only as much of it as the system has to spare, however many images there are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from kindsight.cache.array_file import FORMAT, PlaceTable, PlaceWriter
from kindsight.cache.folder import Cache
from kindsight.cache.sqlite_table import DamagedTableError
from kindsight.dataset.reading.read_once import Progress, process_images
from kindsight.dataset.table import ImageDataset
from kindsight.errors import CacheError, ImageError
from kindsight.images import InputSpec
from kindsight.threads import count_cores

__all__ = ["CachedImages", "cache_images", "map_pixels"]


@dataclass(frozen=True)
class CachedImages:
    """The resized images of a dataset; a context manager that keeps them from being pruned.

    Parameters
    ----------
    dataset : ImageDataset
        The readable images, digests filled in.
    spec : InputSpec
        How they were resized.
    file : pathlib.Path
        Where the pixels are; see :func:`map_pixels`.
    places : array
        int64 (images,): which image of the file each is.
    problems : tuple of ImageError
        Those that were set aside, with their paths.
    problem_labels : tuple of str or None
        The labels of those that were set aside.
    computed, reused : int
        How many distinct images were decoded, and how many did not have to be.
    """

    dataset: ImageDataset
    spec: InputSpec
    file: Path
    places: NDArray[np.int64]
    problems: tuple[ImageError, ...]
    problem_labels: tuple[str | None, ...]
    computed: int
    reused: int
    _mapped: NDArray[np.uint8]
    _table: PlaceTable

    def __len__(self) -> int:
        return len(self.places)

    def __enter__(self) -> CachedImages:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the cache prune the pixels, if it wants to."""
        self._table.close()

    def pixels(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the images of some rows, uint8 (n, height, width, 3)."""
        chosen: NDArray[np.uint8] = self._mapped[self.places[rows]]
        return chosen

    def sizes(self) -> list[tuple[int, int]]:
        """Return (height, width) of each different image before it was resized."""
        return list(self._table.sizes(str(digest) for digest in self.dataset.digest).values())

    def size_of(self, digests: Sequence[str]) -> list[tuple[int, int]]:
        """Return (height, width) before resizing of images, in the order of `digests`."""
        found = self._table.sizes(digests)
        return [found.get(digest, self.spec.size) for digest in digests]


def map_pixels(file: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Map a file of pixels into memory: uint8 (places, height, width, 3), only to be read."""
    each = (*size, 3)
    count = file.stat().st_size // int(np.prod(each))
    # An empty file cannot be mapped.
    return np.memmap(file, np.uint8, "r", shape=(count, *each)) if count else _nothing(size)


def _bytes(spec: InputSpec) -> int:
    return spec.height * spec.width * 3


def _nothing(size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.empty((0, *size, 3), np.uint8)


def cache_images(
    dataset: ImageDataset,
    spec: InputSpec,
    cache: Cache,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> CachedImages:
    """Find or make the resized images of a dataset.

    Parameters
    ----------
    dataset : ImageDataset
        Which images.
    spec : InputSpec
        How they are resized.
    cache : Cache
        Where they are kept: under its rules of how much and for how long.
    workers : int, optional
        How many are read at once; the number of cores if omitted.
    progress : callable, optional
        Called with (images done, images in all), from the calling thread.

    Returns
    -------
    CachedImages
        To be closed.

    Raises
    ------
    CacheError
        Where the cache cannot be used. What is damaged in it is put aside and made anew.
    """
    with contextlib.suppress(DamagedTableError):
        # Damage may show only where a row is read.
        return _store(dataset, spec, cache, workers, progress)
    return _store(dataset, spec, cache, workers, progress)


def _store(
    dataset: ImageDataset,
    spec: InputSpec,
    cache: Cache,
    workers: int | None,
    progress: Progress | None,
) -> CachedImages:
    path = cache.images_file(f"{spec.key()}-{FORMAT}")
    cache.require_space(len(dataset), _bytes(spec), path)
    with contextlib.ExitStack() as stack:
        table = PlaceTable(path, _bytes(spec))
        stack.callback(table.close)
        with closing(PlaceTable(path, _bytes(spec))) as look_up, contextlib.ExitStack() as makers:

            def maker() -> PlaceWriter:
                return makers.enter_context(closing(PlaceWriter(table)))

            threads = workers or count_cores()
            gone = process_images(dataset, spec, cache, table, look_up, maker, threads, progress)
        try:
            places = table.places([str(digest) for digest in gone.dataset.digest])
            mapped = map_pixels(table.pixels, spec.size) if len(places) else _nothing(spec.size)
        except (KeyError, FileNotFoundError) as error:
            raise CacheError(
                f"What is in the cache must stay there while it is used. Received: {path}, from "
                "which images have gone: was the cache cleared just now? The same command reads "
                "them again."
            ) from error
        cache.prune(keep=path)
        stack.pop_all()
    return CachedImages(
        gone.dataset, spec, table.pixels, places, gone.problems, gone.problem_labels,
        gone.made, gone.reused, mapped, table,
    )  # fmt: skip
