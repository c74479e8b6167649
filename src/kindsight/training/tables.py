"""Two SQLite tables of the cache: features by content digest, and digests by file.

SQLite gives what a cache needs and plain files do not: many small rows in one file, two runs at
once, and a state that is whole after the process was killed.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import CacheError

__all__ = ["FeatureRow", "FeatureTable", "FileIndex", "FileStamp"]

BUSY_SECONDS = 60.0
# SQLite's own bound on the variables of a statement is 999 in its oldest supported builds.
CHUNK = 900
# A file changed within this time before it was read may change again without a new time stamp.
SETTLED_SECONDS = 0.05
COARSE_SETTLED_SECONDS = 2.5


@dataclass(frozen=True)
class FeatureRow:
    """What the cache keeps of one picture.

    Parameters
    ----------
    digest : str
        The content digest of the file.
    vector : array or None
        Its features, float32 (width,); None for a picture that cannot be read.
    jpeg : bytes
        The resized picture as the network saw it, as a JPEG: for reports, and for comparing
        networks without reading the picture again.
    height, width : int
        Of the picture before it was resized (a large JPEG is decoded at a half or less).
    code, reason : str
        Why it cannot be read, as in :class:`kindsight.errors.PictureError`; empty otherwise.
    """

    digest: str
    vector: NDArray[np.float32] | None
    jpeg: bytes = b""
    height: int = 0
    width: int = 0
    code: str = ""
    reason: str = ""


class _Table:
    """A SQLite file that is made anew if it turns out not to be one."""

    schema = ""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
                raise
            # Everything here can be computed again; a damaged file is put aside, not repaired.
            path.replace(path.with_suffix(".damaged"))
            self._open()

    def _open(self) -> None:
        try:
            self._connection = sqlite3.connect(
                self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA journal_mode=WAL")
            # After a power cut the last rows may be missing; they are then computed again.
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.executescript(self.schema)
        except sqlite3.OperationalError as error:
            raise CacheError(
                f"The cache must be able to open {self.path}: {error}. "
                "Set KINDSIGHT_CACHE to another folder."
            ) from error
        os.utime(self.path)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


class FeatureTable(_Table):
    """Features by content digest, for one backbone, weights and input spec.

    Parameters
    ----------
    path : pathlib.Path
        The SQLite file, made if it is not there.
    width : int
        How many numbers a picture's features have; rows of another length count as absent.
    """

    schema = """
        CREATE TABLE IF NOT EXISTS pictures (
            digest TEXT PRIMARY KEY, vector BLOB, jpeg BLOB, height INT, width INT,
            code TEXT, reason TEXT
        );
    """

    def __init__(self, path: Path, width: int) -> None:
        self.width = width
        super().__init__(path)

    def known(self, digests: Iterable[str]) -> set[str]:
        """Return those of `digests` that the table has a row for."""
        wanted = sorted(set(digests))
        found: set[str] = set()
        size = 4 * self.width
        for chunk in _chunks(wanted):
            query = (
                "SELECT digest FROM pictures WHERE (code != '' OR length(vector) = ?) "
                f"AND digest IN ({_marks(chunk)})"
            )
            found.update(row[0] for row in self._connection.execute(query, (size, *chunk)))
        return found

    def problems(self, digests: Iterable[str]) -> dict[str, tuple[str, str]]:
        """Return (code, reason) of those pictures that cannot be read."""
        found: dict[str, tuple[str, str]] = {}
        for chunk in _chunks(sorted(set(digests))):
            query = (
                "SELECT digest, code, reason FROM pictures "
                f"WHERE code != '' AND digest IN ({_marks(chunk)})"
            )
            for digest, code, reason in self._connection.execute(query, chunk):
                found[digest] = (code, reason)
        return found

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
        for chunk in _chunks(list(places)):
            query = f"SELECT digest, vector FROM pictures WHERE digest IN ({_marks(chunk)})"
            for digest, blob in self._connection.execute(query, chunk):
                if blob is not None and len(blob) == 4 * self.width:
                    out[places.pop(digest)] = np.frombuffer(blob, np.float32)
        if places:
            raise KeyError(next(iter(places)))
        return out

    def pictures(self, digests: Iterable[str]) -> dict[str, FeatureRow]:
        """Return the rows, without their vectors, of those pictures that have a JPEG."""
        found: dict[str, FeatureRow] = {}
        for chunk in _chunks(sorted(set(digests))):
            query = (
                "SELECT digest, jpeg, height, width FROM pictures "
                f"WHERE code = '' AND digest IN ({_marks(chunk)})"
            )
            for digest, jpeg, height, width in self._connection.execute(query, chunk):
                if jpeg:
                    found[digest] = FeatureRow(digest, None, jpeg, height, width)
        return found

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
            connection.executemany("INSERT OR REPLACE INTO pictures VALUES (?,?,?,?,?,?,?)", values)


@dataclass(frozen=True)
class FileStamp:
    """What tells that a file is still the one whose content was digested."""

    size: int
    modified: int
    changed: int
    inode: int

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> FileStamp:
        """Ask the file system; raises OSError where the file is not there."""
        stat = os.stat(path)  # noqa: PTH116 (called once a picture; Path is slower)
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)

    def settled(self, now: float) -> bool:
        """Whether a later change is sure to show in the time stamps."""
        coarse = self.modified % 1_000_000_000 == 0
        margin = COARSE_SETTLED_SECONDS if coarse else SETTLED_SECONDS
        newest = max(self.modified, self.changed if os.name == "posix" else self.modified)
        return newest / 1e9 + margin < now


class FileIndex(_Table):
    """Content digests by file, so that an unchanged file need not be read to be known."""

    schema = """
        CREATE TABLE IF NOT EXISTS files (
            path BLOB PRIMARY KEY, size INT, modified INT, changed INT, inode INT, digest TEXT
        ) WITHOUT ROWID;
    """

    def lookup(self, paths: Sequence[str]) -> dict[str, str]:
        """Return the digests of those absolute `paths` that are unchanged since `put`."""
        found: dict[str, str] = {}
        for chunk in _chunks(list(paths)):
            keys = {os.fsencode(path): path for path in chunk}
            query = f"SELECT * FROM files WHERE path IN ({_marks(chunk)})"
            for key, size, modified, changed, inode, digest in self._connection.execute(
                query, list(keys)
            ):
                try:
                    stamp = FileStamp.of(keys[key])
                except OSError:
                    continue
                if stamp == FileStamp(size, modified, changed, _signed(inode)) or (
                    stamp == FileStamp(size, modified, changed, inode)
                ):
                    found[keys[key]] = digest
        return found

    def put(self, rows: Iterable[tuple[str, FileStamp, str]]) -> None:
        """Keep digests, but not of files that may still change within the same time stamp."""
        now = time.time()
        values = [
            (os.fsencode(path), s.size, s.modified, s.changed, _signed(s.inode), digest)
            for path, s, digest in rows
            if s.settled(now)
        ]
        with self._writing() as connection:
            connection.executemany("INSERT OR REPLACE INTO files VALUES (?,?,?,?,?,?)", values)


def _signed(inode: int) -> int:
    """Fit an unsigned 64-bit inode number into SQLite's signed integers."""
    return inode - (1 << 64) if inode >= 1 << 63 else inode


def _chunks(values: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(values), CHUNK):
        yield values[start : start + CHUNK]


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))
