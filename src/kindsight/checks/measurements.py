"""Measurements of all images of a dataset as NumPy columns, cached by content digest.

A file whose size and modification times are unchanged is not read again.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.cache.folder import Cache
from kindsight.cache.sqlite_table import (
    LostTableError,
    OpenTable,
    SqliteFile,
    chunked,
    lost_error,
    placeholders,
)
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
from kindsight.dataset.columns.codes import CodeColumn
from kindsight.dataset.reading.on_cluster import Cluster
from kindsight.dataset.reading.process_files import ProcessedFiles, Progress, process_files
from kindsight.dataset.splits.disjoint_sets import first_rows
from kindsight.dataset.table import ImageDataset
from kindsight.distributed import is_remote
from kindsight.errors import ImageError
from kindsight.images.convert import ValueRange
from kindsight.images.read import read_with_metadata
from kindsight.images.resize import InputSpec, read_loaded
from kindsight.threads import count_cores

__all__ = [
    "FORMAT", "SINGLE_TONE", "MeasurementTable", "Measurements", "MeasuringObserver",
    "cached_measurements", "measure_dataset", "measurements_path",
]  # fmt: skip

SINGLE_TONE = 0.98
"""Uniformity from which an image counts as a single tone; images of cats-dogs reach 0.58."""

FORMAT = 4
"""Version of the measurements; raise it whenever what is measured changes."""

WRITE_BATCH = 128
"""Measurements written at once while features are computed."""

COPY_BATCH = 4096
"""Number of measurements, about 200 bytes each, copied at once to rows of identical images."""

READ_BATCH = 32
"""Maximum images given to a thread at once; 4 KB per image are held until they are written."""


@dataclass(frozen=True, eq=False)
class Measurements:
    """Measurements of each image, one row per row of the dataset, in its order.

    Columns are attributes: ``measurements.brightness`` is an array (n,). Floats that do not apply,
    or of unreadable images, are NaN; integers are 0 and texts empty.

    ========================= ======= ==============================================================
    column                    dtype   meaning
    ========================= ======= ==============================================================
    readable                  bool    whether the image can be read
    code, reason              str     why not, as in :class:`kindsight.errors.ImageError`
    bytes                     int64   size of the file
    format                    str     detected from the content: ``JPEG``, ``PNG``, ...
    mode                      str     as stored: ``RGB``, ``L``, ``CMYK``, ``I;16``, ``P+alpha`` ...
    frames                    int32   images in the file
    height, width             int32   pixels, after the EXIF rotation
    stored_height, -_width    int32   pixels as stored, before the EXIF rotation
    orientation               int8    EXIF orientation, 1 to 8; 1 is upright
    quality                   float32 estimated JPEG quality, 1 to 100
    subsampling               str     JPEG chroma subsampling: ``4:2:0``, ...
    progressive               bool    whether the JPEG is progressive
    encoder                   str     fingerprint of the JPEG encoder
    camera, software          str     from EXIF
    taken                     float64 capture time in seconds since 1970 by the camera's clock
    transparency              float32 mean transparency, 0 to 1
    thumbnail_difference      float32 1 - correlation of EXIF thumbnail and image, 0 to 2
    brightness                float32 mean grey level, 0 to 255 (as all grey levels below)
    red, green, blue          float32 mean of each channel
    p01, p05, p50, p95, p99   float32 percentiles of the grey levels
    contrast                  float32 standard deviation of the grey levels
    entropy                   float32 entropy of the grey levels, 0 to 8 bits
    uniformity                float32 largest fraction of pixels in nine adjacent grey levels
    sharpness                 float32 variance of the Laplacian at the area of 224 x 224 pixels
    softness                  float32 fraction of the Laplacian's energy left by a slight blur
    blur                      float32 blur metric of Crete et al., 0 (sharp) to 1
    colourfulness             float32 of Hasler and Suesstrunk, 0 for grey, above 80 very colourful
    chroma                    float32 99th percentile of the largest minus the smallest channel
    hash                      uint64  (n, 4), see :mod:`kindsight.images.hashes`
    ========================= ======= ==============================================================

    Parameters
    ----------
    numeric : array
        Records of :data:`kindsight.checks.measure.NUMERIC`, (n,).
    text : mapping of str to object array or CodeColumn
        Text columns, each (n,). As codes, they take a few bytes per row.
    small_images : callable
        Returns the small grey images, uint8 (m, 64, 64), of rows, int64 (m,).
    """

    numeric: NDArray[np.void]
    text: Mapping[str, NDArray[np.object_] | CodeColumn]
    small_images: Callable[[NDArray[np.int64]], NDArray[np.uint8]]

    def __len__(self) -> int:
        return len(self.numeric)

    def __getattr__(self, name: str) -> NDArray[Any]:
        if name in (NUMERIC.names or ()):
            column: NDArray[Any] = self.numeric[name]
            return column
        if name in TEXT:
            return np.asarray(self.text[name], object)
        raise AttributeError(f"{type(self).__name__!r} has no column {name!r}")

    @property
    def readable(self) -> NDArray[np.bool_]:
        """Whether each image can be read, bool (n,)."""
        code = self.text["code"]
        return code.equals("") if isinstance(code, CodeColumn) else np.asarray(code == "", np.bool_)


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
        digests: Sequence[str | None],
        numeric: NDArray[np.void],
        text: dict[str, NDArray[np.object_]],
    ) -> bool:
        """Copy measurements into columns; return whether all digests have measurements.

        - `digests`: of each row; None for a row that is left unchanged.
        - `numeric`: records of :data:`NUMERIC`, filled in place.
        - `text`: text columns, filled in place.
        """
        interned: dict[str, str] = {}  # 100,000 images share a few hundred distinct texts
        sizes = (NUMERIC.itemsize, SMALL[0] * SMALL[1])
        first = first_rows(digests)
        every, missing = np.arange(len(first)), 0
        for rows in chunked(np.flatnonzero(first == every).tolist()):
            row_of = {digest: row for row in rows if (digest := digests[row]) is not None}
            found = self._select("digest, numbers, words, length(small)", row_of)
            for digest, record, texts, length in found:
                if (len(record), length) != sizes:
                    continue
                row = row_of.pop(digest)
                numeric[row] = np.frombuffer(record, NUMERIC)[0]
                for name, value in zip(TEXT, json.loads(texts), strict=True):
                    text[name][row] = interned.setdefault(value, value)
            missing += len(row_of)
        again = np.flatnonzero(first != every)
        for start in range(0, len(again), COPY_BATCH):
            some = again[start : start + COPY_BATCH]
            for column in (numeric, *text.values()):
                column[some] = column[first[some]]
        return not missing

    def small_images(self, digests: Sequence[str | None]) -> NDArray[np.uint8]:
        """Return the small grey images, uint8 (len(digests), 64, 64); zeros for None.

        Raises LostTableError for a digest without a row.
        """
        rows_of = _rows_of(digests)
        out = np.zeros((len(digests), *SMALL), np.uint8)
        for digest, blob in self._select("digest, small", list(rows_of)):
            if len(blob) == SMALL[0] * SMALL[1]:
                out[rows_of.pop(digest)] = np.frombuffer(blob, np.uint8).reshape(SMALL)
        if rows_of:
            raise lost_error(self.path)
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


def measurements_path(cache: Cache, dataset: ImageDataset) -> Path:
    """Return the file of a dataset's measurements: each range of values has its own."""
    value_range = () if dataset.arrays is not None else dataset.value_range or ()
    return cache.measurements_file("-".join([str(FORMAT), *map(repr, value_range)]))


