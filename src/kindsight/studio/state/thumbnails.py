"""Small copies of a project's images, cached on this machine."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kindsight.cache.folder import Cache
from kindsight.checks.measurements import MeasurementTable
from kindsight.dataset.thumbnails import encode_thumbnail
from kindsight.digest import content_digest
from kindsight.errors import CacheError
from kindsight.images.read import read_bytes, read_image
from kindsight.threads import count_cores

__all__ = ["SIDE", "Thumbnails"]

SIDE = 256
"""Longer side in pixels: the cells of a grid are 128 to 170 points wide, with 2 pixels per point on
many screens."""

QUALITY = 80
"""JPEG quality."""


class Thumbnails:
    """Makes and finds thumbnails, JPEG files, by the digest of an image's file.

    Methods may be called from any thread. If the cache cannot be used, thumbnails are computed each
    time.

    Parameters
    ----------
    cache : Cache, optional
        Default: the cache of this machine.
    """

    def __init__(self, cache: Cache | None = None) -> None:
        self._path = (cache or Cache()).measurements_file(f"thumbnails-{SIDE}")
        self._lock = threading.Lock()
        # A page requests dozens at once, and large images need much memory while they are decoded.
        self._decoding = threading.BoundedSemaphore(count_cores())
        self._table: MeasurementTable | None = None

    def put(self, digest: str, image: NDArray[np.uint8]) -> None:
        """Store the thumbnail of an image that was read."""
        self._store(digest, encode_thumbnail(image, SIDE, QUALITY))

    def of_file(self, path: Path, digest: str = "") -> tuple[str, bytes]:
        """Return the digest of an image's file, and its thumbnail; ImageError if it is unreadable.

        - `digest`: if given, a cached thumbnail is found without reading the file.
        """
        if digest and (found := self._find(digest)):
            return digest, found
        data = read_bytes(path)
        digest = content_digest(data)
        found = self._find(digest)
        if not found:
            # Decoded at twice the size, so that resizing smooths it.
            with self._decoding:
                image = read_image(data, target=(2 * SIDE, 2 * SIDE))
                found = encode_thumbnail(image, SIDE, QUALITY)
            self._store(digest, found)
        return digest, found

    def close(self) -> None:
        """Close the cache's table."""
        with self._lock:
            if self._table is not None:
                self._table.close()
                self._table = None

    def _find(self, digest: str) -> bytes:
        try:
            with self._lock:
                return self._opened().thumbnails([digest]).get(digest, b"")
        except CacheError:
            self._lose()
            return b""

    def _store(self, digest: str, jpeg: bytes) -> None:
        try:
            with self._lock:
                self._opened().put_thumbnails({digest: jpeg})
        except CacheError:
            self._lose()

    def _opened(self) -> MeasurementTable:
        if self._table is None:
            self._table = MeasurementTable(self._path)
        return self._table

    def _lose(self) -> None:
        """Forget a table that was damaged or deleted; the next use opens a new one."""
        with self._lock:
            self._table = None
