"""Process the images of a dataset that a table lacks, each distinct content once.

Threads get several rows at a time: for a small image, passing it to a thread costs a third of the
work. To bound memory and the wait for cancellation, a thread returns unprocessed rows after a short
time, and reads only a limited number of bytes ahead.

Content digests are stored by file path and stamp: an unchanged file is not read again.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from kindsight.cache.folder import Cache
from kindsight.cache.sqlite_table import SqliteFile, chunked, placeholders
from kindsight.dataset.reading.on_cluster import Cluster, process_on_cluster, why_unsupported
from kindsight.dataset.reading.read_ahead import ReadAhead
from kindsight.dataset.table import ImageDataset
from kindsight.digest import content_digest
from kindsight.errors import ImageError
from kindsight.storage.address import MEMBER, is_address, split_member
from kindsight.threads import map_ordered, single_threaded_opencv

__all__ = [
    "FileIndex", "FileProcessor", "FileStamp", "ImageTable", "ProcessedFiles", "Progress",
    "process_files", "settled_stamp",
]  # fmt: skip

# Seconds. A file that changed less than this before it was read may change again without getting
# another time stamp; file systems that store whole seconds need longer.
SETTLED_SECONDS = 0.05
COARSE_SETTLED_SECONDS = 2.5

Progress = Callable[[int, int], None]
"""Called with (images done, number of images)."""

# Results are written this often, in seconds: what a kill -9 can lose.
FLUSH_SECONDS = 1.0

# A thread returns its remaining rows after this time, or this many bytes read ahead.
BATCH_SECONDS = 0.05
AHEAD_BYTES = 1 << 20

# Below this CPU time per image, one thread is faster than two (lock contention)...
FAST_SECONDS = 0.0008

# ...unless the elapsed time is this many times longer: then threads wait for the disk in parallel.
WAITING_RATIO = 8.0


@dataclass(frozen=True)
class FileStamp:
    """Size, times (ns) and inode of a file; if they are equal, its content is unchanged."""

    size: int
    modified: int
    changed: int
    inode: int

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> FileStamp:
        """Return the stamp of a file; OSError or ValueError if there is none.

        For an address, it is made of what the storage reported when the dataset was opened; for a
        file in a tar file, it is that of the tar file.
        """
        name = os.fspath(path)
        if isinstance(name, str) and ("://" in name or MEMBER in name.lower()):
            member = split_member(name)
            if is_address(name):
                return cls._of_address(member[0] if member else name)
            if member is not None and not os.path.lexists(name):
                path = member[0]
        stat = os.stat(path)  # noqa: PTH116 (called once per image; Path is slower)
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, _signed(stat.st_ino))

    @classmethod
    def _of_address(cls, address: str) -> FileStamp:
        from kindsight.storage.versions import known_version

        known = known_version(address)
        if known is None:
            raise FileNotFoundError(address)
        # No local file has the fixed inode. A version that might not reveal a change counts as
        # unknown.
        return cls(*known, 0, -1)

    def settled(self, now: float) -> bool:
        """Return whether any change after `now`, in seconds, would give another stamp."""
        if self.inode == -1:
            return True
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
    """Return a file's stamp before it is read; None if it might not reveal a later change."""
    now = time.time()
    try:
        stamp = FileStamp.of(file)
    except (OSError, ValueError):  # reading the file gives the reason
        return None
    return stamp if stamp.settled(now) else None


class ImageTable(Protocol):
    """Stores what is computed from images, by content digest."""

    def known(self, digests: Iterable[str]) -> set[str]:
        """Return those of `digests` that have a row."""

    def problems(self, digests: Iterable[str]) -> dict[str, tuple[str, str]]:
        """Return (code, reason) of unreadable images."""

    def put(self, rows: list[Any]) -> None:
        """Store all rows in one transaction."""

    def stored(self) -> list[str]:
        """Return the digests of all rows, including those that are not `known`."""


class FileProcessor(Protocol):
    """Computes the rows of an :class:`ImageTable`; called on many threads."""

    def read(self, digest: str, data: bytes | NDArray[np.uint8]) -> Any:
        """Return the row of an image file's bytes or an array; ImageError if unusable."""

    def failed(self, digest: str, error: ImageError) -> Any:
        """Return the row of an unusable image."""


@dataclass(frozen=True)
class ProcessedFiles:
    """Result of :func:`process_files`."""

    digests: list[str | None]  # of every row; None if the file could not be read
    errors: dict[int, ImageError]  # row -> why it has no digest
    computed: int  # number of distinct images that were processed