@dataclass(frozen=True)
class _Measurer:
    """A :class:`kindsight.dataset.reading.process_files.FileProcessor` that measures images."""

    value_range: ValueRange | None

    def read(self, digest: str, data: bytes | NDArray[np.uint8]) -> MeasuredImage:
        return measure_image(data, digest, self.value_range)

    def failed(self, digest: str, error: ImageError) -> MeasuredImage:
        return unreadable(digest, b"", error)

    def collected(self) -> list[MeasuredImage]:
        return []


class MeasuringObserver:
    """Measure images while they are decoded for feature extraction.

    A context manager. :func:`measure_dataset` then finds these measurements in the cache, so that
    each image is read once for both purposes.

    Parameters
    ----------
    cache : Cache
        Cache that stores the measurements.
    dataset : ImageDataset
        The images.
    """

    def __init__(self, cache: Cache, dataset: ImageDataset) -> None:
        self._table = MeasurementTable(measurements_path(cache, dataset))
        self._lock = threading.Lock()
        self._rows: list[MeasuredImage] = []

    def __enter__(self) -> MeasuringObserver:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._flush()
        finally:
            self._table.close()

    def decode(self, digest: str, data: bytes, spec: InputSpec) -> NDArray[np.uint8]:
        """Read an image; measure it unless it is measured already or read at another size."""
        if spec.size != SIZE:
            return read_loaded(data, spec)
        with self._lock:
            if self._table.known([digest]):
                return read_loaded(data, spec)
        return _decode_measured(digest, data, spec, lambda row: self.add([row]))

    def for_worker(self) -> Callable[[], CollectedMeasurements]:
        """Return the function that makes an observer in a worker process."""
        return CollectedMeasurements

    def add(self, rows: list[MeasuredImage]) -> None:
        """Store measurements in batches."""
        with self._lock:
            self._rows += rows
            if len(self._rows) >= WRITE_BATCH:
                self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._table.put(self._rows)
        self._rows = []


