"""Features once: each picture is read, resized and run through the frozen backbone a single time.

What was computed is found again by the content of the file, so it does not matter how the file is
called, in which folder it lies, or how the data are split. A file whose size and times have not
changed is not even read to know its content.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.cache import Cache
from kindsight.catalog import Catalog
from kindsight.errors import PictureError
from kindsight.models.build import BackboneFiles
from kindsight.pictures import InputSpec, content_digest, read_picture, resize_picture
from kindsight.runtime import InterpreterPool, map_ordered, single_threaded_opencv
from kindsight.training.tables import FeatureRow, FeatureTable, FileIndex, FileStamp

__all__ = ["Features", "KeptPicture", "compute_features", "kept_pictures"]

Progress = Callable[[int, int], None]

# Of the JPEG that is kept of each resized picture: some 15 kB, no damage that an eye sees.
JPEG_QUALITY = 92
# What a kill -9 can lose: at most this many seconds of computed features.
FLUSH_SECONDS = 1.0


@dataclass(frozen=True)
class Features:
    """The features of a catalog's pictures.

    Parameters
    ----------
    catalog : Catalog
        The readable pictures, digests filled in.
    vectors : array
        float32 (pictures, width), in the catalog's order.
    problems : tuple of PictureError
        Those that were set aside, with their paths.
    problem_labels : tuple of str or None
        The labels of those that were set aside.
    computed, reused : int
        How many distinct pictures went through the network, and how many did not have to.
    table : pathlib.Path
        Where they are kept.
    """

    catalog: Catalog
    vectors: NDArray[np.float32]
    problems: tuple[PictureError, ...]
    problem_labels: tuple[str | None, ...]
    computed: int
    reused: int
    table: Path


@dataclass(frozen=True)
class KeptPicture:
    """A picture as the network saw it.

    Parameters
    ----------
    pixels : array
        uint8 (h, w, 3) of the network's size.
    height, width : int
        Of the picture before, so that it can be shown in proportion.
    """

    pixels: NDArray[np.uint8]
    height: int
    width: int


@dataclass(frozen=True)
class _Outcome:
    """What became of one row: a digest, and what was computed if anything was."""

    row: int
    digest: str | None = None
    stamp: FileStamp | None = None
    file: str = ""
    computed: FeatureRow | None = None
    error: PictureError | None = None


@dataclass
class _Worker:
    """Reads, digests, resizes and runs one picture; called on many threads."""

    catalog: Catalog
    spec: InputSpec
    pool: InterpreterPool
    done: set[str]
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, row: int) -> _Outcome:
        stamp, file = None, ""
        try:
            if self.catalog.arrays is None:
                file = str(self.catalog.file(row))
                stamp = FileStamp.of(file)
            data = self.catalog.load(row)
        except OSError as error:
            return _Outcome(row, error=PictureError("missing", f"{error.strerror}."))
        except PictureError as error:
            return _Outcome(row, error=error)
        digest = content_digest(data)
        with self.lock:
            if digest in self.done:
                return _Outcome(row, digest, stamp, file)
            self.done.add(digest)
        try:
            computed = self._run(digest, data)
        except PictureError as error:
            return _Outcome(row, digest, stamp, file, _failed(digest, error), error)
        return _Outcome(row, digest, stamp, file, computed)

    def _run(self, digest: str, data: bytes | NDArray[np.uint8]) -> FeatureRow:
        picture = read_picture(data, target=self.spec.size) if isinstance(data, bytes) else data
        pixels = resize_picture(picture, self.spec)
        vector = self.pool.run(pixels)
        if not np.isfinite(vector).all():
            raise PictureError("corrupt", "The network's answer to it is not finite.")
        height, width = picture.shape[:2]
        return FeatureRow(digest, vector, _to_jpeg(pixels), height, width)


def _failed(digest: str, error: PictureError) -> FeatureRow:
    return FeatureRow(digest, None, code=error.code, reason=error.reason)


def _to_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    good, data = cv2.imencode(
        ".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    return data.tobytes() if good else b""


def kept_pictures(path: Path, width: int, digests: Sequence[str]) -> list[KeptPicture | None]:
    """Return the resized pictures that the cache kept, in the order of `digests`.

    Parameters
    ----------
    path : pathlib.Path
        The table of features.
    width : int
        How many numbers a row has.
    digests : sequence of str
        Which pictures.
    """
    with closing(FeatureTable(path, width)) as table:
        rows = table.pictures(digests)
    kept: list[KeptPicture | None] = []
    for digest in digests:
        row = rows.get(digest)
        pixels = None if row is None else cv2.imdecode(np.frombuffer(row.jpeg, np.uint8), 1)
        if row is None or pixels is None:
            kept.append(None)
        else:
            rgb = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
            kept.append(KeptPicture(rgb, row.height, row.width))
    return kept


def compute_features(
    catalog: Catalog,
    backbone: BackboneFiles,
    spec: InputSpec,
    cache: Cache,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Features:
    """Find or compute the features of all pictures of a catalog.

    Parameters
    ----------
    catalog : Catalog
        Which pictures.
    backbone : BackboneFiles
        The network, pixels to features, as a LiteRT file.
    spec : InputSpec
        How pictures are resized; of the network's size.
    cache : Cache
        Where features are kept.
    workers : int, optional
        How many runs of the network at once; the number of cores if omitted.
    progress : callable, optional
        Called with (pictures done, pictures in all), from the calling thread.

    Returns
    -------
    Features
    """
    path = feature_table_path(cache, backbone, spec)
    with (
        closing(FeatureTable(path, backbone.layout.width)) as table,
        closing(FileIndex(cache.files_file)) as index,
    ):
        digests = _known_digests(catalog, index)
        done = table.known(digest for digest in digests if digest is not None)
        todo = [row for row, digest in enumerate(digests) if digest not in done]
        ledger = _Ledger(digests, table, index, progress, len(digests) - len(todo))
        if todo:
            pool = InterpreterPool(backbone.tflite, workers)
            worker = _Worker(catalog, spec, pool, done)
            with single_threaded_opencv():
                # One thread more than networks: while they compute, it reads and decodes.
                for outcome in map_ordered(worker, todo, pool.workers + 1):
                    ledger.add(outcome)
            ledger.flush()
        result = _collect(catalog, ledger, path)
    cache.prune(keep=path)
    return result


def feature_table_path(cache: Cache, backbone: BackboneFiles, spec: InputSpec) -> Path:
    """Return where the features made by this backbone from pictures resized so are kept."""
    return cache.features_file(f"{backbone.key}-{spec.key()}")


def _known_digests(catalog: Catalog, index: FileIndex) -> list[str | None]:
    """Digests of those rows whose content is known without reading."""
    if catalog.arrays is not None:
        return [None] * len(catalog)
    files = [str(catalog.file(row)) for row in range(len(catalog))]
    found = index.lookup(files)
    return [found.get(file) for file in files]


class _Ledger:
    """Takes down outcomes and writes them to the cache in batches."""

    def __init__(
        self,
        digests: list[str | None],
        table: FeatureTable,
        index: FileIndex,
        progress: Progress | None,
        done: int,
    ) -> None:
        self.digests, self.table, self.index = digests, table, index
        self.errors: dict[int, PictureError] = {}
        self.computed = 0
        self._progress, self._done = progress, done
        self._rows: list[FeatureRow] = []
        self._stamps: list[tuple[str, FileStamp, str]] = []
        self._flushed = time.monotonic()
        self._report()

    def add(self, outcome: _Outcome) -> None:
        """Take one outcome down."""
        self.digests[outcome.row] = outcome.digest
        if outcome.error is not None and outcome.digest is None:
            self.errors[outcome.row] = outcome.error
        if outcome.computed is not None:
            self._rows.append(outcome.computed)
            self.computed += outcome.computed.vector is not None
        if outcome.stamp is not None and outcome.digest is not None:
            self._stamps.append((outcome.file, outcome.stamp, outcome.digest))
        self._done += 1
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was taken down since the last time."""
        if self._rows:
            self.table.put(self._rows)
        if self._stamps:
            self.index.put(self._stamps)
        self._rows, self._stamps = [], []
        self._flushed = time.monotonic()
        self._report()

    def _report(self) -> None:
        if self._progress is not None:
            self._progress(self._done, len(self.digests))


def _collect(catalog: Catalog, ledger: _Ledger, path: Path) -> Features:
    """Part the readable pictures from those set aside, and fetch the features."""
    digests = ledger.digests
    failed = ledger.table.problems(digest for digest in digests if digest is not None)
    errors = dict(ledger.errors)
    for row, digest in enumerate(digests):
        if digest in failed:
            errors[row] = PictureError(*failed[digest])
    good = np.array([row for row in range(len(catalog)) if row not in errors], np.int64)
    kept = catalog.with_columns(digest=digests)[good]
    return Features(
        kept,
        ledger.table.vectors([digest for digest in kept.digest if digest is not None]),
        tuple(_at(errors[row], catalog.path[row]) for row in sorted(errors)),
        tuple(catalog.label[row] for row in sorted(errors)),
        ledger.computed,
        len(set(kept.digest)) - ledger.computed,
        path,
    )


def _at(error: PictureError, path: str) -> PictureError:
    return PictureError(error.code, error.reason, path)
