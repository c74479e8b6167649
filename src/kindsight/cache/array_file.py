"""Arrays of equal size in the slots of one file, and a table from content digests to slots.

A slot is reserved first, its array is written and flushed to the disk next, and only then is the
slot entered into the table: a killed process or a power failure leaves slots without an entry,
never an entry without its array. Two processes reserve different slots.

The array file has a random name, its generation, which its table stores: a table that is created
anew after its file was deleted never refers to the arrays of another one.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kindsight.cache.location import choose_cache
from kindsight.cache.sqlite_table import (
    GENERATION,
    SqliteFile,
    array_files,
    file_identity,
    lost_error,
)
from kindsight.errors import CacheError, ImageError
from kindsight.files import delete_file

__all__ = ["SlotRow", "SlotTable", "SlotWriter", "map_array"]

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

    `pixels` is the array file; its name is that of the SQLite file with ``.<generation>.pixels``.
    """

    schema = """
        CREATE TABLE IF NOT EXISTS images (
            digest TEXT PRIMARY KEY, slot INT, height INT, width INT, code TEXT, reason TEXT
        );
        CREATE TABLE IF NOT EXISTS reserved (one INT PRIMARY KEY CHECK (one = 1), slots INT);
        INSERT OR IGNORE INTO reserved VALUES (1, 0);
        CREATE TABLE IF NOT EXISTS generation (one INT PRIMARY KEY CHECK (one = 1), name TEXT);
        INSERT OR IGNORE INTO generation VALUES (1, lower(hex(randomblob(6))));
    """
    probe = (
        "SELECT p.digest, p.slot, p.height, p.width, p.code, p.reason, r.slots, g.name "
        "FROM images p, reserved r, generation g LIMIT 0"
    )

    def __init__(self, path: Path, bytes_each: int) -> None:
        self.bytes_each = bytes_each
        super().__init__(path)

    def _open(self) -> None:
        super()._open()
        with self._reading() as connection:
            (generation,) = connection.execute("SELECT name FROM generation").fetchone() or ("",)
            if not re.fullmatch(GENERATION, str(generation)):
                raise sqlite3.DatabaseError("no generation")
        self.pixels = self.path.with_suffix(f".{generation}.pixels")
        # Delete entries whose arrays are gone because the file was truncated or deleted, before
        # writing makes the file long enough again. The size is read within the transaction: other
        # processes write an array before its entry, so the file is long enough for every entry.
        with self._writing() as connection:
            with self.pixels.open("ab") as file:
                slots = os.fstat(file.fileno()).st_size // self.bytes_each
            self._pixels_identity = file_identity(self.pixels)
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
        """Return the slot of each digest, int64 (n,); LostTableError for one without an array."""
        found = dict(self._select("digest, slot", digests))
        self._require_pixels()
        try:
            return np.array([found[digest] for digest in digests], np.int64)
        except KeyError:
            raise lost_error(self.path) from None

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
        self._require_pixels()
        with self.pixels.open("rb+") as file:
            os.fsync(file.fileno())
        with self._writing() as connection:
            connection.executemany("INSERT OR REPLACE INTO images VALUES (?,?,?,?,?,?)", rows)

    def _require_pixels(self) -> None:
        if file_identity(self.pixels) != self._pixels_identity:
            raise lost_error(self.pixels)

    def _discard(self) -> None:
        # Other processes may have the array file mapped; new arrays go to a new one.
        super()._discard()
        for file in array_files(self.path):
            with contextlib.suppress(PermissionError):  # Windows, while another process maps it.
                delete_file(file)


class SlotWriter:
    """Writes resized images, or other arrays, into slots."""

    def __init__(self, table: SlotTable) -> None:
        self._table = table
        self._lock = threading.Lock()
        self._next = self._end = 0
        try:
            self._file = table.pixels.open("r+b", buffering=0)
        except FileNotFoundError:
            raise lost_error(table.pixels) from None

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
                    f"Cannot write to the cache file {self._table.pixels}: {error.strerror}. "
                    f"{self._cure()}"
                ) from error
        if written != pixels.nbytes:
            raise CacheError(f"No space left on the disk of {self._table.pixels}. {self._cure()}")
        return SlotRow(digest, slot, *size)

    def _cure(self) -> str:
        other = choose_cache(self._table.path, "a folder on another disk")
        return f"Free some space on it, or {other}."

    def failed(self, digest: str, error: ImageError) -> SlotRow:
        """Return the entry of an unreadable image."""
        return SlotRow(digest, -1, code=error.code, reason=error.reason)

    def close(self) -> None:
        """Close the file, and release the unused slots."""
        self._file.close()
        if self._next < self._end:
            self._table.release(self._next, self._end)


def map_array(file: Path, dtype: np.dtype[Any], shape: tuple[int, ...] = ()) -> NDArray[Any]:
    """Map an array file into memory, read-only: (slots, *shape) of `dtype`.

    Raises LostTableError if the file was deleted.
    """
    try:
        slots = file.stat().st_size // (dtype.itemsize * math.prod(shape))
        if not slots:  # An empty file cannot be mapped.
            return np.empty((0, *shape), dtype)
        return np.memmap(file, dtype, "r", shape=(slots, *shape))
    except FileNotFoundError:
        raise lost_error(file) from None
