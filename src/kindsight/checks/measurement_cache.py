"""Measuring all images of a dataset, once: what was measured is kept by content and found again.

As with features, a file whose size and times have not changed is not even read to be known.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kindsight.cache.folder import Cache
from kindsight.cache.sqlite_table import DamagedTableError, SqliteFile, chunks, marks
from kindsight.checks.measure import (
    NUMERIC,
    SIZE,
    SMALL,
    TEXT,
    MeasuredImage,
    measure_decoded,
    measure_image,
    unreadable,
)
from kindsight.checks.measurements import Measurements
from kindsight.dataset.reading.process_files import ProcessedFiles, Progress, process_files
from kindsight.dataset.table import ImageDataset
from kindsight.errors import CacheError, ImageError
from kindsight.images.read import read_image, read_with_metadata
from kindsight.threads import count_cores

__all__ = [
    "FORMAT",
    "MeasurementTable",
    "MeasuringObserver",
    "measure_dataset",
]

# SECTION: The table of the cache that measurements are kept in, by content.


class MeasurementTable(SqliteFile):
    """Measurements by content digest.

    Parameters
    ----------
    path : pathlib.Path
        The SQLite file, made if it is not there.
    """

    schema = """
        CREATE TABLE IF NOT EXISTS images (
            digest TEXT PRIMARY KEY, numbers BLOB, words TEXT, small BLOB, code TEXT, reason TEXT
        );
        CREATE TABLE IF NOT EXISTS thumbnails (digest TEXT PRIMARY KEY, jpeg BLOB);
    """
    probe = "SELECT digest, numbers, words, small, code, reason FROM images LIMIT 0"

    def known(self, digests: Iterable[str]) -> set[str]:
        """Return those of `digests` that the table has a row for."""
        found = self._select("digest, length(numbers), length(small)", digests)
        sizes = (NUMERIC.itemsize, SMALL[0] * SMALL[1])
        return {digest for digest, *lengths in found if tuple(lengths) == sizes}

    def problems(self, digests: Iterable[str]) -> dict[str, tuple[str, str]]:
        """Return (code, reason) of those images that cannot be read."""
        return {
            digest: (code, str(reason))
            for digest, code, reason in self._select("digest, code, reason", digests)
            if code in ImageError.CODES
        }

    def put(self, rows: Sequence[MeasuredImage]) -> None:
        """Write rows in one transaction; a row that is there already is replaced."""
        values = [
            (
                row.digest, row.numbers.tobytes(), json.dumps([row.words[name] for name in TEXT]),
                row.small.tobytes(), row.words["code"], row.words["reason"],
            )
            for row in rows
        ]  # fmt: skip
        with self._writing() as connection:
            connection.executemany("INSERT OR REPLACE INTO images VALUES (?,?,?,?,?,?)", values)

    def fill(
        self,
        places: dict[str, list[int]],
        numbers: NDArray[np.void],
        words: dict[str, NDArray[np.object_]],
    ) -> None:
        """Copy rows to their places in columns.

        Parameters
        ----------
        places : dict of str to list of int
            Where each digest's row goes; digests that were found are taken out.
        numbers : array
            Records of :data:`NUMERIC`.
        words : dict of str to object array
        """
        same: dict[str, str] = {}  # the texts of 100,000 images are a few hundred different ones
        for digest, record, texts in self._select("digest, numbers, words", list(places)):
            if len(record) != NUMERIC.itemsize:
                continue
            where = places.pop(digest)
            numbers[where] = np.frombuffer(record, NUMERIC)
            for name, text in zip(TEXT, json.loads(texts), strict=True):
                words[name][where] = same.setdefault(text, text)

    def small(self, digests: Sequence[str | None]) -> NDArray[np.uint8]:
        """Return the images in small, uint8 (len(digests), 64, 64); zeros for None."""
        places: dict[str, list[int]] = {}
        for place, digest in enumerate(digests):
            if digest is not None:
                places.setdefault(digest, []).append(place)
        out = np.zeros((len(digests), *SMALL), np.uint8)
        for digest, blob in self._select("digest, small", list(places)):
            if len(blob) == SMALL[0] * SMALL[1]:
                out[places[digest]] = np.frombuffer(blob, np.uint8).reshape(SMALL)
        return out

    def thumbnails(self, digests: Iterable[str]) -> dict[str, bytes]:
        """Return the small coloured JPEGs of those images that have been shown before."""
        found: dict[str, bytes] = {}
        for chunk in chunks(list(dict.fromkeys(digests))):
            query = f"SELECT digest, jpeg FROM thumbnails WHERE digest IN ({marks(chunk)})"
            with self._reading() as connection:
                found.update(connection.execute(query, chunk).fetchall())
        return found

    def put_thumbnails(self, jpegs: dict[str, bytes]) -> None:
        """Keep small coloured JPEGs."""
        with self._writing() as connection:
            connection.executemany("INSERT OR REPLACE INTO thumbnails VALUES (?,?)", jpegs.items())


TOGETHER = 128
"""Measurements that are written at once beside the computing of features."""

HANDED = 32
"""Images that a thread is handed at once, at most; 4 KB are kept of each until it is written."""

FORMAT = 4
"""Raised whenever something else is measured, or measured otherwise."""


class _Measurer:
    """Measures images; a :class:`kindsight.dataset.reading.process_files.FileProcessor`."""

    def read(self, digest: str, data: bytes | NDArray[np.uint8]) -> MeasuredImage:
        return measure_image(data, digest)

    def failed(self, digest: str, error: ImageError) -> MeasuredImage:
        return unreadable(digest, b"", error)


class MeasuringObserver:
    """Measure images while they are decoded for feature extraction.

    Within a ``with`` block. What was measured is found by :func:`measure_dataset` afterwards, which
    then reads only what it did not see: each image is read once for both.

    Parameters
    ----------
    cache : Cache
        Where measurements are kept.
    """

    def __init__(self, cache: Cache) -> None:
        self._table = MeasurementTable(cache.measurements_file(str(FORMAT)))
        self._lock = threading.Lock()
        self._rows: list[MeasuredImage] = []

    def __enter__(self) -> MeasuringObserver:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._flush()
        finally:
            self._table.close()

    def decode(self, digest: str, data: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Read an image and measure it, unless it is measured or read at another size."""
        if size != SIZE:
            return read_image(data, target=size)
        with self._lock:
            if self._table.known([digest]):
                return read_image(data, target=size)
        try:
            image, facts = read_with_metadata(data, target=size)
        except ImageError as error:
            self._add(unreadable(digest, data, error))
            raise
        self._add(measure_decoded(digest, data, image, facts))
        return image

    def _add(self, row: MeasuredImage) -> None:
        with self._lock:
            self._rows.append(row)
            if len(self._rows) >= TOGETHER:
                self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._table.put(self._rows)
        self._rows = []


