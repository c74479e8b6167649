"""What is done with one picture to get its features; many are under way at once."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kindsight.catalog import Catalog
from kindsight.errors import PictureError
from kindsight.pictures import InputSpec, content_digest, read_picture, resize_picture
from kindsight.runtime import InterpreterPool
from kindsight.training.kept import to_jpeg
from kindsight.training.tables import FeatureRow, FeatureTable, FileStamp

__all__ = ["Outcome", "Worker"]


@dataclass(frozen=True)
class Outcome:
    """What became of one row of a catalog.

    Parameters
    ----------
    row : int
        Which one.
    digest : str or None
        Of its content, where that could be read.
    stamp : FileStamp or None
        Of its file before it was read, where a later change is sure to show.
    file : str
        Its absolute path; empty for a picture in memory.
    computed : FeatureRow or None
        What is new to the cache; None for a copy of a picture that is done.
    error : PictureError or None
        Why there are no features.
    """

    row: int
    digest: str | None = None
    stamp: FileStamp | None = None
    file: str = ""
    computed: FeatureRow | None = None
    error: PictureError | None = None


@dataclass
class Worker:
    """Reads, digests, resizes and runs one picture; called on many threads.

    Parameters
    ----------
    catalog : Catalog
        Whose rows it is called with.
    spec : InputSpec
        How pictures are resized.
    pool : InterpreterPool
        The network.
    table : FeatureTable
        Where pictures that have features are found by their content; of the worker alone.
    """

    catalog: Catalog
    spec: InputSpec
    pool: InterpreterPool
    table: FeatureTable
    _taken: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, row: int) -> Outcome:
        """Return what became of a row; never raises for a picture that cannot be read."""
        stamp, file = None, ""
        if self.catalog.arrays is None:
            file = str(self.catalog.file(row))
            stamp = _settled_stamp(file)
        try:
            data = self.catalog.load(row)
        except PictureError as error:
            if error.code != "empty":
                return Outcome(row, error=error)
            digest = content_digest(b"")  # by which it is known the next time
            return Outcome(row, digest, stamp, file, _failed(digest, error), error)
        digest = content_digest(data)
        with self._lock:
            if digest in self._taken or self.table.known([digest]):
                return Outcome(row, digest, stamp, file)
            self._taken.add(digest)
        try:
            computed = self._run(digest, data)
        except PictureError as error:
            return Outcome(row, digest, stamp, file, _failed(digest, error), error)
        return Outcome(row, digest, stamp, file, computed)

    def _run(self, digest: str, data: bytes | NDArray[np.uint8]) -> FeatureRow:
        picture = read_picture(data, target=self.spec.size) if isinstance(data, bytes) else data
        pixels = resize_picture(picture, self.spec)
        vector = self.pool.run(pixels)
        if not np.isfinite(vector).all():
            raise PictureError("corrupt", "The network's answer to it is not finite.")
        height, width = picture.shape[:2]
        return FeatureRow(digest, vector, to_jpeg(pixels), height, width)


def _settled_stamp(file: str) -> FileStamp | None:
    """Return the stamp of a file before it is read; None where a change might not show in it."""
    now = time.time()
    try:
        stamp = FileStamp.of(file)
    except (OSError, ValueError):  # reading it will say why
        return None
    return stamp if stamp.settled(now) else None


def _failed(digest: str, error: PictureError) -> FeatureRow:
    return FeatureRow(digest, None, code=error.code, reason=error.reason)
