"""What became of the rows of a dataset, taken down and written to the cache from time to time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from kindsight.cache.sqlite_table import SqliteFile, chunks, marks
from kindsight.errors import ImageError

__all__ = [
    "FileIndex",
    "FileStamp",
    "Ledger",
    "Outcome",
    "Progress",
    "Table",
    "settled_stamp",
]

# SECTION: Content digests by file, so that a file that has not changed need not be read to be
# known.

# A file changed within this time before it was read may change again without a new time stamp.
SETTLED_SECONDS = 0.05
COARSE_SETTLED_SECONDS = 2.5


@dataclass(frozen=True)
class FileStamp:
    """What tells that a file is still the one whose content was digested."""

    size: int
    modified: int
    changed: int
    inode: int

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> FileStamp:
        """Ask the file system; raises OSError or ValueError where it has no such file."""
        stat = os.stat(path)  # noqa: PTH116 (called once an image; Path is slower)
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, _signed(stat.st_ino))

    def settled(self, now: float) -> bool:
        """Whether a change after `now`, the time just before the stamp was taken, would show.

        File systems count time in ticks: a file changed twice within one has the same times.
        """
        coarse = self.modified % 1_000_000_000 == 0
        margin = COARSE_SETTLED_SECONDS if coarse else SETTLED_SECONDS
        newest = max(self.modified, self.changed if os.name == "posix" else self.modified)
        return newest / 1e9 + margin < now


class FileIndex(SqliteFile):
    """Content digests by file, so that an unchanged file need not be read to be known."""

    schema = """
        CREATE TABLE IF NOT EXISTS files (
            path BLOB PRIMARY KEY, size INT, modified INT, changed INT, inode INT, digest TEXT
        ) WITHOUT ROWID;
    """
    probe = "SELECT path, size, modified, changed, inode, digest FROM files LIMIT 0"

    def lookup(self, paths: Sequence[str]) -> dict[str, str]:
        """Return the digests of those absolute `paths` that are unchanged since `put`."""
        found: dict[str, str] = {}
        for chunk in chunks(list(paths)):
            keys = {_key(path): path for path in chunk}
            query = f"SELECT * FROM files WHERE path IN ({marks(keys)})"
            with self._reading() as connection:
                rows = connection.execute(query, list(keys)).fetchall()
            for key, size, modified, changed, inode, digest in rows:
                try:
                    stamp = FileStamp.of(keys[key])
                except (OSError, ValueError):
                    continue
                if stamp == FileStamp(size, modified, changed, inode):
                    found[keys[key]] = digest
        return found

    def put(self, rows: Iterable[tuple[str, FileStamp, str]]) -> None:
        """Keep digests of files by the stamps that were taken before the files were read."""
        values = [
            (_key(path), s.size, s.modified, s.changed, s.inode, digest) for path, s, digest in rows
        ]
        with self._writing() as connection:
            connection.executemany("INSERT OR REPLACE INTO files VALUES (?,?,?,?,?,?)", values)


def settled_stamp(file: str) -> FileStamp | None:
    """Return the stamp of a file before it is read; None where a change might not show in it."""
    now = time.time()
    try:
        stamp = FileStamp.of(file)
    except (OSError, ValueError):  # reading it will say why
        return None
    return stamp if stamp.settled(now) else None


def _key(path: str) -> bytes:
    """Return a file's name as bytes; one that no file can have stays a name without a file."""
    return path.encode("utf-8", "surrogatepass")


def _signed(inode: int) -> int:
    """Fit a file's number, 64 bits or more without a sign, into SQLite's signed 64."""
    low = inode & (2**64 - 1)
    return low - 2**64 if low >= 2**63 else low


Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""

# What a kill -9 can lose: at most this many seconds of work.
FLUSH_SECONDS = 1.0


class Table(Protocol):
    """Where what is made of images is kept, by the digests of their content."""

    def known(self, digests: Iterable[str]) -> set[str]:
        """Return those of `digests` that it has a row for."""

    def problems(self, digests: Iterable[str]) -> dict[str, tuple[str, str]]:
        """Return (code, reason) of those that cannot be read."""

    def put(self, rows: list[Any]) -> None:
        """Keep rows, all or none."""


class Outcome(NamedTuple):
    """What became of one row of a dataset.

    Attributes
    ----------
    row : int
        Which one.
    digest : str or None
        Of its content, where that could be read.
    stamp : FileStamp or None
        Of its file before it was read, where a later change is sure to show.
    file : str
        Its absolute path; empty for an image in memory.
    made : object or None
        The row that is new to the table; None for a copy of an image that is done.
    error : ImageError or None
        Why the image is of no use.
    """

    row: int
    digest: str | None = None
    stamp: FileStamp | None = None
    file: str = ""
    made: Any = None
    error: ImageError | None = None


class Ledger:
    """Takes down outcomes and writes them to the cache in batches."""

    def __init__(
        self,
        digests: list[str | None],
        table: Table,
        index: FileIndex,
        progress: Progress | None,
        done: int,
    ) -> None:
        self.digests, self.table, self.index = digests, table, index
        self.errors: dict[int, ImageError] = {}
        self.made = 0
        self._progress, self._done = progress, done
        self._rows: list[Any] = []
        self._stamps: list[tuple[str, FileStamp, str]] = []
        self._flushed = time.monotonic()
        self._report()

    def add(self, outcome: Outcome) -> None:
        """Take one outcome down."""
        self.digests[outcome.row] = outcome.digest
        if outcome.error is not None and outcome.digest is None:
            self.errors[outcome.row] = outcome.error
        if outcome.made is not None:
            self._rows.append(outcome.made)
            self.made += outcome.error is None
        if outcome.stamp is not None and outcome.digest is not None:
            self._stamps.append((outcome.file, outcome.stamp, outcome.digest))
        self._done += 1
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was taken down since the last time."""
        if self._rows:
            self.table.put(self._rows)
        if self._stamps:
            self.index.put(self._stamps)
        self._rows, self._stamps = [], []
        self._flushed = time.monotonic()
        self._report()

    def _report(self) -> None:
        if self._progress is not None:
            self._progress(self._done, len(self.digests))