def measure_dataset(
    dataset: ImageDataset,
    cache: Cache,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> tuple[ImageDataset, Measurements]:
    """Find or make the measurements of all images of a dataset.

    Parameters
    ----------
    dataset : ImageDataset
        Which images.
    cache : Cache
        Where measurements are kept.
    workers : int, optional
        How many images are read at once; the number of cores if omitted.
    progress : callable, optional
        Called with (images done, images in all), from the calling thread.

    Returns
    -------
    dataset : ImageDataset
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
            return _measure(dataset, cache, workers, progress)
    return _measure(dataset, cache, workers, progress)


def _measure(
    dataset: ImageDataset, cache: Cache, workers: int | None, progress: Progress | None
) -> tuple[ImageDataset, Measurements]:
    path = cache.measurements_file(str(FORMAT))
    with closing(MeasurementTable(path)) as table, closing(MeasurementTable(path)) as lookup_table:
        read = process_files(
            dataset,
            cache,
            table,
            lookup_table,
            _Measurer,
            workers or count_cores(),
            progress,
            batch=HANDED,
        )
        numbers, words = _columns(dataset, table, read, path)
    cache.prune(keep=path)

    def small(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        with closing(MeasurementTable(path)) as table:
            return table.small([read.digests[row] for row in rows])

    return dataset.with_columns(digest=read.digests), Measurements(numbers, words, small)


def _columns(
    dataset: ImageDataset, table: MeasurementTable, read: ProcessedFiles, path: Path
) -> tuple[NDArray[np.void], dict[str, NDArray[np.object_]]]:
    """Gather the columns from the table, and from the errors of files that are not in it."""
    n = len(dataset)
    numbers = np.zeros(n, NUMERIC)
    for name in NUMERIC.names or ():
        if NUMERIC[name].kind == "f":
            numbers[name] = np.nan
    words = {name: np.full(n, "", object) for name in TEXT}
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
