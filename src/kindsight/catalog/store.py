"""Pictures decoded once: resized pixels in one file, read by mapping it into memory.

A training from scratch looks at every picture in every epoch; reading and resizing it each time
would take longer than the network does. So the resized pictures (uint8, a few dozen kilobytes
each) are written side by side into one file of the cache, one file for each input spec, in places
of equal size; a table beside it says which content lies in which place. Mapped into memory,
the file costs only as much of it as the system has to spare, however many pictures there are.
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

from kindsight.cache import Cache
from kindsight.catalog.catalog import Catalog
from kindsight.catalog.once import Progress, go_through
from kindsight.catalog.places import FORMAT, PlaceTable, PlaceWriter
from kindsight.errors import CacheError, PictureError
from kindsight.pictures import InputSpec
from kindsight.sqlite_file import DamagedTableError
from kindsight.threads import count_cores

__all__ = ["StoredPictures", "map_pixels", "store_pictures"]


@dataclass(frozen=True)
class StoredPictures:
    """The resized pictures of a catalog; a context manager that keeps them from being pruned.

    Parameters
    ----------
    catalog : Catalog
        The readable pictures, digests filled in.
    spec : InputSpec
        How they were resized.
    file : pathlib.Path
        Where the pixels are; see :func:`map_pixels`.
    places : array
        int64 (pictures,): which picture of the file each is.
    problems : tuple of PictureError
        Those that were set aside, with their paths.
    problem_labels : tuple of str or None
        The labels of those that were set aside.
    computed, reused : int
        How many distinct pictures were decoded, and how many did not have to be.
    """

    catalog: Catalog
    spec: InputSpec
    file: Path
    places: NDArray[np.int64]
    problems: tuple[PictureError, ...]
    problem_labels: tuple[str | None, ...]
    computed: int
    reused: int
    _mapped: NDArray[np.uint8]
    _table: PlaceTable

    def __len__(self) -> int:
        return len(self.places)

    def __enter__(self) -> StoredPictures:
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
        """Return the pictures of some rows, uint8 (n, height, width, 3)."""
        chosen: NDArray[np.uint8] = self._mapped[self.places[rows]]
        return chosen

    def sizes(self) -> list[tuple[int, int]]:
        """Return (height, width) of each different picture before it was resized."""
        return list(self._table.sizes(str(digest) for digest in self.catalog.digest).values())

    def size_of(self, digests: Sequence[str]) -> list[tuple[int, int]]:
        """Return (height, width) before resizing of pictures, in the order of `digests`."""
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


def store_pictures(
    catalog: Catalog,
    spec: InputSpec,
    cache: Cache,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> StoredPictures:
    """Find or make the resized pictures of a catalog.

    Parameters
    ----------
    catalog : Catalog
        Which pictures.
    spec : InputSpec
        How they are resized.
    cache : Cache
        Where they are kept: under its rules of how much and for how long.
    workers : int, optional
        How many are read at once; the number of cores if omitted.
    progress : callable, optional
        Called with (pictures done, pictures in all), from the calling thread.

    Returns
    -------
    StoredPictures
        To be closed.

    Raises
    ------
    CacheError
        Where the cache cannot be used. What is damaged in it is put aside and made anew.
    """
    with contextlib.suppress(DamagedTableError):
        # Damage may show only where a row is read.
        return _store(catalog, spec, cache, workers, progress)
    return _store(catalog, spec, cache, workers, progress)


def _store(
    catalog: Catalog,
    spec: InputSpec,
    cache: Cache,
    workers: int | None,
    progress: Progress | None,
) -> StoredPictures:
    path = cache.pictures_file(f"{spec.key()}-{FORMAT}")
    with contextlib.ExitStack() as stack:
        table = PlaceTable(path, _bytes(spec))
        stack.callback(table.close)
        with closing(PlaceTable(path, _bytes(spec))) as look_up, contextlib.ExitStack() as makers:

            def maker() -> PlaceWriter:
                return makers.enter_context(closing(PlaceWriter(table)))

            threads = workers or count_cores()
            gone = go_through(catalog, spec, cache, table, look_up, maker, threads, progress)
        try:
            places = table.places([str(digest) for digest in gone.catalog.digest])
            mapped = map_pixels(table.pixels, spec.size) if len(places) else _nothing(spec.size)
        except (KeyError, FileNotFoundError) as error:
            raise CacheError(
                f"What is in the cache must stay there while it is used. Received: {path}, from "
                "which pictures have gone: was the cache cleared just now? The same command reads "
                "them again."
            ) from error
        cache.prune(keep=path)
        stack.pop_all()
    return StoredPictures(
        gone.catalog, spec, table.pixels, places, gone.problems, gone.problem_labels,
        gone.made, gone.reused, mapped, table,
    )  # fmt: skip
