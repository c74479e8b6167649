"""The feature cache: a SQLite table of features by the content digest of the image file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.cache.sqlite_table import SqliteFile, chunked, lost_error, placeholders
from kindsight.errors import ImageError

__all__ = ["FeatureRow", "FeatureTable"]


@dataclass(frozen=True)
class FeatureRow:
    """The cached features of one image.

    Parameters
    ----------
    digest : str
        The content digest of the file.
    vector : array or None
        Its features, float32 (width,); None for an unreadable image.
    jpeg : bytes
        The resized image as a JPEG, for reports and for the parity check.
    height, width : int
        Size before resizing (a large JPEG is decoded at half or less).
    code, reason : str
        As in :class:`kindsight.errors.ImageError`; empty for a readable image.
    """

    digest: str
    vector: NDArray[np.float32] | None
    jpeg: bytes = b""
    height: int = 0
    width: int = 0
    code: str = ""
    reason: str = ""


class FeatureTable(SqliteFile):
    """Features by content digest, of one backbone, weights and input spec.

    Parameters
    ----------
    path : pathlib.Path
        The SQLite file, created if absent.
    width : int
        Number of features; rows of another length count as absent.
    """

    schema = """
        CREATE TABLE IF NOT EXISTS images (
            digest TEXT PRIMARY KEY, vector BLOB, jpeg BLOB, height INT, width INT,
            code TEXT, reason TEXT
        );
        CREATE TABLE IF NOT EXISTS similarity (digest TEXT PRIMARY KEY, numbers BLOB, grey BLOB);
    """
    probe = (
        "SELECT images.digest, vector, jpeg, height, width, code, reason, numbers, grey "
        "FROM images, similarity LIMIT 0"
    )

    def __init__(self, path: Path, width: int) -> None:
        self.width = width
        super().__init__(path)

    def known(self, digests: Iterable[str]) -> set[str]:
        """Return the digests that have a row."""
        size = 4 * self.width
        return {
            digest
            for digest, length, code in self._select("digest, length(vector), code", digests)
            if (code in ImageError.CODES if code else length == size)
        }

    def require_known(self, digests: Sequence[str]) -> None:
        """Raise LostTableError for a digest without a row."""
        if not self.known(digests).issuperset(digests):
            raise lost_error(self.path)

    def vectors(self, digests: Sequence[str]) -> NDArray[np.float32]:
        """Return the features of `digests`, float32 (len(digests), width), in that order.

        Raises
        ------
        LostTableError
            For a digest without a row.
        """
        rows: dict[str, list[int]] = {}
        for row, digest in enumerate(digests):
            rows.setdefault(digest, []).append(row)
        out = np.empty((len(digests), self.width), np.float32)
        for digest, blob in self._select("digest, vector", list(rows)):
            if isinstance(blob, bytes) and len(blob) == 4 * self.width:
                out[rows.pop(digest)] = np.frombuffer(blob, "<f4")
        if rows:
            raise lost_error(self.path)
        return out

    def images(self, digests: Iterable[str]) -> dict[str, FeatureRow]:
        """Return the rows, without their vectors, of the images that have a JPEG."""
        return {
            digest: FeatureRow(digest, None, jpeg, height, width)
            for digest, jpeg, height, width in self._select("digest, jpeg, height, width", digests)
            if jpeg
        }

    def sizes(self, digests: Iterable[str]) -> list[tuple[int, int]]:
        """Return (height, width) before resizing of each distinct image."""
        rows = self._select("code, height, width", digests)
        return [(height, width) for code, height, width in rows if not code and height and width]

    def similarity(
        self, column: str, digests: Sequence[str], dtype: np.dtype[Any]
    ) -> dict[str, NDArray[Any]]:
        """Return cached data of the near-duplicate search, by digest.

        Parameters
        ----------
        column : str
            ``"numbers"``, the measurements, or ``"grey"``, the small image.
        digests : sequence of str
            Content digests; those without a row are left out.
        dtype : numpy.dtype
            Of one entry.
        """
        found = {}
        for chunk in chunked(digests):
            query = f"SELECT digest, {column} FROM similarity WHERE digest IN "
            with self._reading() as connection:
                rows = connection.execute(query + f"({placeholders(chunk)})", chunk).fetchall()
            for digest, blob in rows:
                if isinstance(blob, bytes) and len(blob) == dtype.itemsize:
                    found[digest] = np.frombuffer(blob, dtype)[0]
        return found

    def put_similarity(
        self, digests: Sequence[str], numbers: NDArray[Any], greys: NDArray[np.uint8]
    ) -> None:
        """Store a row for each digest: an entry of `numbers` and of `greys`."""
        values = [
            (digest, record.tobytes(), grey.tobytes())
            for digest, record, grey in zip(digests, numbers, greys, strict=True)
        ]
        with self._writing() as connection:
            connection.executemany("INSERT OR REPLACE INTO similarity VALUES (?,?,?)", values)

    def put(self, rows: Sequence[FeatureRow]) -> None:
        """Write rows in one transaction, replacing those that exist."""
        values = [
            (
                row.digest,
                None if row.vector is None else np.ascontiguousarray(row.vector, "<f4").tobytes(),
                row.jpeg,
                row.height,
                row.width,
                row.code,
                row.reason,
            )
            for row in rows
        ]
        with self._writing() as connection:
            connection.executemany("INSERT OR REPLACE INTO images VALUES (?,?,?,?,?,?,?)", values)