def process_files(
    dataset: ImageDataset,
    cache: Cache,
    table: ImageTable,
    lookup_table: ImageTable,
    processor: Callable[[int], FileProcessor],
    threads: int,
    progress: Progress | None = None,
    *,
    batch: int = 1,
    detect_fast: bool = True,
    cluster: Cluster | None = None,
) -> ProcessedFiles:
    """Ensure that a table has a row for every image of a dataset.

    - `cache`: its file index is used.
    - `table`, `lookup_table`: the table over two connections: look-ups on many threads must not
      wait for writes.
    - `processor`: returns a FileProcessor; called with the number of rows to process, if any.
    - `threads`: images processed at once.
    - `progress`: called from the calling thread.
    - `batch`: maximum number of rows per task. Up to eight times as many results per thread wait in
      memory.
    - `detect_fast`: whether to use the calling thread alone while images are processed very fast.
    - `cluster`: where images are processed, and how, in place of `processor` and `threads`.

    Raises
    ------
    CacheError
        If the cache cannot be used; DamagedTableError if it is damaged: call again.
    """
    with closing(FileIndex(cache.files_file)) as index:
        digests = _known_digests(dataset, index)
        done = table.known(digest for digest in digests if digest is not None)
        todo = [row for row, digest in enumerate(digests) if digest not in done]
        results = _Results(digests, table, index, progress, len(digests) - len(todo))
        if todo and cluster is not None:
            for outcome in _on_cluster(cluster, dataset, todo, digests, lookup_table):
                results.add(outcome)
            results.flush()
        elif todo:
            work = _Work(dataset, processor(len(todo)), lookup_table)
            try:
                if dataset.is_remote:
                    work.ahead = ReadAhead(dataset.load, todo, dataset.size)
                    batch = 1  # a row that a thread returns would be read again
                with single_threaded_opencv():
                    for outcome in _run(work, todo, threads, batch, detect_fast):
                        results.add(outcome)
            finally:
                if work.ahead is not None:
                    work.ahead.close()
            results.flush()
    return ProcessedFiles(digests, results.errors, results.computed)


class _Outcome(NamedTuple):
    """The result for one row."""

    row: int
    digest: str | None = None
    # stamp of the file before it was read; None if it might not reveal a later change
    stamp: FileStamp | None = None
    file: str = ""  # absolute path; empty for an image in memory
    new: Any = None  # new row for the table; None for a copy of a processed image
    error: ImageError | None = None


class _Results:
    """Collects outcomes and writes them to the cache in batches."""

    def __init__(
        self,
        digests: list[str | None],
        table: ImageTable,
        index: FileIndex,
        progress: Progress | None,
        done: int,
    ) -> None:
        self.errors: dict[int, ImageError] = {}
        self.computed = 0
        self._digests, self._table, self._index = digests, table, index
        self._progress, self._done = progress, done
        self._rows: list[Any] = []
        self._stamps: list[tuple[str, FileStamp, str]] = []
        self._flushed = time.monotonic()
        self._report()

    def add(self, outcome: _Outcome) -> None:
        self._digests[outcome.row] = outcome.digest
        if outcome.error is not None and outcome.digest is None:
            self.errors[outcome.row] = outcome.error
        if outcome.new is not None:
            self._rows.append(outcome.new)
            self.computed += outcome.error is None
        if outcome.stamp is not None and outcome.digest is not None:
            self._stamps.append((outcome.file, outcome.stamp, outcome.digest))
        self._done += 1
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        if self._rows:
            self._table.put(self._rows)
        if self._stamps:
            self._index.put(self._stamps)
        self._rows, self._stamps = [], []
        self._flushed = time.monotonic()
        self._report()

    def _report(self) -> None:
        if self._progress is not None:
            self._progress(self._done, len(self._digests))


