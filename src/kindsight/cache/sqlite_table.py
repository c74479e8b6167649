"""Tables of the cache in SQLite files.

SQLite stores many small rows in one file, lets two runs write at once, and leaves the file intact
if the process is killed.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kindsight.errors import CacheError, ImageError

__all__ = ["DamagedTableError", "SqliteFile", "chunked", "placeholders"]

# Values per statement; SQLite's own limit is 999 in the oldest supported builds.
CHUNK = 900
BUSY_SECONDS = 60.0
RETRY_SECONDS = 0.02


class DamagedTableError(CacheError):
    """A file of the cache was damaged and has been renamed; a new one can be created."""


class SqliteFile:
    """A SQLite file that is created if it does not exist, and created anew if it is damaged.

    Subclasses define `schema`, the statements that create the tables, separated by semicolons, and
    `probe`, a query that fails if the tables have another schema. Raises CacheError if the file
    cannot be opened, or the disk is full.
    """

    schema = ""
    probe = ""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Threads share the connection, which has one transaction at a time.
        self._lock = threading.Lock()
        try:
            self._open()
        except DamagedTableError:
            self._open()

    def _open(self) -> None:
        self._renamed = False
        with self._guarded():
            self._connection = sqlite3.connect(
                self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._persist("PRAGMA journal_mode=WAL")
            # After a power failure the last rows may be missing; they are then computed again.
            self._persist("PRAGMA synchronous=NORMAL")
            for statement in self.schema.split(";"):
                self._persist(statement)
            self._persist(self.probe)
        os.utime(self.path)

    def _persist(self, statement: str) -> None:
        """Execute a statement, with retries: SQLite does not wait if two processes open a file."""
        end = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                self._connection.execute(statement)
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > end:
                    raise
                time.sleep(RETRY_SECONDS)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Translate SQLite's errors; rename a damaged file."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if not self._renamed:
                self._raise_unless_damaged(error)
                self._discard()
            raise DamagedTableError(
                f"The cache file {self.path} was damaged ({error}) and has been renamed. Run the "
                "command again to create a new one."
            ) from error

    def _raise_unless_damaged(self, error: sqlite3.DatabaseError) -> None:
        # An unknown table or column, or text that cannot be decoded: the file is not one of ours.
        foreign = "no such" in str(error) or "decode" in str(error)
        if type(error) is sqlite3.DatabaseError or foreign:
            return
        if not isinstance(error, sqlite3.OperationalError):
            raise error
        raise CacheError(
            f"Cannot use the cache file {self.path}: {error}. Set KINDSIGHT_CACHE to another "
            "folder."
        ) from error

    def _discard(self) -> None:
        """Rename the damaged file; its content can be computed again."""
        # Other threads may be about to use the connection: for them, too, the file is damaged.
        self._renamed = True
        self.close()
        try:
            self.path.replace(self.path.with_suffix(".damaged"))
            for journal in self.path.parent.glob(self.path.name + "-*"):
                journal.unlink(missing_ok=True)
        except FileNotFoundError:  # Another process was faster.
            pass
        except OSError as error:
            raise CacheError(
                f"The cache file {self.path} is damaged and cannot be renamed "
                f"({error.strerror}). Delete it."
            ) from error

    def _select(self, columns: str, digests: Iterable[str]) -> Iterator[tuple[Any, ...]]:
        """Yield columns of the table ``images`` for the rows of `digests`, in any order."""
        for chunk in chunked(list(dict.fromkeys(digests))):
            query = f"SELECT {columns} FROM images WHERE digest IN ({placeholders(chunk)})"
            with self._reading() as connection:
                rows = connection.execute(query, chunk).fetchall()
            yield from rows

    def problems(self, digests: Iterable[str]) -> dict[str, tuple[str, str]]:
        """Return (code, reason) of the unreadable images in the table ``images``."""
        return {
            digest: (code, str(reason))
            for digest, code, reason in self._select("digest, code, reason", digests)
            if code in ImageError.CODES
        }

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._guarded():
            yield self._connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._guarded():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def chunked(values: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield `values` in chunks that fit the variables of one statement."""
    for start in range(0, len(values), CHUNK):
        yield values[start : start + CHUNK]


def placeholders(values: Collection[object]) -> str:
    """Return a question mark for each value, separated by commas."""
    return ",".join("?" * len(values))
