"""Threads: ordered parallel mapping, batching, the number of cores, and OpenCV's own threads."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

__all__ = ["count_cores", "in_batches", "map_ordered", "single_threaded_opencv"]

Item = TypeVar("Item")
Result = TypeVar("Result")

# Results per thread that are computed ahead of the awaited one: enough to bridge one slow image,
# few enough that memory does not depend on the number of images.
AHEAD = 8
# Mean seconds per item up to which the next items are batched: more than the consumer waits for a
# core or for Python's lock.
PATIENCE = 0.02
# The batch size grows by one for each of this many items per thread.
EACH = 4


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


def map_ordered(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: int = AHEAD
) -> Iterator[Result]:
    """Apply `function` to `items` on several threads; yield the results in the items' order.

    Only a bounded number of items is read ahead (`ahead` results per thread), so `items` may be
    endless. They are iterated on the caller's thread. Exceptions of `function` are raised in the
    item's turn. If the iteration ends early (by an error, or Ctrl-C), it waits only for running
    calls.
    """
    waiting: deque[Future[Result]] = deque()
    executor = ThreadPoolExecutor(threads, thread_name_prefix="kindsight")
    try:
        for item in items:
            waiting.append(executor.submit(function, item))
            # Finished results are yielded at once: the next item may arrive late.
            while waiting and (len(waiting) >= ahead * threads or waiting[0].done()):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def in_batches(items: Iterable[Item], limit: int, threads: int) -> Iterator[list[Item]]:
    """Yield items in batches of up to `limit` while they arrive quickly, to save overhead.

    After a slow batch, the next item is yielded alone. The batch size grows only once each of
    `threads` consumers has had some items.
    """
    iterator, size, taken = iter(items), 1, 0
    while True:
        start = time.monotonic()
        batch = list(islice(iterator, size))
        if not batch:
            return
        quick = time.monotonic() - start < PATIENCE * size
        yield batch
        taken += len(batch)
        size = min(limit, 1 + taken // (EACH * threads)) if quick else 1


class _OpenCV:
    """The number of active blocks, and OpenCV's number of threads before the first of them."""

    lock = threading.Lock()
    blocks = 0
    before = 1


if hasattr(os, "register_at_fork"):  # a forked process must not wait for its parent's threads
    os.register_at_fork(after_in_child=lambda: setattr(_OpenCV, "lock", threading.Lock()))


@contextmanager
def single_threaded_opencv() -> Iterator[None]:
    """Limit OpenCV to one thread, since our threads already use every core.

    The setting belongs to the process. It is restored when the last of several blocks, nested or on
    different threads, has ended.
    """
    import cv2

    with _OpenCV.lock:
        if not _OpenCV.blocks:
            _OpenCV.before = cv2.getNumThreads()
            cv2.setNumThreads(1)
        _OpenCV.blocks += 1
    try:
        yield
    finally:
        with _OpenCV.lock:
            _OpenCV.blocks -= 1
            if not _OpenCV.blocks:
                cv2.setNumThreads(_OpenCV.before)
