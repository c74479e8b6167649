"""Places of equal size in one file, and the table of which content lies in which.

A place is reserved first, its pixels are written and brought to the disk next, and only then is it
named in the table: a process that is killed, or a power cut, leaves places without a name, never a
name without its pixels. Two processes reserve different places.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kindsight.cache.sqlite_table import SqliteFile
from kindsight.errors import CacheError, ImageError

__all__ = ["FORMAT", "PlaceTable", "PlaceWriter", "PlacedRow"]

FORMAT = 1
"""Raised whenever the same file and spec would give other pixels."""

# Places that a process reserves at once.
BLOCK = 256


class PlacedRow(NamedTuple):
    """What the table says of one image; place -1 for one that cannot be read."""

    digest: str
    place: int
    height: int = 0
    width: int = 0
    code: str = ""
    reason: str = ""


class PlaceTable(SqliteFile):
    """Where the numbers of each content lie: its pixels, or what was made of them.

    Parameters
    ----------
    path : pathlib.Path
        The SQLite file; the numbers are beside it, in a file that ends in ``.pixels``.
    bytes_each : int
        How many bytes a place has.
    """

    schema = """
        CREATE TABLE IF NOT EXISTS images (
            digest TEXT PRIMARY KEY, place INT, height INT, width INT, code TEXT, reason TEXT
        );
        CREATE TABLE IF NOT EXISTS reserved (one INT PRIMARY KEY CHECK (one = 1), places INT);
        INSERT OR IGNORE INTO reserved VALUES (1, 0);
    """
    probe = (
        "SELECT p.digest, p.place, p.height, p.width, p.code, p.reason, r.places "
        "FROM images p, reserved r LIMIT 0"
    )

    def __init__(self, path: Path, bytes_each: int) -> None:
        self.pixels = path.with_suffix(".pixels")
        self.bytes_each = bytes_each
        super().__init__(path)

    def _open(self) -> None:
        super()._open()
        # Rows whose pixels are gone: the file was cut or deleted. Done before anything is written,
        # which would make the file long enough again.
        with self._writing() as connection:
            # Looked at while nobody else can name a place: pixels are written before they are
            # named, so the file is long enough for every row that is there by now.
            whole = self.pixels.stat().st_size // self.bytes_each if self.pixels.exists() else 0
            connection.execute(
                "DELETE FROM images WHERE code = '' AND "
                "(typeof(place) != 'integer' OR place NOT BETWEEN 0 AND ?)",
                (whole - 1,),
            )

    def known(self, digests: Iterable[str]) -> set[str]:
        """Return those of `digests` that the table has a row for."""
        return {
            digest
            for digest, code in self._select("digest, code", digests)
            if not code or code in ImageError.CODES
        }

    def problems(self, digests: Iterable[str]) -> dict[str, tuple[str, str]]:
        """Return (code, reason) of those images that cannot be read."""
        return {
            digest: (code, str(reason))
            for digest, code, reason in self._select("digest, code, reason", digests)
            if code in ImageError.CODES
        }

    def places(self, digests: Sequence[str]) -> NDArray[np.int64]:
        """Return the place of each of `digests`, int64 (n,).

        Raises
        ------
        KeyError
            For a digest whose pixels are not there.
        """
        found = dict(self._select("digest, place", digests))
        return np.array([found[digest] for digest in digests], np.int64)

    def sizes(self, digests: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Return (height, width) before resizing of each different image among `digests`."""
        rows = self._select("digest, code, height, width", digests)
        return {
            digest: (height, width)
            for digest, code, height, width in rows
            if not code and height and width
        }

    def reserve(self, places: int) -> int:
        """Reserve places that no other process will use; return the first."""
        with self._writing() as connection:
            (first,) = connection.execute("SELECT places FROM reserved").fetchone()
            connection.execute("UPDATE reserved SET places = ?", (first + places,))
        return int(first)

    def give_back(self, first: int, end: int) -> None:
        """Free reserved places from `first` to before `end`, if none beyond them is reserved."""
        with self._writing() as connection:
            connection.execute("UPDATE reserved SET places = ? WHERE places = ?", (first, end))

    def put(self, rows: Sequence[PlacedRow]) -> None:
        """Name places whose pixels are written; what another process named already stays."""
        with open(self.pixels, "ab") as file:  # noqa: PTH123 (as below)
            os.fsync(file.fileno())
        with self._writing() as connection:
            connection.executemany("INSERT OR REPLACE INTO images VALUES (?,?,?,?,?,?)", rows)

    def _put_aside(self) -> None:
        # A process that has the pixels mapped keeps them; those written from now on are another
        # file's.
        super()._put_aside()
        self.pixels.unlink(missing_ok=True)


class PlaceWriter:
    """Writes resized images, or other arrays, to their places; a :class:`.once.Maker`."""

    def __init__(self, table: PlaceTable) -> None:
        self._table = table
        self._lock = threading.Lock()
        self._next = self._end = 0
        # Made if it is not there; opened for writing anywhere, which "ab" is not.
        handle = os.open(table.pixels, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        self._file = os.fdopen(handle, "r+b", buffering=0)

    def make(self, digest: str, pixels: NDArray[Any], size: tuple[int, int]) -> PlacedRow:
        """Write what fills a place."""
        with self._lock:
            if self._next == self._end:
                self._next = self._table.reserve(BLOCK)
                self._end = self._next + BLOCK
            place, self._next = self._next, self._next + 1
            try:
                self._file.seek(place * self._table.bytes_each)
                written = self._file.write(pixels.data)
            except OSError as error:
                raise CacheError(
                    f"The cache must be able to use {self._table.pixels}: {error.strerror}. Free "
                    "some of its disk, or set KINDSIGHT_CACHE to another folder."
                ) from error
        if written != pixels.nbytes:
            raise CacheError(f"The disk of {self._table.pixels} must not be full. It is.")
        return PlacedRow(digest, place, *size)

    def failed(self, digest: str, error: ImageError) -> PlacedRow:
        """Return the row of an image that cannot be read."""
        return PlacedRow(digest, -1, code=error.code, reason=error.reason)

    def close(self) -> None:
        """Close the file, and free the places that were not used."""
        self._file.close()
        if self._next < self._end:
            self._table.give_back(self._next, self._end)
