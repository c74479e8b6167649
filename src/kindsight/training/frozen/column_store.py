"""The columns that a head is fitted to, in memory or, where they are too large, in a file.

The file has no name (on Windows, it is deleted with its last handle), so that nothing is left of a
process that is killed. It is read with plain reads, never mapped: the process only needs memory for
the blocks at work, and the operating system caches as much of the file as free memory allows.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from kindsight.cache.location import choose_cache
from kindsight.errors import CacheError
from kindsight.threads import count_cores, map_ordered
from kindsight.training.frozen.feature_rows import FeatureRows

__all__ = ["ColumnFile", "ColumnStore", "Columns"]

Floats = NDArray[np.float32]

MAX_IN_MEMORY = 200_000_000
"""Default of the bytes of float32 columns that are held in memory."""

READ_ROWS, PIECE_ROWS = 2048, 512
"""Number of images whose features are read at once, and whose columns a thread computes at once."""
MOST_THREADS = 8
"""Maximum number of computing threads: a single thread reads the features for them."""

DTYPE = np.dtype("<f2")
"""dtype of columns in a file; reading them takes a quarter of the time of a fit."""


class ColumnFile:
    """Columns in half precision, float16 (rows, columns), in a file; threads may read it at once.

    Parameters
    ----------
    rows, columns : int
        The shape; the disk must have space for it.
    folder : pathlib.Path
        A folder on that disk.

    Raises
    ------
    CacheError
        If there is too little space, or the file cannot be written or read.
    """

    def __init__(self, rows: int, columns: int, folder: Path) -> None:
        self.shape, self._folder = (rows, columns), folder
        self._row = DTYPE.itemsize * columns
        self._lock = threading.Lock()
        try:
            free = shutil.disk_usage(folder).free
            if rows * self._row > free:
                raise CacheError(
                    f"Not enough space on the disk of {folder}: the columns of {rows:,} images, "
                    f"which the head is fitted to, need {rows * self._row / 1e9:.1f} GB, but "
                    f"{free / 1e9:.1f} GB are free. {self._cure()}"
                )
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        except OSError as error:
            self._fail(error)

    def __len__(self) -> int:
        return self.shape[0]

    def append(self, values: NDArray[Any]) -> None:
        """Write the next rows, float (n, columns)."""
        left = np.ascontiguousarray(values, DTYPE).reshape(-1).view(np.uint8).data
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._fail(error)

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """Return consecutive rows, float16 (n, columns)."""
        start, stop, _ = rows.indices(self.shape[0])
        out = np.empty((max(0, stop - start), self.shape[1]), DTYPE)
        at, left = start * self._row, out.reshape(-1).view(np.uint8).data
        try:
            while left:
                count = self._read(left, at)
                if not count:
                    raise OSError("the file ends early")
                at, left = at + count, left[count:]
        except OSError as error:
            self._fail(error)
        return out

    def _read(self, buffer: memoryview, at: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._file.fileno(), [buffer], at)
        with self._lock:  # Windows
            self._file.seek(at)
            return self._file.readinto(buffer)

    def _fail(self, error: OSError) -> NoReturn:
        raise CacheError(
            f"Cannot use a temporary file in {self._folder} ({error.strerror or error}). "
            f"{self._cure()}"
        ) from error

    def _cure(self) -> str:
        other = choose_cache(self._folder, "a folder on another disk")
        return f"Free some space on it, or {other}."

    def close(self) -> None:
        """Close the file, which deletes it."""
        self._file.close()


def _pieces(features: FeatureRows) -> Iterator[Floats]:
    for start in range(0, len(features), READ_ROWS):
        block = features[start : start + READ_ROWS]
        for at in range(0, len(block), PIECE_ROWS):
            yield block[at : at + PIECE_ROWS]


Columns: TypeAlias = NDArray[Any] | ColumnFile


@dataclass(frozen=True)
class ColumnStore:
    """Where the columns of a fit are held.

    Parameters
    ----------
    folder : pathlib.Path, optional
        Where the file of large columns is created; the system's folder of temporary files if
        omitted.
    max_bytes : int
        Bytes of float32 columns that are held in memory; more are stored in a file.
    """

    folder: Path | None = None
    max_bytes: int = MAX_IN_MEMORY

    @contextmanager
    def computed(
        self,
        features: FeatureRows,
        function: Callable[[Floats], Floats],
        width: int,
        report: Callable[[int], None] = lambda done: None,
    ) -> Iterator[Columns]:
        """Compute columns from features, block by block, and hold them until the block ends.

        - `function`: takes float32 (m, features), returns float32 (m, width).
        - `report`: called with the number of rows that are in a file.
        """
        if 4 * width * len(features) <= self.max_bytes:
            yield features.map(function)
            return
        file = ColumnFile(len(features), width, self.folder or Path(tempfile.gettempdir()))
        try:
            # The sums in a matrix product may depend on the number of BLAS threads.
            with threadpool_limits(1, user_api="blas"):
                threads = min(count_cores(), MOST_THREADS)
                done = 0
                for values in map_ordered(function, _pieces(features), threads, 1):
                    file.append(values)
                    done += len(values)
                    report(done)
            yield file
        finally:
            file.close()
