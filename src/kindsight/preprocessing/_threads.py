"""One pool of threads for the whole process, and the work on the pictures of a batch in it."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from kindsight.threads import count_cores

__all__ = ["Work", "for_each", "has_helpers"]

# Calls that take less than this, in seconds, are done by one thread: several would spend more time
# on handing Python's lock to each other than they save.
_LIGHT = 5e-5


class _Pool:
    """The threads, started when first needed."""

    def __init__(self) -> None:
        # The caller works too, so one thread less than there are cores.
        self._begin(count_cores() - 1)

    def _begin(self, helpers: int) -> None:
        self.lock = threading.Lock()
        self.executor: ThreadPoolExecutor | None = None
        self.helpers = helpers

    def submit(self, task: Callable[[], None]) -> Future[None] | None:
        """Hand a task to a thread; None where there are none to be had."""
        try:
            with self.lock:
                if self.executor is None:
                    self.executor = ThreadPoolExecutor(self.helpers, "kindsight-pictures")
                return self.executor.submit(task)
        except RuntimeError:  # Python is on its way out.
            return None

    def after_fork(self) -> None:
        """Do without the parent's threads, which a child process does not have.

        A child is one of several workers that share the cores, so it starts none of its own.
        """
        self._begin(0)


_pool = _Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.after_fork)


def has_helpers() -> bool:
    """Whether there are threads besides the caller's."""
    return _pool.helpers > 0


class Work:
    """Calls of a function with 0, 1, 2, ... on whatever threads join in.

    Parameters
    ----------
    count : int
        How many.
    function : callable
        What is called, from several threads at once.
    """

    def __init__(self, count: int, function: Callable[[int], None]) -> None:
        self._count, self._function = count, function
        self._numbers = itertools.count()
        self._failures: list[tuple[int, BaseException]] = []
        self._stopped = False
        self._helpers: list[Future[None]] = []
        self._seconds = 0.0

    @property
    def is_light(self) -> bool:
        """Whether the calls, which have been made, were too short for several threads."""
        return self._count > 0 and self._seconds < _LIGHT * self._count

    def start(self) -> None:
        """Let the other threads begin; the caller goes on."""
        for _ in range(min(_pool.helpers, self._count) - len(self._helpers)):
            if (helper := _pool.submit(self._join_in)) is not None:
                self._helpers.append(helper)

    def finish(self) -> None:
        """Join in until all is done, with the other threads from the first call that takes long.

        Raises
        ------
        Exception
            What the first of the calls, in their order, raised. Those after it may not have been
            made.
        """
        self._join_in(alone=not self._helpers)
        for helper in self._helpers:
            # One that has not begun would find nothing left to do.
            if not helper.cancel():
                helper.result()
        if self._failures:
            raise min(self._failures, key=lambda failure: failure[0])[1]

    def stop(self) -> None:
        """Make no further calls: nobody wants the result."""
        self._stopped = True

    def _join_in(self, alone: bool = False) -> None:
        # The thread's own time: waiting for the lock makes a call no heavier.
        began = time.thread_time()
        while not self._stopped and (number := next(self._numbers)) < self._count:
            called = time.perf_counter()
            try:
                self._function(number)
            except BaseException as error:  # raised by finish(), on the caller's thread
                self._failures.append((number, error))
                self._stopped = True
            if alone and time.perf_counter() - called > _LIGHT:
                alone = False
                self.start()
        self._seconds += time.thread_time() - began


def for_each(count: int, function: Callable[[int], None]) -> None:
    """Call ``function(0)`` to ``function(count - 1)`` on all cores; raises as `Work.finish`."""
    work = Work(count, function)
    if count > 1:
        work.start()
    work.finish()
