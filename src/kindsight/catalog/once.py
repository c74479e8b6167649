"""Going through the pictures of a catalog once: what was made of a picture is found again.

Whatever is kept of pictures (features, resized pixels) is kept by the content of their files. So
it does not matter how a file is called, in which folder it lies, or how the data are split; copies
are made once; and a file whose size and times have not changed is not even read to be known.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kindsight.cache import Cache
from kindsight.catalog.catalog import Catalog
from kindsight.catalog.file_index import FileIndex, FileStamp, settled_stamp
from kindsight.errors import PictureError
from kindsight.pictures import InputSpec, content_digest, read_picture, resize_picture
from kindsight.threads import map_ordered, single_threaded_opencv

__all__ = [
    "Beside",
    "Gone",
    "Maker",
    "Outcome",
    "Progress",
    "Read",
    "Reader",
    "Table",
    "go_through",
    "read_through",
]

Progress = Callable[[int, int], None]
"""Called with (pictures done, pictures in all)."""

# What a kill -9 can lose: at most this many seconds of work.
FLUSH_SECONDS = 1.0


class Table(Protocol):
    """Where what is made of pictures is kept, by the digests of their content."""

    def known(self, digests: Iterable[str]) -> set[str]:
        """Return those of `digests` that it has a row for."""

    def problems(self, digests: Iterable[str]) -> dict[str, tuple[str, str]]:
        """Return (code, reason) of those that cannot be read."""

    def put(self, rows: list[Any]) -> None:
        """Keep rows, all or none."""


class Maker(Protocol):
    """Makes the rows of a :class:`Table`; called on many threads."""

    def make(self, digest: str, pixels: NDArray[np.uint8], size: tuple[int, int]) -> Any:
        """Make a picture's row.

        Parameters
        ----------
        digest : str
        pixels : uint8 array (height, width, 3)
            Resized.
        size : (height, width)
            Before it was resized.

        Raises
        ------
        PictureError
            If it is of no use after all.
        """

    def failed(self, digest: str, error: PictureError) -> Any:
        """Make the row of a picture that is of no use."""


class Beside(Protocol):
    """Looks at pictures that are read for another purpose; called on many threads."""

    def see(
        self,
        digest: str,
        data: bytes,
        size: tuple[int, int],
    ) -> NDArray[np.uint8]:
        """Read a picture, look at it, and return it.

        Parameters
        ----------
        digest : str
        data : bytes
            Its file.
        size : (height, width)
            As ``target`` of :func:`kindsight.pictures.read_picture`.

        Raises
        ------
        PictureError
            As that function.
        """


class Reader(Protocol):
    """Makes the rows of a :class:`Table` from files as they are; called on many threads."""

    def read(self, digest: str, data: bytes | NDArray[np.uint8]) -> Any:
        """Make a picture's row of its file's bytes, or of an array in memory.

        Raises
        ------
        PictureError
            If it is of no use.
        """

    def failed(self, digest: str, error: PictureError) -> Any:
        """Make the row of a picture that is of no use."""


@dataclass(frozen=True)
class Outcome:
    """What became of one row of a catalog.

    Parameters
    ----------
    row : int
        Which one.
    digest : str or None
        Of its content, where that could be read.
    stamp : FileStamp or None
        Of its file before it was read, where a later change is sure to show.
    file : str
        Its absolute path; empty for a picture in memory.
    made : object or None
        The row that is new to the table; None for a copy of a picture that is done.
    error : PictureError or None
        Why the picture is of no use.
    """

    row: int
    digest: str | None = None
    stamp: FileStamp | None = None
    file: str = ""
    made: Any = None
    error: PictureError | None = None


@dataclass(frozen=True)
class Gone:
    """How the pictures of a catalog fared.

    Parameters
    ----------
    catalog : Catalog
        The readable ones, digests filled in.
    problems : tuple of PictureError
        Those that were set aside, with their paths.
    problem_labels : tuple of str or None
        The labels of those that were set aside.
    made, reused : int
        How many distinct pictures were made, and how many did not have to be.
    """

    catalog: Catalog
    problems: tuple[PictureError, ...]
    problem_labels: tuple[str | None, ...]
    made: int
    reused: int


def go_through(
    catalog: Catalog,
    spec: InputSpec,
    cache: Cache,
    table: Table,
    look_up: Table,
    maker: Callable[[], Maker],
    threads: int,
    progress: Progress | None = None,
    beside: Beside | None = None,
) -> Gone:
    """See to it that a table has every picture of a catalog.

    Parameters
    ----------
    catalog : Catalog
        Which pictures.
    spec : InputSpec
        How they are resized.
    cache : Cache
        Whose index of files is used.
    table, look_up : Table
        The table, over two connections: many threads look contents up, and on a connection of
        their own no write holds them up.
    maker : callable
        Called if there is anything to make.
    threads : int
        How many pictures are under way at once.
    progress : callable, optional
        Called from this thread.
    beside : Beside, optional
        Looks at the pictures that are read.

    Raises
    ------
    CacheError
        Where the cache cannot be used, or is damaged (DamagedTableError: go through again).
    """

    def reader() -> Reader:
        return _Resizing(spec, maker(), beside)

    read = read_through(catalog, cache, table, look_up, reader, threads, progress)
    return _part(catalog, table, read)


@dataclass(frozen=True)
class Read:
    """How the rows of a catalog fared.

    Parameters
    ----------
    digests : list of (str or None)
        Of every row; None where there is no file that could be read.
    errors : dict of int to PictureError
        By row, why there is no digest.
    made : int
        How many distinct pictures were made.
    """

    digests: list[str | None]
    errors: dict[int, PictureError]
    made: int


def read_through(
    catalog: Catalog,
    cache: Cache,
    table: Table,
    look_up: Table,
    reader: Callable[[], Reader],
    threads: int,
    progress: Progress | None = None,
) -> Read:
    """See to it that a table has every picture of a catalog, made from files as they are.

    The parameters and errors are those of :func:`go_through`; `reader` is called if there is
    anything to make.
    """
    with closing(FileIndex(cache.files_file)) as index:
        digests = _known_digests(catalog, index)
        done = table.known(digest for digest in digests if digest is not None)
        todo = [row for row, digest in enumerate(digests) if digest not in done]
        ledger = _Ledger(digests, table, index, progress, len(digests) - len(todo))
        if todo:
            work = _Work(catalog, reader(), look_up)
            with single_threaded_opencv():
                for outcome in map_ordered(work, todo, threads):
                    ledger.add(outcome)
            ledger.flush()
    return Read(digests, ledger.errors, ledger.made)


@dataclass
class _Resizing:
    """Reads and resizes pictures, and hands them on; a :class:`Reader`."""

    spec: InputSpec
    maker: Maker
    beside: Beside | None = None

    def read(self, digest: str, data: bytes | NDArray[np.uint8]) -> Any:
        if not isinstance(data, bytes):
            picture = data
        elif self.beside is not None:
            picture = self.beside.see(digest, data, self.spec.size)
        else:
            picture = read_picture(data, target=self.spec.size)
        pixels = resize_picture(picture, self.spec)
        return self.maker.make(digest, pixels, (picture.shape[0], picture.shape[1]))

    def failed(self, digest: str, error: PictureError) -> Any:
        return self.maker.failed(digest, error)


def _known_digests(catalog: Catalog, index: FileIndex) -> list[str | None]:
    """Digests of those rows whose content is known without reading."""
    if catalog.arrays is not None:
        return [None] * len(catalog)
    files = [str(catalog.file(row)) for row in range(len(catalog))]
    found = index.lookup(files)
    return [found.get(file) for file in files]


@dataclass
class _Work:
    """Loads and digests one picture, and hands it on; called on many threads."""

    catalog: Catalog
    reader: Reader
    table: Table
    _taken: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, row: int) -> Outcome:
        """Return what became of a row; never raises for a picture that cannot be read."""
        stamp, file = None, ""
        if self.catalog.arrays is None:
            file = str(self.catalog.file(row))
            stamp = settled_stamp(file)
        try:
            data = self.catalog.load(row)
        except PictureError as error:
            if error.code != "empty":
                return Outcome(row, error=error)
            digest = content_digest(b"")  # by which it is known the next time
            return Outcome(row, digest, stamp, file, self.reader.failed(digest, error), error)
        digest = content_digest(data)
        with self._lock:
            if digest in self._taken or self.table.known([digest]):
                return Outcome(row, digest, stamp, file)
            self._taken.add(digest)
        try:
            made = self.reader.read(digest, data)
        except PictureError as error:
            return Outcome(row, digest, stamp, file, self.reader.failed(digest, error), error)
        return Outcome(row, digest, stamp, file, made)


class _Ledger:
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
        self.errors: dict[int, PictureError] = {}
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


def _part(catalog: Catalog, table: Table, read: Read) -> Gone:
    """Part the readable pictures from those set aside."""
    digests = read.digests
    failed = table.problems(digest for digest in digests if digest is not None)
    errors = dict(read.errors)
    for row, digest in enumerate(digests):
        if digest in failed:
            errors[row] = PictureError(*failed[digest])
    good = np.array([row for row in range(len(catalog)) if row not in errors], np.int64)
    kept = catalog.with_columns(digest=digests)[good]
    return Gone(
        kept,
        tuple(errors[row].at(catalog.path[row]) for row in sorted(errors)),
        tuple(catalog.label[row] for row in sorted(errors)),
        read.made,
        len(set(kept.digest)) - read.made,
    )
