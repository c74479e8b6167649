"""Work for several threads: in order, a bounded way ahead; and how many there should be."""

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

__all__ = ["count_cores", "in_bundles", "map_ordered", "single_threaded_opencv"]

Item = TypeVar("Item")
Result = TypeVar("Result")

# Results computed ahead of the one that is waited for, per thread: enough to ride out one slow
# image, small enough that memory does not depend on the number of images.
AHEAD = 8
# Seconds an item may be in coming, on average, for the next ones to be bundled: more than the taker
# may have to wait for a processor or for the lock of Python.
PATIENCE = 0.02
# Items that each thread has had before they come by twos, and as many more for every further one.
EACH = 4


def count_cores() -> int:
    """How many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


def map_ordered(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: int = AHEAD
) -> Iterator[Result]:
    """Apply `function` to `items` on several threads; yield the results in the items' order.

    Only a bounded number of items is taken ahead of the result that is yielded, so `items` may be
    endless. Left early (by an error, or Ctrl-C), it waits only for what is under way.

    Parameters
    ----------
    function : callable
        Called on any thread; what it raises is raised here, at that item's turn.
    items : iterable
        Taken on the caller's thread.
    threads : int
        How many.
    ahead : int
        How many results per thread may wait to be yielded.
    """
    waiting: deque[Future[Result]] = deque()
    executor = ThreadPoolExecutor(threads, thread_name_prefix="kindsight")
    try:
        for item in items:
            waiting.append(executor.submit(function, item))
            # What is done goes out at once: the next item may be long in coming.
            while waiting and (len(waiting) >= ahead * threads or waiting[0].done()):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def in_bundles(items: Iterable[Item], most: int, threads: int) -> Iterator[list[Item]]:
    """Hand on several items at once, as long as they come quickly: fewer handings over.

    Parameters
    ----------
    items : iterable
        Where some are long in coming, the next goes alone; those before it in the same bundle have
        waited for it.
    most : int
        How many are handed on at once.
    threads : int
        By how many they are taken: bundles grow only as far as each has had some.
    """
    iterator, size, taken = iter(items), 1, 0
    while True:
        start = time.monotonic()
        bundle = list(islice(iterator, size))
        if not bundle:
            return
        quick = time.monotonic() - start < PATIENCE * size
        yield bundle
        taken += len(bundle)
        size = min(most, 1 + taken // (EACH * threads)) if quick else 1


class _OpenCV:
    """How many hold OpenCV to one thread, and how many threads it had before the first of them."""

    lock = threading.Lock()
    holders = 0
    before = 1


if hasattr(os, "register_at_fork"):  # a forked process must not wait for its parent's threads
    os.register_at_fork(after_in_child=lambda: setattr(_OpenCV, "lock", threading.Lock()))


@contextmanager
def single_threaded_opencv() -> Iterator[None]:
    """Keep OpenCV from starting threads of its own while ours already use every core.

    The setting is the whole process's; it is put back when the last of several blocks, one within
    another or side by side on several threads, has ended.
    """
    import cv2

    with _OpenCV.lock:
        if not _OpenCV.holders:
            _OpenCV.before = cv2.getNumThreads()
            cv2.setNumThreads(1)
        _OpenCV.holders += 1
    try:
        yield
    finally:
        with _OpenCV.lock:
            _OpenCV.holders -= 1
            if not _OpenCV.holders:
                cv2.setNumThreads(_OpenCV.before)
