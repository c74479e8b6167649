"""Arrays of equal size in the slots of one file, and a table from content digests to slots.

A slot is reserved first, its array is written and flushed to the disk next, and only then is the
slot entered into the table: a killed process or a power failure leaves slots without an entry,
never an entry without its array. Two processes reserve different slots.
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

__all__ = ["SlotRow", "SlotTable", "SlotWriter"]

# Slots that a process reserves at once.
BLOCK = 256


class SlotRow(NamedTuple):
    """The entry of one image; slot -1 for an unreadable image."""

    digest: str
    slot: int
    height: int = 0
    width: int = 0
    code: str = ""
    reason: str = ""


class SlotTable(SqliteFile):
    """Table from content digests to slots of `bytes_each` bytes in an array file.

    The array file has the name of the SQLite file with the ending ``.pixels``.
    """

    schema = """
        CREATE TABLE IF NOT EXISTS images (
            digest TEXT PRIMARY KEY, slot INT, height INT, width INT, code TEXT, reason TEXT
        );
        CREATE TABLE IF NOT EXISTS reserved (one INT PRIMARY KEY CHECK (one = 1), slots INT);
        INSERT OR IGNORE INTO reserved VALUES (1, 0);
    """
    probe = (
        "SELECT p.digest, p.slot, p.height, p.width, p.code, p.reason, r.slots "
        "FROM images p, reserved r LIMIT 0"
    )

    def __init__(self, path: Path, bytes_each: int) -> None:
        self.pixels = path.with_suffix(".pixels")
        self.bytes_each = bytes_each
        super().__init__(path)

    def _open(self) -> None:
        super()._open()
        # Delete entries whose arrays are gone because the file was truncated or deleted, before
        # writing makes the file long enough again. The size is read within the transaction: other
        # processes write an array before its entry, so the file is long enough for every entry.
        with self._writing() as connection:
            slots = self.pixels.stat().st_size // self.bytes_each if self.pixels.exists() else 0
            connection.execute(
                "DELETE FROM images WHERE code = '' AND "
                "(typeof(slot) != 'integer' OR slot NOT BETWEEN 0 AND ?)",
                (slots - 1,),
            )

    def known(self, digests: Iterable[str]) -> set[str]:
        """Return the digests that have an entry."""
        return {
            digest
            for digest, code in self._select("digest, code", digests)
            if not code or code in ImageError.CODES
        }

    def slots(self, digests: Sequence[str]) -> NDArray[np.int64]:
        """Return the slot of each digest, int64 (n,); KeyError for a digest without an array."""
        found = dict(self._select("digest, slot", digests))
        return np.array([found[digest] for digest in digests], np.int64)

    def sizes(self, digests: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Return (height, width) before resizing of each readable image."""
        rows = self._select("digest, code, height, width", digests)
        return {
            digest: (height, width)
            for digest, code, height, width in rows
            if not code and height and width
        }

    def reserve(self, slots: int) -> int:
        """Reserve slots that no other process will use; return the first."""
        with self._writing() as connection:
            (first,) = connection.execute("SELECT slots FROM reserved").fetchone()
            connection.execute("UPDATE reserved SET slots = ?", (first + slots,))
        return int(first)

    def release(self, first: int, end: int) -> None:
        """Release the reserved slots from `first` to `end` - 1, unless later ones are reserved."""
        with self._writing() as connection:
            connection.execute("UPDATE reserved SET slots = ? WHERE slots = ?", (first, end))

    def put(self, rows: Sequence[SlotRow]) -> None:
        """Enter slots whose arrays are written; entries of other processes are replaced."""
        with open(self.pixels, "ab") as file:  # noqa: PTH123 (as below)
            os.fsync(file.fileno())
        with self._writing() as connection:
            connection.executemany("INSERT OR REPLACE INTO images VALUES (?,?,?,?,?,?)", rows)

    def _discard(self) -> None:
        # A process that has the array file mapped keeps it; new arrays go to a new file.
        super()._discard()
        self.pixels.unlink(missing_ok=True)


class SlotWriter:
    """Writes resized images, or other arrays, into slots."""

    def __init__(self, table: SlotTable) -> None:
        self._table = table
        self._lock = threading.Lock()
        self._next = self._end = 0
        # Created if it does not exist, and open for writing anywhere, unlike mode "ab".
        handle = os.open(table.pixels, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        self._file = os.fdopen(handle, "r+b", buffering=0)

    def make(self, digest: str, pixels: NDArray[Any], size: tuple[int, int]) -> SlotRow:
        """Write the array of one slot; return its entry."""
        with self._lock:
            if self._next == self._end:
                self._next = self._table.reserve(BLOCK)
                self._end = self._next + BLOCK
            slot, self._next = self._next, self._next + 1
            try:
                self._file.seek(slot * self._table.bytes_each)
                written = self._file.write(pixels.data)
            except OSError as error:
                raise CacheError(
                    f"Cannot write to the cache file {self._table.pixels}: {error.strerror}. Free "
                    "some space on its disk, or set KINDSIGHT_CACHE to another folder."
                ) from error
        if written != pixels.nbytes:
            raise CacheError(f"No space left on the disk of {self._table.pixels}.")
        return SlotRow(digest, slot, *size)

    def failed(self, digest: str, error: ImageError) -> SlotRow:
        """Return the entry of an unreadable image."""
        return SlotRow(digest, -1, code=error.code, reason=error.reason)

    def close(self) -> None:
        """Close the file, and release the unused slots."""
        self._file.close()
        if self._next < self._end:
            self._table.release(self._next, self._end)
