"""Tables of the cache in SQLite files.

SQLite stores many small rows in one file, lets two runs write at once, and leaves the file intact
if the process is killed. A table that a process has open is not deleted: both opening and deleting
take the lock of the folder, and an open table is recognised by SQLite's own lock.
"""

from __future__ import annotations

import contextlib
import glob
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from kindsight.cache.location import choose_cache
from kindsight.errors import CacheError, ImageError
from kindsight.files import delete_file, replace_file

__all__ = [
    "DamagedTableError", "LostTableError", "OpenTable", "SqliteFile", "array_files", "chunked",
    "companions", "delete_unused", "file_identity", "lock_folder", "lost_error", "placeholders",
]  # fmt: skip

_T = TypeVar("_T")

# Values per statement; SQLite's own limit is 999 in the oldest supported builds.
CHUNK = 900
# Number of digests deduplicated at once, at a few hundred bytes each.
WINDOW = 90_000
BUSY_SECONDS = 60.0
RETRY_SECONDS = 0.02
# The name of an array file ends in the generation of its table, 12 hexadecimal digits.
GENERATION = "[0-9a-f]" * 12


class LostTableError(CacheError):
    """A table is damaged, or lost rows or its file while in use; its rows can be computed again."""


class DamagedTableError(LostTableError):
    """A file of the cache was damaged and has been renamed; a new one can be created."""


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold the lock under which tables of a folder are opened and deleted.

    Raises CacheError if the folder cannot be written or locked.
    """
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=BUSY_SECONDS)
    except (OSError, NotImplementedError) as error:  # A network drive may lack locks.
        reason = getattr(error, "strerror", None) or "it cannot be locked"
        raise CacheError(
            f"Cannot use the cache folder {folder} ({reason}). To use another one, "
            f"{choose_cache(folder, 'a folder on a local disk')}."
        ) from error
    try:
        yield
    finally:
        lock.release()


def array_files(path: Path) -> list[Path]:
    """Return the array files of a table; all but one belong to tables that were damaged."""
    return list(path.parent.glob(f"{glob.escape(path.stem)}.{GENERATION}.pixels"))


def companions(path: Path) -> list[Path]:
    """Return a table's array files, SQLite's journals, its damaged predecessor, and itself."""
    journals = path.parent.glob(glob.escape(path.name) + "-*")
    return [*array_files(path), *journals, path.with_suffix(".damaged"), path]


def delete_unused(path: Path) -> bool:
    """Delete a table with its companions; return False if a process has it open.

    Returns False as well if the file system refuses to delete it.
    """
    try:
        with lock_folder(path.parent):
            if _in_use(path):
                return False
            # The array file, which Windows does not delete while a process maps it, comes first.
            for file in companions(path):
                delete_file(file)
    except PermissionError:
        return False
    return True


def _in_use(path: Path) -> bool:
    """Return whether a process has a table open: SQLite then cannot change its journal mode."""
    if not path.exists():
        return False
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=0)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.OperationalError as error:
        return "locked" in str(error)
    except sqlite3.DatabaseError:  # damaged, so no process can use it
        return False
    return False


def file_identity(path: Path) -> tuple[int, int] | None:
    """Return the device and inode, which identify a file; None if there is no file."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


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
        with lock_folder(self.path.parent), self._guarded():
            self._connection = sqlite3.connect(
                self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._identity = file_identity(self.path)
            self._require_wal(self._persist("PRAGMA journal_mode=WAL"))
            # After a power failure the last rows may be missing; they are then computed again.
            self._persist("PRAGMA synchronous=NORMAL")
            for statement in self.schema.split(";"):
                self._persist(statement)
            self._persist(self.probe)
        with contextlib.suppress(OSError):  # Deleted, or the file of another user.
            os.utime(self.path)

    def _require_wal(self, mode: object) -> None:
        """Check the journal mode: without shared memory, SQLite silently takes another one."""
        if mode != "wal":
            self._connection.close()
            other = choose_cache(self.path, "a folder on a local disk")
            raise CacheError(
                f"The file system of {self.path.parent} cannot share a cache between processes "
                f"(SQLite's journal mode is {mode!r} instead of 'wal'), as is common on network "
                f"drives. To use another folder, {other}."
            )

    def require_present(self) -> None:
        """Raise LostTableError if the file was deleted or replaced since it was opened."""
        if file_identity(self.path) != self._identity:
            raise lost_error(self.path)

    def _persist(self, statement: str) -> object:
        """Execute a statement, with retries: SQLite does not wait if two processes open a file."""
        end = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                row = self._connection.execute(statement).fetchone()
                return None if row is None else row[0]
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
            f"Cannot use the cache file {self.path}: {error}. Free some space if its disk is full, "
            f"or {choose_cache(self.path, 'another folder')}."
        ) from error

    def _discard(self) -> None:
        """Rename the damaged file; its content can be computed again."""
        # Other threads may be about to use the connection: for them, too, the file is damaged.
        self._renamed = True
        self.close()
        try:
            replace_file(self.path, self.path.with_suffix(".damaged"))
            for journal in self.path.parent.glob(glob.escape(self.path.name) + "-*"):
                delete_file(journal)
        except FileNotFoundError:  # Another process was faster.
            pass
        except OSError as error:
            raise CacheError(
                f"The cache file {self.path} is damaged and cannot be renamed "
                f"({error.strerror}). Delete it."
            ) from error

    def _select(self, columns: str, digests: Iterable[str]) -> Iterator[tuple[Any, ...]]:
        """Yield columns of the table ``images`` for the rows of `digests`, in any order.

        Of millions of digests, a repeated one may yield its row again.
        """
        given = iter(digests)
        while some := list(dict.fromkeys(islice(given, WINDOW))):
            for chunk in chunked(some):
                query = f"SELECT {columns} FROM images WHERE digest IN ({placeholders(chunk)})"
                with self._reading() as connection:
                    rows = connection.execute(query, chunk).fetchall()
                yield from rows

    def stored(self) -> list[str]:
        """Return the digests of all rows of the table ``images``."""
        with self._reading() as connection:
            rows = connection.execute("SELECT digest FROM images").fetchall()
        return [digest for (digest,) in rows if isinstance(digest, str)]

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
            if not self._renamed:
                self.require_present()
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


class OpenTable:
    """Keeps a table open, and so protects it from deletion, until it is collected as garbage."""

    def __init__(self, table: SqliteFile) -> None:
        weakref.finalize(self, table.close)


def lost_error(path: Path) -> LostTableError:
    """Return the error for a file of the cache that was deleted or lost rows while in use."""
    return LostTableError(
        f"The cache file {path} was deleted or emptied while it was used. Run the same command "
        "again; it computes the missing results."
    )


def chunked(values: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """Yield `values` in chunks that fit the variables of one statement."""
    for start in range(0, len(values), CHUNK):
        yield values[start : start + CHUNK]


def placeholders(values: Collection[object]) -> str:
    """Return a question mark for each value, separated by commas."""
    return ",".join("?" * len(values))
