"""A table of the cache: features by content digest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kindsight.cache.sqlite_table import SqliteFile, chunked, placeholders
from kindsight.errors import ImageError

__all__ = ["FeatureRow", "FeatureTable"]


@dataclass(frozen=True)
class FeatureRow:
    """What the cache keeps of one image.

    Parameters
    ----------
    digest : str
        The content digest of the file.
    vector : array or None
        Its features, float32 (width,); None for an image that cannot be read.
    jpeg : bytes
        The resized image as the network saw it, as a JPEG: for reports, and for comparing
        networks without reading the image again.
    height, width : int
        Of the image before it was resized (a large JPEG is decoded at a half or less).
    code, reason : str
        Why it cannot be read, as in :class:`kindsight.errors.ImageError`; empty otherwise.
    """

    digest: str
    vector: NDArray[np.float32] | None
    jpeg: bytes = b""
    height: int = 0
    width: int = 0
    code: str = ""
    reason: str = ""


class FeatureTable(SqliteFile):
    """Features by content digest, for one backbone, weights and input spec.

    Parameters
    ----------
    path : pathlib.Path
        The SQLite file, made if it is not there.
    width : int
        How many numbers an image's features have; rows of another length count as absent.
    """

    schema = """
        CREATE TABLE IF NOT EXISTS images (
            digest TEXT PRIMARY KEY, vector BLOB, jpeg BLOB, height INT, width INT,
            code TEXT, reason TEXT
        );
        CREATE TABLE IF NOT EXISTS by_keras (
            digest TEXT, model TEXT, vector BLOB, PRIMARY KEY (digest, model)
        );
    """
    probe = "SELECT digest, vector, jpeg, height, width, code, reason FROM images LIMIT 0"

    def __init__(self, path: Path, width: int) -> None:
        self.width = width
        super().__init__(path)

    def known(self, digests: Iterable[str]) -> set[str]:
        """Return those of `digests` that the table has a row for."""
        size = 4 * self.width
        return {
            digest
            for digest, length, code in self._select("digest, length(vector), code", digests)
            if (code in ImageError.CODES if code else length == size)
        }

    def problems(self, digests: Iterable[str]) -> dict[str, tuple[str, str]]:
        """Return (code, reason) of those images that cannot be read."""
        return {
            digest: (code, str(reason))
            for digest, code, reason in self._select("digest, code, reason", digests)
            if code in ImageError.CODES
        }

    def vectors(self, digests: Sequence[str]) -> NDArray[np.float32]:
        """Return the features of `digests`, float32 (len(digests), width), in that order.

        Raises
        ------
        KeyError
            For a digest that the table does not have.
        """
        places: dict[str, list[int]] = {}
        for place, digest in enumerate(digests):
            places.setdefault(digest, []).append(place)
        out = np.empty((len(digests), self.width), np.float32)
        for digest, blob in self._select("digest, vector", list(places)):
            if isinstance(blob, bytes) and len(blob) == 4 * self.width:
                out[places.pop(digest)] = np.frombuffer(blob, "<f4")
        if places:
            raise KeyError(next(iter(places)))
        return out

    def images(self, digests: Iterable[str]) -> dict[str, FeatureRow]:
        """Return the rows, without their vectors, of those images that have a JPEG."""
        return {
            digest: FeatureRow(digest, None, jpeg, height, width)
            for digest, jpeg, height, width in self._select("digest, jpeg, height, width", digests)
            if jpeg
        }

    def sizes(self, digests: Iterable[str]) -> list[tuple[int, int]]:
        """Return (height, width) before resizing of each different image among `digests`."""
        rows = self._select("code, height, width", digests)
        return [(height, width) for code, height, width in rows if not code and height and width]

    def keras_vectors(self, model: str, digests: Iterable[str]) -> dict[str, NDArray[np.float32]]:
        """Return what Keras itself computed for images with the model file of this digest."""
        found: dict[str, NDArray[np.float32]] = {}
        for chunk in chunked(list(dict.fromkeys(digests))):
            query = (
                "SELECT digest, vector FROM by_keras "
                f"WHERE model = ? AND digest IN ({placeholders(chunk)})"
            )
            with self._reading() as connection:
                for digest, blob in connection.execute(query, [model, *chunk]):
                    if isinstance(blob, bytes) and len(blob) == 4 * self.width:
                        found[digest] = np.frombuffer(blob, "<f4")
        return found

    def put_keras(self, model: str, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Keep what Keras itself computed for images."""
        values = [
            (digest, model, np.ascontiguousarray(vector, "<f4").tobytes())
            for digest, vector in vectors.items()
        ]
        with self._writing() as connection:
            connection.executemany("INSERT OR REPLACE INTO by_keras VALUES (?,?,?)", values)

    def put(self, rows: Sequence[FeatureRow]) -> None:
        """Write rows in one transaction; a row that is there already is replaced."""
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
