"""Content digests by file, so that an unchanged file need not be read again to be identified."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kindsight.cache.sqlite_table import SqliteFile, chunked, placeholders

__all__ = ["FileIndex", "FileStamp", "settled_stamp"]

# Seconds. A file that changed more recently before it was read may change again without getting
# another time stamp; file systems that store whole seconds need longer.
SETTLED_SECONDS = 0.05
COARSE_SETTLED_SECONDS = 2.5


@dataclass(frozen=True)
class FileStamp:
    """Size, times (ns) and inode of a file; if they are equal, its content is unchanged."""

    size: int
    modified: int
    changed: int
    inode: int

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> FileStamp:
        """Return the stamp of a file; OSError or ValueError if there is no such file."""
        stat = os.stat(path)  # noqa: PTH116 (called once per image; Path is slower)
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, _signed(stat.st_ino))

    def settled(self, now: float) -> bool:
        """Return whether any change after `now`, in seconds, gives another stamp."""
        coarse = self.modified % 1_000_000_000 == 0
        margin = COARSE_SETTLED_SECONDS if coarse else SETTLED_SECONDS
        newest = max(self.modified, self.changed if os.name == "posix" else self.modified)
        return newest / 1e9 + margin < now


class FileIndex(SqliteFile):
    """A table of content digests by file path and stamp."""

    schema = """
        CREATE TABLE IF NOT EXISTS files (
            path BLOB PRIMARY KEY, size INT, modified INT, changed INT, inode INT, digest TEXT
        ) WITHOUT ROWID;
    """
    probe = "SELECT path, size, modified, changed, inode, digest FROM files LIMIT 0"

    def lookup(self, paths: Sequence[str]) -> dict[str, str]:
        """Return the digests of those absolute `paths` that are unchanged since `put`."""
        found: dict[str, str] = {}
        for chunk in chunked(list(paths)):
            keys = {_key(path): path for path in chunk}
            query = f"SELECT * FROM files WHERE path IN ({placeholders(keys)})"
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
        """Store (path, stamp, digest); stamps must be taken before the file is read."""
        values = [
            (_key(path), s.size, s.modified, s.changed, s.inode, digest) for path, s, digest in rows
        ]
        with self._writing() as connection:
            connection.executemany("INSERT OR REPLACE INTO files VALUES (?,?,?,?,?,?)", values)


def settled_stamp(file: str) -> FileStamp | None:
    """Return a file's stamp before it is read; None if a later change might not show in it."""
    now = time.time()
    try:
        stamp = FileStamp.of(file)
    except (OSError, ValueError):  # reading the file gives the reason
        return None
    return stamp if stamp.settled(now) else None


def _key(path: str) -> bytes:
    return path.encode("utf-8", "surrogatepass")


def _signed(inode: int) -> int:
    """Convert an unsigned number of 64 bits or more to SQLite's signed 64 bits."""
    low = inode & (2**64 - 1)
    return low - 2**64 if low >= 2**63 else low
