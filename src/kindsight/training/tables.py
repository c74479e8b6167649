"""Two tables of the cache: features by content digest, and digests by file."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import PictureError
from kindsight.training.sqlite_file import SqliteFile

__all__ = ["FeatureRow", "FeatureTable", "FileIndex", "FileStamp"]

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


class FeatureTable(SqliteFile):
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
        CREATE TABLE IF NOT EXISTS by_keras (
            digest TEXT, model TEXT, vector BLOB, PRIMARY KEY (digest, model)
        );
    """
    probe = "SELECT digest, vector, jpeg, height, width, code, reason FROM pictures LIMIT 0"

    def __init__(self, path: Path, width: int) -> None:
        self.width = width
        super().__init__(path)

    def _select(self, columns: str, digests: Iterable[str]) -> Iterator[tuple[Any, ...]]:
        """Give columns of the rows of `digests`, in whatever order, a chunk at a time."""
        for chunk in _chunks(list(dict.fromkeys(digests))):
            query = f"SELECT {columns} FROM pictures WHERE digest IN ({_marks(chunk)})"
            with self._reading() as connection:
                rows = connection.execute(query, chunk).fetchall()
            yield from rows

    def known(self, digests: Iterable[str]) -> set[str]:
        """Return those of `digests` that the table has a row for."""
        size = 4 * self.width
        return {
            digest
            for digest, length, code in self._select("digest, length(vector), code", digests)
            if (code in PictureError.CODES if code else length == size)
        }

    def problems(self, digests: Iterable[str]) -> dict[str, tuple[str, str]]:
        """Return (code, reason) of those pictures that cannot be read."""
        return {
            digest: (code, str(reason))
            for digest, code, reason in self._select("digest, code, reason", digests)
            if code in PictureError.CODES
        }

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
        for digest, blob in self._select("digest, vector", list(places)):
            if isinstance(blob, bytes) and len(blob) == 4 * self.width:
                out[places.pop(digest)] = np.frombuffer(blob, "<f4")
        if places:
            raise KeyError(next(iter(places)))
        return out

    def pictures(self, digests: Iterable[str]) -> dict[str, FeatureRow]:
        """Return the rows, without their vectors, of those pictures that have a JPEG."""
        return {
            digest: FeatureRow(digest, None, jpeg, height, width)
            for digest, jpeg, height, width in self._select("digest, jpeg, height, width", digests)
            if jpeg
        }

    def sizes(self, digests: Iterable[str]) -> list[tuple[int, int]]:
        """Return (height, width) before resizing of each different picture among `digests`."""
        rows = self._select("code, height, width", digests)
        return [(height, width) for code, height, width in rows if not code and height and width]

    def keras_vectors(self, model: str, digests: Iterable[str]) -> dict[str, NDArray[np.float32]]:
        """Return what Keras itself computed for pictures with the model file of this digest."""
        found: dict[str, NDArray[np.float32]] = {}
        for chunk in _chunks(list(dict.fromkeys(digests))):
            query = (
                "SELECT digest, vector FROM by_keras "
                f"WHERE model = ? AND digest IN ({_marks(chunk)})"
            )
            with self._reading() as connection:
                for digest, blob in connection.execute(query, [model, *chunk]):
                    if isinstance(blob, bytes) and len(blob) == 4 * self.width:
                        found[digest] = np.frombuffer(blob, "<f4")
        return found

    def put_keras(self, model: str, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Keep what Keras itself computed for pictures."""
        values = [
            (digest, model, np.ascontiguousarray(vector, "<f4").tobytes())
            for digest, vector in vectors.items()
        ]
        with self._writing() as connection:
            connection.executemany("INSERT OR REPLACE INTO by_keras VALUES (?,?,?)", values)

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
        """Ask the file system; raises OSError or ValueError where it has no such file."""
        stat = os.stat(path)  # noqa: PTH116 (called once a picture; Path is slower)
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
        for chunk in _chunks(list(paths)):
            keys = {_key(path): path for path in chunk}
            query = f"SELECT * FROM files WHERE path IN ({_marks(keys)})"
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


def _key(path: str) -> bytes:
    """Return a file's name as bytes; one that no file can have stays a name without a file."""
    return path.encode("utf-8", "surrogatepass")


def _signed(inode: int) -> int:
    """Fit a file's number, 64 bits or more without a sign, into SQLite's signed 64."""
    low = inode & (2**64 - 1)
    return low - 2**64 if low >= 2**63 else low


def _chunks(values: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(values), CHUNK):
        yield values[start : start + CHUNK]


def _marks(values: Collection[object]) -> str:
    return ",".join("?" * len(values))