@dataclass
class _Work:
    """Loads, digests and processes images; called on many threads."""

    dataset: ImageDataset
    processor: FileProcessor
    table: ImageTable
    ahead: ReadAhead[bytes | NDArray[np.uint8]] | None = None
    _started: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, rows: Sequence[int]) -> tuple[list[_Outcome], Sequence[int]]:
        """Return the outcomes of the first rows, at least one, and the remaining rows."""
        until = time.monotonic() + BATCH_SECONDS
        loaded: list[tuple[_Outcome, bytes | NDArray[np.uint8] | None]] = []
        size = 0
        for row in rows:
            outcome, data = self._load(row)
            loaded.append((outcome, data))
            size += 0 if data is None else data.nbytes if not isinstance(data, bytes) else len(data)
            if size > AHEAD_BYTES:
                break
        with self._lock:
            known = self.table.known(
                o.digest for o, data in loaded if o.digest and data is not None
            )
        outcomes: list[_Outcome] = []
        for outcome, data in loaded:
            if outcomes and time.monotonic() > until:
                break
            outcomes.append(outcome if data is None else self._process(outcome, data, known))
        return outcomes, rows[len(outcomes) :]

    def _load(self, row: int) -> tuple[_Outcome, bytes | NDArray[np.uint8] | None]:
        """Return a row's digest, and its image unless nothing remains to be done."""
        stamp, file = None, ""
        if self.dataset.arrays is None:
            file = self.dataset.address(row)
            stamp = settled_stamp(file)
        try:
            data = (self.ahead or self.dataset.load)(row)
        except ImageError as error:
            if error.code != "empty":
                return _Outcome(row, error=error), None
            digest = content_digest(b"")  # identifies it the next time
            new = self.processor.failed(digest, error)
            return _Outcome(row, digest, stamp, file, new, error), None
        return _Outcome(row, content_digest(data), stamp, file), data

    def _process(
        self, outcome: _Outcome, data: bytes | NDArray[np.uint8], known: set[str]
    ) -> _Outcome:
        digest = outcome.digest or ""
        if isinstance(data, bytes) and (error := why_unsupported(data)):
            # Not cached: a package that reads the format may be installed before the next run.
            return outcome._replace(digest=None, stamp=None, error=error)
        with self._lock:
            if digest in known or digest in self._started:
                return outcome
            self._started.add(digest)
        try:
            return outcome._replace(new=self.processor.read(digest, data))
        except ImageError as error:
            return outcome._replace(new=self.processor.failed(digest, error), error=error)


def _on_cluster(
    cluster: Cluster,
    dataset: ImageDataset,
    rows: Sequence[int],
    digests: Sequence[str | None],
    table: ImageTable,
) -> Iterator[_Outcome]:
    """Yield the outcomes of rows that the workers of a cluster process, each new content once."""
    started: set[str] = set()
    before: dict[int, tuple[FileStamp | None, str]] = {}

    def sent(row: int) -> None:
        file = "" if dataset.arrays is not None else dataset.address(row)
        before[row] = settled_stamp(file) if file else None, file

    known = table.known([*table.stored(), *(digests[row] or "" for row in rows)])
    yield from (_Outcome(row, digests[row]) for row in rows if digests[row] in known)
    rows = [row for row in rows if digests[row] not in known]
    for row, digest, new, error in process_on_cluster(cluster, dataset, rows, sorted(known), sent):
        stamp, file = before.pop(row)
        again = digest in started
        if digest is not None and new is not None:
            started.add(digest)
        yield _Outcome(row, digest, stamp, file, None if again else new, error)


def _key(path: str) -> bytes:
    return path.encode("utf-8", "surrogatepass")


def _signed(inode: int) -> int:
    """Convert an unsigned number of 64 bits or more to SQLite's signed 64 bits."""
    low = inode & (2**64 - 1)
    return low - 2**64 if low >= 2**63 else low


def _known_digests(dataset: ImageDataset, index: FileIndex) -> list[str | None]:
    if dataset.arrays is not None:
        return [None] * len(dataset)
    digests: list[str | None] = []
    for rows in chunked(range(len(dataset))):
        files = [dataset.address(row) for row in rows]
        found = index.lookup(files)
        digests += map(found.get, files)
    return digests


def _run(
    work: _Work, rows: Sequence[int], threads: int, batch: int, detect_fast: bool
) -> Iterator[_Outcome]:
    """Process rows on threads, a batch at a time; rows that a thread returns are queued again.

    Very small images are mostly processed by Python in short steps, for which several threads are
    slower than one because they contend for the interpreter lock. With batches, the calling thread
    therefore processes some images itself to measure the cost, and continues while it is low.
    """
    pending = deque(rows)
    rounds = 1
    # Each thread should get several batches.
    batch = max(1, min(batch, len(rows) // (4 * threads)))
    detect_fast = detect_fast and batch > 1

    def take() -> Sequence[int]:
        return [pending.popleft() for _ in range(min(batch, len(pending)))]

    def batches() -> Iterator[Sequence[int]]:
        number = 0
        while pending and (not detect_fast or number < rounds * threads):
            yield take()
            number += 1

    while pending:
        if detect_fast:
            cpu, start = time.thread_time(), time.perf_counter()
            outcomes, left = work(take())
            cpu, elapsed = time.thread_time() - cpu, time.perf_counter() - start
            pending.extend(left)
            yield from outcomes
            if cpu < FAST_SECONDS * len(outcomes) and elapsed < WAITING_RATIO * cpu:
                continue
        for outcomes, left in map_ordered(work, batches(), threads):
            pending.extend(left)
            yield from outcomes
        rounds = min(2 * rounds, 32)
