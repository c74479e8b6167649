"""What became of the rows of a catalog, taken down and written to the cache from time to time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

from kindsight.catalog.file_index import FileIndex, FileStamp
from kindsight.errors import PictureError

__all__ = ["Ledger", "Outcome", "Progress", "Table"]

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


class Outcome(NamedTuple):
    """What became of one row of a catalog.

    Attributes
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
