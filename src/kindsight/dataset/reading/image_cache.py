"""The image cache: resized pixels of a dataset in one memory-mapped file.

Training from scratch uses every image in every epoch; decoding and resizing each time would take
longer than the network. Therefore, the resized images (uint8) are stored in one file per input
spec, each with the same number of bytes; a table maps content digests to their positions. The file
is memory-mapped, so it takes no more memory than the system can spare.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kindsight.cache.array_file import SlotTable, SlotWriter, map_array
from kindsight.cache.folder import Cache
from kindsight.cache.sqlite_table import LostTableError, lost_error
from kindsight.dataset.reading.process_images import Progress, process_images
from kindsight.dataset.table import ImageDataset
from kindsight.errors import ImageError
from kindsight.images import InputSpec
from kindsight.threads import count_cores

__all__ = ["CachedImages", "cache_images", "map_pixels", "read_cached_images"]

# Increase it whenever the same file and input spec give other pixels.
FORMAT = 1


@dataclass(frozen=True)
class CachedImages:
    """The resized images of a dataset; a context manager that protects them from pruning."""

    dataset: ImageDataset  # the readable images, with digests
    spec: InputSpec  # how they were resized
    file: Path  # the pixels; see :func:`map_pixels`
    offsets: NDArray[np.int64]  # int64 (images,): the index of each image in the file
    problems: tuple[ImageError, ...]  # skipped images, with their paths
    problem_labels: tuple[str | None, ...]  # labels of the skipped images
    # number of distinct images that were decoded, and that were cached
    computed: int
    reused: int
    _mapped: NDArray[np.uint8]
    _table: SlotTable

    def __len__(self) -> int:
        return len(self.offsets)

    def __enter__(self) -> CachedImages:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Allow the cache to prune the pixels."""
        self._table.close()

    def pixels(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the images of some rows, uint8 (n, height, width, 3)."""
        chosen: NDArray[np.uint8] = self._mapped[self.offsets[rows]]
        return chosen

    def sizes(self) -> list[tuple[int, int]]:
        """Return (height, width) before resizing of each distinct image."""
        return list(self._table.sizes(str(digest) for digest in self.dataset.digest).values())

    def size_of(self, digests: Sequence[str]) -> list[tuple[int, int]]:
        """Return (height, width) before resizing, in the order of `digests`."""
        found = self._table.sizes(digests)
        return [found.get(digest, self.spec.size) for digest in digests]


def map_pixels(file: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a file of pixels as a read-only memory map: uint8 (n, height, width, 3).

    Raises LostTableError if the file was deleted.
    """
    return map_array(file, np.dtype(np.uint8), (*size, 3))


def read_cached_images(
    spec: InputSpec, cache: Cache, digests: Sequence[str]
) -> dict[str, tuple[NDArray[np.uint8], tuple[int, int]]]:
    """Return the images that are cached for an input spec, by digest, without decoding any.

    Each is uint8 (height, width, 3), with its (height, width) before resizing.
    """
    path = cache.images_file(f"{spec.key()}-{FORMAT}")
    if not path.is_file():
        return {}
    with closing(SlotTable(path, spec.height * spec.width * 3)) as table:
        sizes = table.sizes(digests)
        known = [digest for digest in digests if digest in sizes]
        if not known:
            return {}
        mapped, slots = map_pixels(table.pixels, spec.size), table.slots(known)
        return {
            digest: (np.array(mapped[slot]), sizes[digest])
            for digest, slot in zip(known, slots.tolist(), strict=True)
            if 0 <= slot < len(mapped)
        }


def cache_images(
    dataset: ImageDataset,
    spec: InputSpec,
    cache: Cache,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> CachedImages:
    """Return the resized images of a dataset, decoding those that are not cached yet.

    - `spec`: how images are resized.
    - `workers`: threads; the number of cores by default.
    - `progress`: called with (images done, number of images), from the calling thread.

    Returns
    -------
    CachedImages
        The caller closes it.

    Raises
    ------
    CacheError
        If the cache cannot be used. A table that is damaged or deleted meanwhile is computed again.
    """
    with contextlib.suppress(LostTableError):
        # Damage may only show when a row is read.
        return _cache_images(dataset, spec, cache, workers, progress)
    return _cache_images(dataset, spec, cache, workers, progress)


def _cache_images(
    dataset: ImageDataset,
    spec: InputSpec,
    cache: Cache,
    workers: int | None,
    progress: Progress | None,
) -> CachedImages:
    path = cache.images_file(f"{spec.key()}-{FORMAT}")
    size = spec.height * spec.width * 3
    with contextlib.ExitStack() as stack:
        table = SlotTable(path, size)
        stack.callback(table.close)
        with closing(SlotTable(path, size)) as lookup_table, contextlib.ExitStack() as writers:

            def builder(_: int) -> SlotWriter:
                return writers.enter_context(closing(SlotWriter(table)))

            threads = workers or count_cores()
            done = process_images(
                dataset, spec, cache, table, lookup_table, builder, threads, progress
            )
        offsets = table.slots([str(digest) for digest in done.dataset.digest])
        mapped = map_pixels(table.pixels, spec.size)
        if offsets.max(initial=-1) >= len(mapped):  # truncated
            raise lost_error(table.pixels)
        cache.prune(keep=path)
        stack.pop_all()
    return CachedImages(
        done.dataset, spec, table.pixels, offsets, done.problems, done.problem_labels,
        done.computed, done.reused, mapped, table,
    )  # fmt: skip
