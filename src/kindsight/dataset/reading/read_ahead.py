"""Read images at addresses ahead: reading waits for the storage, not for a core."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from kindsight.storage.files import IN_FLIGHT

__all__ = ["ReadAhead", "read_in_order"]

AHEAD_BYTES = 1 << 28
"""Limit of bytes that wait in memory, by the sizes that the storage states."""

_Item = TypeVar("_Item")
_Data = TypeVar("_Data")


class ReadAhead(Generic[_Data]):
    """Loads rows ahead in the order in which they will be requested, many at once.

    Parameters
    ----------
    load : callable
        Returns the image of a row; its errors are raised when the row is requested.
    rows : sequence of int
        The rows in the expected order. Others, and repetitions, are loaded when they are requested.
    sizes : sequence of int
        Bytes of each image by row; 0 if unknown.
    """

    def __init__(
        self, load: Callable[[int], _Data], rows: Iterable[int], sizes: Sequence[int]
    ) -> None:
        self._load, self._rows, self._sizes = load, iter(rows), sizes
        self._pool = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="kindsight-storage")
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[_Data]] = {}
        self._bytes = 0

    def __call__(self, row: int) -> _Data:
        """Return the image of a row; called on many threads."""
        with self._lock:
            self._fill()
            found = self._waiting.pop(row, None)
            if found is not None:
                self._bytes -= self._sizes[row]
        return self._load(row) if found is None else found.result()

    def _fill(self) -> None:
        while len(self._waiting) < 2 * IN_FLIGHT and (not self._bytes or self._bytes < AHEAD_BYTES):
            row = next(self._rows, None)
            if row is None:
                return
            if row not in self._waiting:
                self._waiting[row] = self._pool.submit(self._load, row)
                self._bytes += self._sizes[row]

    def close(self) -> None:
        """Discard rows that were not requested; wait for running requests."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def read_in_order(
    items: Iterable[_Item],
    is_remote: Callable[[_Item], bool],
    read: Callable[[_Item], _Item],
) -> Iterator[_Item]:
    """Yield items in order; remote ones are read first, many at once.

    - `is_remote`: whether an item is remote and must be read.
    - `read`: returns the value that is yielded in place of a remote item.

    Without remote items, each is yielded as soon as it comes.
    """
    waiting: deque[_Item | Future[_Item]] = deque()
    pool: ThreadPoolExecutor | None = None
    try:
        for item in items:
            if is_remote(item):
                pool = pool or ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="kindsight-storage")
                waiting.append(pool.submit(read, item))
            elif not waiting:
                yield item
                continue
            else:
                waiting.append(item)
            while len(waiting) > IN_FLIGHT or (
                waiting and (not isinstance(waiting[0], Future) or waiting[0].done())
            ):
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())
    finally:
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)


def _result(item: _Item | Future[_Item]) -> _Item:
    return item.result() if isinstance(item, Future) else item
