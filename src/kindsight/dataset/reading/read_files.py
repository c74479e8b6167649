"""Reading the images of a dataset that a table does not have yet, each content once.

Rows are handed to threads some at a time: of a small image, handing it over would cost a third of
what is done with it. Whoever is stopped waits only for what is under way, and memory is bounded, so
a thread gives back what it could not do soon, and reads only so many bytes ahead.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kindsight.cache.folder import Cache
from kindsight.dataset.reading.ledger import (
    FileIndex,
    Ledger,
    Outcome,
    Progress,
    Table,
    settled_stamp,
)
from kindsight.dataset.table import ImageDataset
from kindsight.digest import content_digest
from kindsight.errors import ImageError
from kindsight.threads import map_ordered, single_threaded_opencv

__all__ = ["Read", "Reader", "process_files"]

# After so long, or so many bytes, a thread gives back what is left of the rows it was handed.
SOON_SECONDS = 0.05
AHEAD_BYTES = 1 << 20

# For images that take less than this, one thread is faster than two.
QUICK_SECONDS = 0.0008

# Unless so many times as long passes: where a disk is waited for, threads wait side by side.
WAITED = 8.0


class Reader(Protocol):
    """Makes the rows of a :class:`Table` from files as they are; called on many threads."""

    def read(self, digest: str, data: bytes | NDArray[np.uint8]) -> Any:
        """Make an image's row of its file's bytes, or of an array in memory.

        Raises
        ------
        ImageError
            If it is of no use.
        """

    def failed(self, digest: str, error: ImageError) -> Any:
        """Make the row of an image that is of no use."""


@dataclass(frozen=True)
class Read:
    """How the rows of a dataset fared.

    Parameters
    ----------
    digests : list of (str or None)
        Of every row; None where there is no file that could be read.
    errors : dict of int to ImageError
        By row, why there is no digest.
    made : int
        How many distinct images were made.
    """

    digests: list[str | None]
    errors: dict[int, ImageError]
    made: int


def process_files(
    dataset: ImageDataset,
    cache: Cache,
    table: Table,
    look_up: Table,
    reader: Callable[[], Reader],
    threads: int,
    progress: Progress | None = None,
    *,
    together: int = 1,
    quick: bool = True,
) -> Read:
    """See to it that a table has every image of a dataset, made from files as they are.

    Parameters
    ----------
    dataset, cache, table, look_up, threads, progress
        As for :func:`kindsight.dataset.reading.read_once.process_images`.
    reader : callable
        Called if there is anything to make.
    together : int
        How many images a thread is handed at once, at most. What is made of them waits in
        memory: of several for each thread, eight times as many.
    quick : bool
        Whether it may be that quick to make something of an image that threads are slower.

    Raises
    ------
    CacheError
        As :func:`kindsight.dataset.reading.read_once.process_images`.
    """
    with closing(FileIndex(cache.files_file)) as index:
        digests = _known_digests(dataset, index)
        done = table.known(digest for digest in digests if digest is not None)
        todo = [row for row, digest in enumerate(digests) if digest not in done]
        ledger = Ledger(digests, table, index, progress, len(digests) - len(todo))
        if todo:
            work = _Work(dataset, reader(), look_up)
            with single_threaded_opencv():
                for outcome in _done(work, todo, threads, together, quick):
                    ledger.add(outcome)
            ledger.flush()
    return Read(digests, ledger.errors, ledger.made)


def _done(
    work: _Work, rows: Sequence[int], threads: int, together: int, quick: bool
) -> Iterator[Outcome]:
    """Give rows to threads, some at a time, and what they give back once more.

    Of small images so much is done by Python, and in so many short turns, that several threads
    are slower than one: for them they only pass its lock around. So, where rows go together, the
    calling thread does some itself to see what they cost, and goes on as long as that is little.
    """
    pending = deque(rows)
    several = 1
    # Each thread is to have several turns.
    together = max(1, min(together, len(rows) // (4 * threads)))

    def part() -> Sequence[int]:
        return [pending.popleft() for _ in range(min(together, len(pending)))]

    def parts() -> Iterator[Sequence[int]]:
        number = 0
        while pending and (together == 1 or not quick or number < several * threads):
            yield part()
            number += 1

    while pending:
        if together > 1 and quick:
            spent, begun = time.thread_time(), time.perf_counter()
            outcomes, left = work(part())
            spent, passed = time.thread_time() - spent, time.perf_counter() - begun
            pending.extend(left)
            yield from outcomes
            if spent < QUICK_SECONDS * len(outcomes) and passed < WAITED * spent:
                continue
        for outcomes, left in map_ordered(work, parts(), threads):
            pending.extend(left)
            yield from outcomes
        several = min(2 * several, 32)


def _known_digests(dataset: ImageDataset, index: FileIndex) -> list[str | None]:
    """Digests of those rows whose content is known without reading."""
    if dataset.arrays is not None:
        return [None] * len(dataset)
    files = [str(dataset.file(row)) for row in range(len(dataset))]
    found = index.lookup(files)
    return [found.get(file) for file in files]


@dataclass
class _Work:
    """Loads and digests images, and hands them on; called on many threads."""

    dataset: ImageDataset
    reader: Reader
    table: Table
    _taken: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, rows: Sequence[int]) -> tuple[list[Outcome], Sequence[int]]:
        """Return what became of rows, one at least, and those that were not come to.

        Never raises for an image that cannot be read.
        """
        until = time.monotonic() + SOON_SECONDS
        loaded: list[tuple[Outcome, bytes | NDArray[np.uint8] | None]] = []
        size = 0
        for row in rows:
            loaded.append(self._load(row))
            size += _bytes_of(loaded[-1][1])
            if size > AHEAD_BYTES:
                break
        with self._lock:
            known = self.table.known(
                o.digest for o, data in loaded if o.digest and data is not None
            )
        outcomes: list[Outcome] = []
        for outcome, data in loaded:
            if outcomes and time.monotonic() > until:
                break
            outcomes.append(outcome if data is None else self._make(outcome, data, known))
        return outcomes, rows[len(outcomes) :]

    def _load(self, row: int) -> tuple[Outcome, bytes | NDArray[np.uint8] | None]:
        """Return which image a row is, and the image unless there is nothing more to do."""
        stamp, file = None, ""
        if self.dataset.arrays is None:
            file = str(self.dataset.file(row))
            stamp = settled_stamp(file)
        try:
            data = self.dataset.load(row)
        except ImageError as error:
            if error.code != "empty":
                return Outcome(row, error=error), None
            digest = content_digest(b"")  # by which it is known the next time
            made = self.reader.failed(digest, error)
            return Outcome(row, digest, stamp, file, made, error), None
        return Outcome(row, content_digest(data), stamp, file), data

    def _make(self, outcome: Outcome, data: bytes | NDArray[np.uint8], known: set[str]) -> Outcome:
        """Return what becomes of an image that was loaded; it is made unless it was before."""
        digest = outcome.digest or ""
        with self._lock:
            if digest in known or digest in self._taken:
                return outcome
            self._taken.add(digest)
        try:
            return outcome._replace(made=self.reader.read(digest, data))
        except ImageError as error:
            return outcome._replace(made=self.reader.failed(digest, error), error=error)


def _bytes_of(data: bytes | NDArray[np.uint8] | None) -> int:
    return 0 if data is None else data.nbytes if isinstance(data, np.ndarray) else len(data)
