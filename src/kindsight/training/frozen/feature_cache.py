"""The feature cache: a SQLite table of features by the content digest of the image file.

The tables of large datasets store half precision, in files with another name. Each 8 columns of an
image share an exponent, the power of two above their largest value. Features of any magnitude
therefore fit, and an image's row does not depend on other images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.cache.sqlite_table import CHUNK, SqliteFile, chunked, lost_error, placeholders
from kindsight.errors import ImageError
from kindsight.training.near_duplicates import measure_similarity

__all__ = ["HALF", "FeatureRow", "FeatureTable", "row_bytes"]

HALF = "-float16"
"""Suffix of the name, without ``.sqlite``, of a table in half precision."""

# Rows whose features are converted at once.
DECODED = 256
# Columns that share an exponent.
GROUP = 8
# Range of exponents for which 2 ** exponent and its inverse are float32 numbers.
EXPONENTS = (-126, 127)


def row_bytes(width: int, half: bool) -> int:
    """Return the number of bytes of an image's features in a table."""
    return 2 * width + -(-width // GROUP) if half else 4 * width


def _to_half(vectors: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return finite features (n, width) as bytes, uint8 (n, row_bytes): values, then exponents."""
    starts = np.arange(0, vectors.shape[1], GROUP)
    largest = np.maximum.reduceat(np.abs(vectors), starts, axis=1)
    exponents = np.clip(np.frexp(largest)[1], *EXPONENTS).astype(np.int8)
    scaled = vectors * _factors(-exponents.astype(np.int32), vectors.shape[1])
    return np.concatenate([scaled.astype("<f2").view(np.uint8), exponents.view(np.uint8)], axis=1)


def _from_half(rows: NDArray[np.uint8], width: int) -> NDArray[np.float32]:
    """Return the features of rows of bytes, as :func:`_to_half` returns them."""
    values = np.ascontiguousarray(rows[:, : 2 * width]).view("<f2").astype(np.float32)
    exponents = np.ascontiguousarray(rows[:, 2 * width :]).view(np.int8)
    values *= _factors(exponents.astype(np.int32), width)
    return values


def _factors(exponents: NDArray[np.int32], width: int) -> NDArray[np.float32]:
    return np.repeat(np.ldexp(np.float32(1), exponents), GROUP, axis=1)[:, :width]


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
        The resized image as a JPEG, for reports and for the parity check; empty in a table in half
        precision, for which images are read again.
    grey : array or None
        The small grey image of the near-duplicate search, uint8 (64, 64), if it is stored with the
        features.
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
    grey: NDArray[np.uint8] | None = None


class FeatureTable(SqliteFile):
    """Features by content digest, of one backbone, weights and input spec.

    Parameters
    ----------
    path : pathlib.Path
        The SQLite file, created if absent; it has half precision if its name ends in :data:`HALF`.
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
        self.width, self.half = width, path.stem.endswith(HALF)
        self._bytes = row_bytes(width, self.half)
        super().__init__(path)

    def known(self, digests: Iterable[str]) -> set[str]:
        """Return the digests that have a row."""
        return {
            digest
            for digest, length, code in self._select("digest, length(vector), code", digests)
            if (code in ImageError.CODES if code else length == self._bytes)
        }

    def require_known(self, digests: Sequence[str | None]) -> None:
        """Raise LostTableError for a digest without a row."""
        for start in range(0, len(digests), CHUNK):  # there may be millions
            chunk = [str(digest) for digest in digests[start : start + CHUNK]]
            if not self.known(chunk).issuperset(chunk):
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
        stored = np.dtype(np.uint8 if self.half else "<f4")
        out = np.empty((len(digests), self._bytes // stored.itemsize), stored)
        for digest, blob in self._select("digest, vector", list(rows)):
            if isinstance(blob, bytes) and len(blob) == self._bytes:
                out[rows.pop(digest)] = np.frombuffer(blob, stored)
        if rows:
            raise lost_error(self.path)
        if not self.half:
            return out
        values = np.empty((len(digests), self.width), np.float32)
        for at in range(0, len(digests), DECODED):
            values[at : at + DECODED] = _from_half(out[at : at + DECODED], self.width)
        return values

    def rows(self, digests: Iterable[str]) -> list[FeatureRow]:
        """Return the whole rows of those digests that have one."""
        given = list(digests)
        complete = self.known(given)
        problems = self.problems(complete)
        good = [digest for digest in given if digest in complete and digest not in problems]
        stored, vectors = self.images(good), self.vectors(good)
        found = []
        sizes = {digest: size for digest, *size in self._select("digest, height, width", good)}
        for digest, vector in zip(good, vectors, strict=True):
            jpeg = stored[digest].jpeg if digest in stored else b""
            found.append(FeatureRow(digest, vector, jpeg, *sizes[digest]))
        return found + [
            FeatureRow(digest, None, code=code, reason=reason)
            for digest, (code, reason) in problems.items()
        ]

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
            dtype of one entry.
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
        """Store a row for each digest: its entries of `numbers` and `greys`."""
        values = [
            (digest, record.tobytes(), grey.tobytes())
            for digest, record, grey in zip(digests, numbers, greys, strict=True)
        ]
        with self._writing() as connection:
            connection.executemany("INSERT OR REPLACE INTO similarity VALUES (?,?,?)", values)

    def put(self, rows: Sequence[FeatureRow]) -> None:
        """Write rows in one transaction, replacing those that exist."""
        # Grey images first: an image whose features are stored is not read again.
        if greys := [row.grey for row in rows if row.grey is not None]:
            digests, small = [row.digest for row in rows if row.grey is not None], np.stack(greys)
            self.put_similarity(digests, measure_similarity(small), small)
        values = [
            (row.digest, self._blob(row), row.jpeg, row.height, row.width, row.code, row.reason)
            for row in rows
        ]
        with self._writing() as connection:
            connection.executemany("INSERT OR REPLACE INTO images VALUES (?,?,?,?,?,?,?)", values)

    def _blob(self, row: FeatureRow) -> bytes | None:
        if row.vector is None:
            return None
        vector = np.ascontiguousarray(row.vector, "<f4")
        return _to_half(vector[None]).tobytes() if self.half else vector.tobytes()
