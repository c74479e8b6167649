"""The table of the cache that measurements are kept in, by content."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from kindsight.catalog.checks.measure import NUMBERS, SMALL, WORDS, MeasuredPicture
from kindsight.errors import PictureError
from kindsight.sqlite_file import SqliteFile, chunks, marks

__all__ = ["MeasurementTable"]


class MeasurementTable(SqliteFile):
    """Measurements by content digest.

    Parameters
    ----------
    path : pathlib.Path
        The SQLite file, made if it is not there.
    """

    schema = """
        CREATE TABLE IF NOT EXISTS pictures (
            digest TEXT PRIMARY KEY, numbers BLOB, words TEXT, small BLOB, code TEXT, reason TEXT
        );
        CREATE TABLE IF NOT EXISTS thumbnails (digest TEXT PRIMARY KEY, jpeg BLOB);
    """
    probe = "SELECT digest, numbers, words, small, code, reason FROM pictures LIMIT 0"

    def known(self, digests: Iterable[str]) -> set[str]:
        """Return those of `digests` that the table has a row for."""
        found = self._select("digest, length(numbers), length(small)", digests)
        sizes = (NUMBERS.itemsize, SMALL[0] * SMALL[1])
        return {digest for digest, *lengths in found if tuple(lengths) == sizes}

    def problems(self, digests: Iterable[str]) -> dict[str, tuple[str, str]]:
        """Return (code, reason) of those pictures that cannot be read."""
        return {
            digest: (code, str(reason))
            for digest, code, reason in self._select("digest, code, reason", digests)
            if code in PictureError.CODES
        }

    def put(self, rows: Sequence[MeasuredPicture]) -> None:
        """Write rows in one transaction; a row that is there already is replaced."""
        values = [
            (
                row.digest, row.numbers.tobytes(), json.dumps([row.words[name] for name in WORDS]),
                row.small.tobytes(), row.words["code"], row.words["reason"],
            )
            for row in rows
        ]  # fmt: skip
        with self._writing() as connection:
            connection.executemany("INSERT OR REPLACE INTO pictures VALUES (?,?,?,?,?,?)", values)

    def fill(
        self,
        places: dict[str, list[int]],
        numbers: NDArray[np.void],
        words: dict[str, NDArray[np.object_]],
    ) -> None:
        """Copy rows to their places in columns.

        Parameters
        ----------
        places : dict of str to list of int
            Where each digest's row goes; digests that were found are taken out.
        numbers : array
            Records of :data:`NUMBERS`.
        words : dict of str to object array
        """
        same: dict[str, str] = {}  # the texts of 100,000 pictures are a few hundred different ones
        for digest, record, texts in self._select("digest, numbers, words", list(places)):
            if len(record) != NUMBERS.itemsize:
                continue
            where = places.pop(digest)
            numbers[where] = np.frombuffer(record, NUMBERS)
            for name, text in zip(WORDS, json.loads(texts), strict=True):
                words[name][where] = same.setdefault(text, text)

    def small(self, digests: Sequence[str | None]) -> NDArray[np.uint8]:
        """Return the pictures in small, uint8 (len(digests), 64, 64); zeros for None."""
        places: dict[str, list[int]] = {}
        for place, digest in enumerate(digests):
            if digest is not None:
                places.setdefault(digest, []).append(place)
        out = np.zeros((len(digests), *SMALL), np.uint8)
        for digest, blob in self._select("digest, small", list(places)):
            if len(blob) == SMALL[0] * SMALL[1]:
                out[places[digest]] = np.frombuffer(blob, np.uint8).reshape(SMALL)
        return out

    def thumbnails(self, digests: Iterable[str]) -> dict[str, bytes]:
        """Return the small coloured JPEGs of those pictures that have been shown before."""
        found: dict[str, bytes] = {}
        for chunk in chunks(list(dict.fromkeys(digests))):
            query = f"SELECT digest, jpeg FROM thumbnails WHERE digest IN ({marks(chunk)})"
            with self._reading() as connection:
                found.update(connection.execute(query, chunk).fetchall())
        return found

    def put_thumbnails(self, jpegs: dict[str, bytes]) -> None:
        """Keep small coloured JPEGs."""
        with self._writing() as connection:
            connection.executemany("INSERT OR REPLACE INTO thumbnails VALUES (?,?)", jpegs.items())
