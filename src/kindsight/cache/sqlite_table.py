"""A file of the cache with a table in it.

SQLite gives what a cache needs and plain files do not: many small rows in one file, two runs at
once, and a state that is whole after the process was killed.
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

from kindsight.errors import CacheError

__all__ = ["DamagedTableError", "SqliteFile", "chunks", "marks"]

# SQLite's own bound on the variables of a statement is 999 in its oldest supported builds.
CHUNK = 900
BUSY_SECONDS = 60.0
RETRY_SECONDS = 0.02


class DamagedTableError(CacheError):
    """A file of the cache turned out to be damaged and was put aside; a new one can be made."""


class SqliteFile:
    """A SQLite file that is made anew if it turns out not to be one.

    Parameters
    ----------
    path : pathlib.Path
        Made if it is not there.

    Attributes
    ----------
    schema : str
        The statements that make the tables, parted by semicolons.
    probe : str
        A query that fails where the table is another one.

    Raises
    ------
    CacheError
        Where the file cannot be opened, or its disk is full.
    """

    schema = ""
    probe = ""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Threads share the connection, and a connection has one transaction at a time.
        self._turn = threading.Lock()
        try:
            self._open()
        except DamagedTableError:
            self._open()

    def _open(self) -> None:
        self._aside = False
        with self._guarded():
            self._connection = sqlite3.connect(
                self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._persist("PRAGMA journal_mode=WAL")
            # After a power cut the last rows may be missing; they are then computed again.
            self._persist("PRAGMA synchronous=NORMAL")
            for statement in self.schema.split(";"):
                self._persist(statement)
            self._persist(self.probe)
        os.utime(self.path)

    def _persist(self, statement: str) -> None:
        """Execute a statement; where two processes make a file at once SQLite does not wait."""
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
        """Turn SQLite's errors into ours; put a damaged file aside."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if not self._aside:
                self._judge(error)
                self._put_aside()
            raise DamagedTableError(
                f"A file of the cache must be whole. Received: {self.path}, damaged ({error}). "
                "It was put aside; the same command makes a new one."
            ) from error

    def _judge(self, error: sqlite3.DatabaseError) -> None:
        """Raise what is no sign of damage."""
        # No table or column of that name, or text that is none: a sound file may not be ours.
        foreign = "no such" in str(error) or "decode" in str(error)
        if type(error) is sqlite3.DatabaseError or foreign:
            return
        if not isinstance(error, sqlite3.OperationalError):
            raise error
        raise CacheError(
            f"The cache must be able to use {self.path}: {error}. "
            "Set KINDSIGHT_CACHE to another folder."
        ) from error

    def _put_aside(self) -> None:
        """Everything here can be computed again; a damaged file is not repaired."""
        # Other threads may be about to use the connection: to them, too, the file is damaged.
        self._aside = True
        self.close()
        try:
            self.path.replace(self.path.with_suffix(".damaged"))
            for part in self.path.parent.glob(self.path.name + "-*"):
                part.unlink(missing_ok=True)
        except FileNotFoundError:  # Another process was faster.
            pass
        except OSError as error:
            raise CacheError(
                f"A damaged file of the cache must be one that can be renamed. Received: "
                f"{self.path} ({error.strerror}). Delete it."
            ) from error

    def _select(self, columns: str, digests: Iterable[str]) -> Iterator[tuple[Any, ...]]:
        """Give columns of a table ``images``: of the rows of `digests`, in whatever order.

        A chunk is read at a time.
        """
        for chunk in chunks(list(dict.fromkeys(digests))):
            query = f"SELECT {columns} FROM images WHERE digest IN ({marks(chunk)})"
            with self._reading() as connection:
                rows = connection.execute(query, chunk).fetchall()
            yield from rows

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._guarded():
            yield self._connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._turn, self._guarded():
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


def chunks(values: Sequence[str]) -> Iterator[Sequence[str]]:
    """Part values so that the variables of one statement suffice for each part."""
    for start in range(0, len(values), CHUNK):
        yield values[start : start + CHUNK]


def marks(values: Collection[object]) -> str:
    """Return a question mark for each value, with commas between."""
    return ",".join("?" * len(values))
