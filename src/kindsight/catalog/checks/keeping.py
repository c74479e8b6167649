"""Measuring all pictures of a catalog, once: what was measured is kept by content and found again.

As with features, a file whose size and times have not changed is not even read to be known.
"""

from __future__ import annotations

import contextlib
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kindsight.cache import Cache
from kindsight.catalog.catalog import Catalog
from kindsight.catalog.checks.measure import (
    NUMBERS,
    SIZE,
    WORDS,
    MeasuredPicture,
    measure_decoded,
    measure_picture,
    unreadable,
)
from kindsight.catalog.checks.measurements import Measurements
from kindsight.catalog.checks.table import MeasurementTable
from kindsight.catalog.ledger import Progress
from kindsight.catalog.reading import Read, read_through
from kindsight.errors import CacheError, PictureError
from kindsight.pictures.read import read_picture, read_with_facts
from kindsight.sqlite_file import DamagedTableError
from kindsight.threads import count_cores

__all__ = ["FORMAT", "Measuring", "measure_catalog"]

TOGETHER = 128
"""Measurements that are written at once beside the computing of features."""

HANDED = 32
"""Pictures that a thread is handed at once, at most; 4 KB are kept of each until it is written."""

FORMAT = 4
"""Raised whenever something else is measured, or measured otherwise."""


class _Measurer:
    """Measures pictures; a :class:`kindsight.catalog.reading.Reader`."""

    def read(self, digest: str, data: bytes | NDArray[np.uint8]) -> MeasuredPicture:
        return measure_picture(data, digest)

    def failed(self, digest: str, error: PictureError) -> MeasuredPicture:
        return unreadable(digest, b"", error)


class Measuring:
    """Measures pictures that are read for features; a :class:`kindsight.catalog.once.Beside`.

    Within a ``with`` block. What was measured is found by :func:`measure_catalog` afterwards, which
    then reads only what it did not see: each picture is read once for both.

    Parameters
    ----------
    cache : Cache
        Where measurements are kept.
    """

    def __init__(self, cache: Cache) -> None:
        self._table = MeasurementTable(cache.measurements_file(str(FORMAT)))
        self._lock = threading.Lock()
        self._rows: list[MeasuredPicture] = []

    def __enter__(self) -> Measuring:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._flush()
        finally:
            self._table.close()

    def see(self, digest: str, data: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Read a picture and measure it, unless it is measured or read at another size."""
        if size != SIZE:
            return read_picture(data, target=size)
        with self._lock:
            if self._table.known([digest]):
                return read_picture(data, target=size)
        try:
            picture, facts = read_with_facts(data, target=size)
        except PictureError as error:
            self._add(unreadable(digest, data, error))
            raise
        self._add(measure_decoded(digest, data, picture, facts))
        return picture

    def _add(self, row: MeasuredPicture) -> None:
        with self._lock:
            self._rows.append(row)
            if len(self._rows) >= TOGETHER:
                self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._table.put(self._rows)
        self._rows = []


def measure_catalog(
    catalog: Catalog,
    cache: Cache,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> tuple[Catalog, Measurements]:
    """Find or make the measurements of all pictures of a catalog.

    Parameters
    ----------
    catalog : Catalog
        Which pictures.
    cache : Cache
        Where measurements are kept.
    workers : int, optional
        How many pictures are read at once; the number of cores if omitted.
    progress : callable, optional
        Called with (pictures done, pictures in all), from the calling thread.

    Returns
    -------
    catalog : Catalog
        The same rows, with their digests; None where there is no file that could be read.
    measurements : Measurements
        A row for each of them.

    Raises
    ------
    CacheError
        Where the cache cannot be used. What is damaged in it is put aside and made anew.
    """
    for _ in range(2):
        # Damage may show in either of two tables, and only where a row is read.
        with contextlib.suppress(DamagedTableError):
            return _measure(catalog, cache, workers, progress)
    return _measure(catalog, cache, workers, progress)


def _measure(
    catalog: Catalog, cache: Cache, workers: int | None, progress: Progress | None
) -> tuple[Catalog, Measurements]:
    path = cache.measurements_file(str(FORMAT))
    with closing(MeasurementTable(path)) as table, closing(MeasurementTable(path)) as look_up:
        read = read_through(
            catalog,
            cache,
            table,
            look_up,
            _Measurer,
            workers or count_cores(),
            progress,
            together=HANDED,
        )
        numbers, words = _columns(catalog, table, read, path)
    cache.prune(keep=path)

    def small(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        with closing(MeasurementTable(path)) as table:
            return table.small([read.digests[row] for row in rows])

    return catalog.with_columns(digest=read.digests), Measurements(numbers, words, small)


def _columns(
    catalog: Catalog, table: MeasurementTable, read: Read, path: Path
) -> tuple[NDArray[np.void], dict[str, NDArray[np.object_]]]:
    """Gather the columns from the table, and from the errors of files that are not in it."""
    n = len(catalog)
    numbers = np.zeros(n, NUMBERS)
    for name in NUMBERS.names or ():
        if NUMBERS[name].kind == "f":
            numbers[name] = np.nan
    words = {name: np.full(n, "", object) for name in WORDS}
    places: dict[str, list[int]] = {}
    for row, digest in enumerate(read.digests):
        if digest is not None:
            places.setdefault(digest, []).append(row)
    table.fill(places, numbers, words)
    if places:
        raise CacheError(
            f"What is in the cache must stay there while it is used. Received: {path}, from which "
            "rows have gone: was the cache cleared just now? The same command measures them again."
        )
    for row, error in read.errors.items():
        words["code"][row], words["reason"][row] = error.code, error.reason
    return numbers, words
