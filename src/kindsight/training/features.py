"""Features once: each picture is read, resized and run through the frozen backbone a single time.

What was computed is found again by the content of the file, so it does not matter how the file is
called, in which folder it lies, or how the data are split. A file whose size and times have not
changed is not even read to know its content.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kindsight.cache import Cache
from kindsight.catalog import Catalog
from kindsight.errors import CacheError, PictureError
from kindsight.models.build import BackboneFiles
from kindsight.pictures import InputSpec
from kindsight.runtime import InterpreterPool, map_ordered, single_threaded_opencv
from kindsight.training.sqlite_file import DamagedTableError
from kindsight.training.tables import FeatureRow, FeatureTable, FileIndex, FileStamp
from kindsight.training.worker import Outcome, Worker

__all__ = ["Features", "compute_features"]

Progress = Callable[[int, int], None]

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

    Raises
    ------
    CacheError
        Where the cache cannot be used. What is damaged in it is put aside and made anew.
    """
    for _ in range(2):
        # Damage may show in either of the two tables, and only where a row is read.
        with contextlib.suppress(DamagedTableError):
            return _compute(catalog, backbone, spec, cache, workers, progress)
    return _compute(catalog, backbone, spec, cache, workers, progress)


def _compute(
    catalog: Catalog,
    backbone: BackboneFiles,
    spec: InputSpec,
    cache: Cache,
    workers: int | None,
    progress: Progress | None,
) -> Features:
    path, width = feature_table_path(cache, backbone, spec), backbone.layout.width
    with (
        closing(FeatureTable(path, width)) as table,
        # Many threads look contents up; on a connection of their own no write holds them up.
        closing(FeatureTable(path, width)) as look_up,
        closing(FileIndex(cache.files_file)) as index,
    ):
        digests = _known_digests(catalog, index)
        done = table.known(digest for digest in digests if digest is not None)
        todo = [row for row, digest in enumerate(digests) if digest not in done]
        ledger = _Ledger(digests, table, index, progress, len(digests) - len(todo))
        if todo:
            pool = InterpreterPool(backbone.tflite, workers)
            worker = Worker(catalog, spec, pool, look_up)
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

    def add(self, outcome: Outcome) -> None:
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
    try:
        vectors = ledger.table.vectors([str(digest) for digest in kept.digest])
    except KeyError as error:
        raise CacheError(
            f"What is in the cache must stay there while it is used. Received: {path}, from which "
            "rows have gone: was the cache cleared just now? The same command computes them again."
        ) from error
    return Features(
        kept,
        vectors,
        tuple(_at(errors[row], catalog.path[row]) for row in sorted(errors)),
        tuple(catalog.label[row] for row in sorted(errors)),
        ledger.computed,
        len(set(kept.digest)) - ledger.computed,
        path,
    )


def _at(error: PictureError, path: str) -> PictureError:
    return PictureError(error.code, error.reason, path)
