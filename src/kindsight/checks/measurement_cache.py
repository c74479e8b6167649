"""Measure all images of a dataset; measurements are cached by content digest.

A file whose size and modification times are unchanged is not read again.
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
from kindsight.cache.sqlite_table import DamagedTableError, SqliteFile, chunked, placeholders
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

FORMAT = 4
"""Version of the measurements; raise it whenever what is measured changes."""

WRITE_BATCH = 128
"""Measurements written at once while features are computed."""

READ_BATCH = 32
"""Maximum images given to a thread at once; 4 KB per image are held until they are written."""


class MeasurementTable(SqliteFile):
    """Cached measurements and thumbnails by content digest.

    Parameters
    ----------
    path : pathlib.Path
        The SQLite file; created if it does not exist.
    """

    schema = """
        CREATE TABLE IF NOT EXISTS images (
            digest TEXT PRIMARY KEY, numbers BLOB, words TEXT, small BLOB, code TEXT, reason TEXT
        );
        CREATE TABLE IF NOT EXISTS thumbnails (digest TEXT PRIMARY KEY, jpeg BLOB);
    """
    probe = "SELECT digest, numbers, words, small, code, reason FROM images LIMIT 0"

    def known(self, digests: Iterable[str]) -> set[str]:
        """Return the digests that are in the table."""
        found = self._select("digest, length(numbers), length(small)", digests)
        sizes = (NUMERIC.itemsize, SMALL[0] * SMALL[1])
        return {digest for digest, *lengths in found if tuple(lengths) == sizes}

    def problems(self, digests: Iterable[str]) -> dict[str, tuple[str, str]]:
        """Return (code, reason) of the unreadable images."""
        return {
            digest: (code, str(reason))
            for digest, code, reason in self._select("digest, code, reason", digests)
            if code in ImageError.CODES
        }

    def put(self, rows: Sequence[MeasuredImage]) -> None:
        """Write rows in one transaction, replacing existing ones."""
        values = [
            (
                row.digest, row.numeric.tobytes(), json.dumps([row.text[name] for name in TEXT]),
                row.small.tobytes(), row.text["code"], row.text["reason"],
            )
            for row in rows
        ]  # fmt: skip
        with self._writing() as connection:
            connection.executemany("INSERT OR REPLACE INTO images VALUES (?,?,?,?,?,?)", values)

    def fill(
        self,
        rows_of: dict[str, list[int]],
        numeric: NDArray[np.void],
        text: dict[str, NDArray[np.object_]],
    ) -> None:
        """Copy measurements into columns.

        Parameters
        ----------
        rows_of : dict of str to list of int
            Target rows by digest; digests that are found are removed.
        numeric : array
            Records of :data:`NUMERIC`, filled in place.
        text : dict of str to object array
            Text columns, filled in place.
        """
        interned: dict[str, str] = {}  # 100,000 images share a few hundred distinct texts
        for digest, record, texts in self._select("digest, numbers, words", list(rows_of)):
            if len(record) != NUMERIC.itemsize:
                continue
            rows = rows_of.pop(digest)
            numeric[rows] = np.frombuffer(record, NUMERIC)
            for name, value in zip(TEXT, json.loads(texts), strict=True):
                text[name][rows] = interned.setdefault(value, value)

    def small_images(self, digests: Sequence[str | None]) -> NDArray[np.uint8]:
        """Return the small grey images, uint8 (len(digests), 64, 64); zeros for None."""
        rows_of = _rows_of(digests)
        out = np.zeros((len(digests), *SMALL), np.uint8)
        for digest, blob in self._select("digest, small", list(rows_of)):
            if len(blob) == SMALL[0] * SMALL[1]:
                out[rows_of[digest]] = np.frombuffer(blob, np.uint8).reshape(SMALL)
        return out

    def thumbnails(self, digests: Iterable[str]) -> dict[str, bytes]:
        """Return the cached thumbnails, JPEG files, by digest."""
        found: dict[str, bytes] = {}
        for chunk in chunked(list(dict.fromkeys(digests))):
            query = f"SELECT digest, jpeg FROM thumbnails WHERE digest IN ({placeholders(chunk)})"
            with self._reading() as connection:
                found.update(connection.execute(query, chunk).fetchall())
        return found

    def put_thumbnails(self, jpegs: dict[str, bytes]) -> None:
        """Cache thumbnails, JPEG files by digest."""
        with self._writing() as connection:
            connection.executemany("INSERT OR REPLACE INTO thumbnails VALUES (?,?)", jpegs.items())


def _rows_of(digests: Iterable[str | None]) -> dict[str, list[int]]:
    rows_of: dict[str, list[int]] = {}
    for row, digest in enumerate(digests):
        if digest is not None:
            rows_of.setdefault(digest, []).append(row)
    return rows_of


class _Measurer:
    """A :class:`kindsight.dataset.reading.process_files.FileProcessor` that measures images."""

    def read(self, digest: str, data: bytes | NDArray[np.uint8]) -> MeasuredImage:
        return measure_image(data, digest)

    def failed(self, digest: str, error: ImageError) -> MeasuredImage:
        return unreadable(digest, b"", error)


class MeasuringObserver:
    """Measure images while they are decoded for feature extraction.

    A context manager. :func:`measure_dataset` then finds these measurements in the cache, so that
    each image is read once for both purposes.

    Parameters
    ----------
    cache : Cache
        Cache that stores the measurements.
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
        """Read an image; measure it unless it is measured already or read at another size."""
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
            if len(self._rows) >= WRITE_BATCH:
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
    """Return the measurements of all images of a dataset, from the cache or computed.

    Parameters
    ----------
    dataset : ImageDataset
        The images.
    cache : Cache
        Cache that stores the measurements.
    workers : int, optional
        Images read at once. Default: the number of cores.
    progress : callable, optional
        Called from the calling thread with (images done, number of images).

    Returns
    -------
    dataset : ImageDataset
        The same rows with their content digests; None for missing files.
    measurements : Measurements
        One row per row of the dataset.

    Raises
    ------
    CacheError
        If the cache cannot be used. A damaged table is replaced.
    """
    for _ in range(2):
        # Damage may show in either of two tables, and only when a row is read.
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
            batch=READ_BATCH,
        )
        numeric, text = _columns(dataset, table, read, path)
    cache.prune(keep=path)

    def small_images(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        with closing(MeasurementTable(path)) as table:
            return table.small_images([read.digests[row] for row in rows])

    return dataset.with_columns(digest=read.digests), Measurements(numeric, text, small_images)


def _columns(
    dataset: ImageDataset, table: MeasurementTable, read: ProcessedFiles, path: Path
) -> tuple[NDArray[np.void], dict[str, NDArray[np.object_]]]:
    """Return the columns from the table, completed by the errors of missing files."""
    n = len(dataset)
    numeric = np.zeros(n, NUMERIC)
    for name in NUMERIC.names or ():
        if NUMERIC[name].kind == "f":
            numeric[name] = np.nan
    text = {name: np.full(n, "", object) for name in TEXT}
    rows_of = _rows_of(read.digests)
    table.fill(rows_of, numeric, text)
    if rows_of:
        raise CacheError(
            f"Measurements disappeared from the cache {path} while they were being used. Was the "
            "cache cleared just now? Run the command again."
        )
    for row, error in read.errors.items():
        text["code"][row], text["reason"][row] = error.code, error.reason
    return numeric, text