class CollectedMeasurements:
    """Measure images while a worker process of a cluster decodes them."""

    def __init__(self) -> None:
        self._rows: list[MeasuredImage] = []

    def decode(self, digest: str, data: bytes, spec: InputSpec) -> NDArray[np.uint8]:
        """Read an image; measure it unless it is read at another size."""
        if spec.size != SIZE:
            return read_loaded(data, spec)
        return _decode_measured(digest, data, spec, self._rows.append)

    def collected(self) -> list[MeasuredImage]:
        """Return the measurements since the last call."""
        rows, self._rows = self._rows, []
        return rows


def _decode_measured(
    digest: str, data: bytes, spec: InputSpec, add: Callable[[MeasuredImage], None]
) -> NDArray[np.uint8]:
    """Return a decoded image, and add its measurements."""
    try:
        image, facts = read_with_metadata(data, target=spec.size, value_range=spec.value_range)
    except ImageError as error:
        add(unreadable(digest, data, error))
        raise
    add(measure_decoded(digest, data, image, facts, spec.value_range))
    return image


def measure_dataset(
    dataset: ImageDataset,
    cache: Cache,
    *,
    workers: int | None = None,
    on: str | None = None,
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
    on : str, optional
        Where images are read, as for :func:`kindsight.distributed.open_executor`.
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
        If the cache cannot be used. A table that is damaged or deleted meanwhile is replaced.
    """
    for _ in range(2):
        # Damage may show in either of two tables, and only when a row is read.
        with contextlib.suppress(LostTableError):
            return _measure(dataset, cache, workers, on, progress)
    return _measure(dataset, cache, workers, on, progress)


def cached_measurements(dataset: ImageDataset, cache: Cache) -> Measurements | None:
    """Return the measurements of a dataset that has digests, if all are cached; else None.

    Raises CacheError if the cache cannot be used.
    """
    path = measurements_path(cache, dataset)
    if not path.is_file() or None in dataset.digest:
        return None
    numeric = np.zeros(len(dataset), NUMERIC)
    text = {name: np.full(len(dataset), "", object) for name in TEXT}

    def small_images(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        with closing(MeasurementTable(path)) as table:
            return table.small_images([dataset.digest[row] for row in rows])

    with contextlib.suppress(LostTableError), closing(MeasurementTable(path)) as table:
        if table.fill(dataset.digest, numeric, text):
            return Measurements(numeric, text, small_images)
    return None


def _rows_of(digests: Iterable[str | None]) -> dict[str, list[int]]:
    rows_of: dict[str, list[int]] = {}
    for row, digest in enumerate(digests):
        if digest is not None:
            rows_of.setdefault(digest, []).append(row)
    return rows_of


def _measure(
    dataset: ImageDataset,
    cache: Cache,
    workers: int | None,
    on: str | None,
    progress: Progress | None,
) -> tuple[ImageDataset, Measurements]:
    path = measurements_path(cache, dataset)
    table = MeasurementTable(path)

    def make(_: object) -> partial[_Measurer]:
        return partial(_Measurer, dataset.value_range)

    open_table = OpenTable(table)
    with closing(MeasurementTable(path)) as lookup_table:
        read = process_files(
            dataset,
            cache,
            table,
            lookup_table,
            lambda _: _Measurer(dataset.value_range),
            workers or count_cores(),
            progress,
            batch=READ_BATCH,
            cluster=Cluster(str(on), make) if is_remote(on) else None,
        )
        numeric, text = _columns(dataset, table, read, path)
    cache.prune(keep=path)

    measured = dataset.with_columns(digest=read.digests)

    def small_images(rows: NDArray[np.int64], _: OpenTable = open_table) -> NDArray[np.uint8]:
        with closing(MeasurementTable(path)) as table:
            return table.small_images([measured.digest[row] for row in rows.tolist()])

    return measured, Measurements(numeric, text, small_images)


def _columns(
    dataset: ImageDataset, table: MeasurementTable, read: ProcessedFiles, path: Path
) -> tuple[NDArray[np.void], dict[str, CodeColumn]]:
    """Return the columns from the table, completed by the errors of missing files."""
    n = len(dataset)
    numeric = np.zeros(n, NUMERIC)
    for name in NUMERIC.names or ():
        if NUMERIC[name].kind == "f":
            numeric[name] = np.nan
    text = {name: np.full(n, "", object) for name in TEXT}
    if not table.fill(read.digests, numeric, text):
        raise lost_error(path)
    for row, error in read.errors.items():
        text["code"][row], text["reason"][row] = error.code, error.reason
    return numeric, {name: CodeColumn.of(column) for name, column in text.items()}
