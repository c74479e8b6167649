"""The engine: a bounded queue of images, and the threads that predict them.

Everything that belongs to a request happens on the event loop; only :class:`Job` is shared with the
threads. A job is waiting, then running, then done; it is dropped only while it waits.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from kindsight.threads import count_cores, single_threaded_opencv

__all__ = ["Engine", "Job", "QueueFullError"]

logger = logging.getLogger("kindsight.server")

RATE_SECONDS = 10.0
"""Time over which the rate of finished images is averaged, in seconds."""


class QueueFullError(Exception):
    """More images would wait than the limit allows; `retry_after` is in seconds."""

    def __init__(self, waiting: int, retry_after: int) -> None:
        super().__init__(f"{waiting} images are waiting")
        self.waiting = waiting
        self.retry_after = retry_after


class Job:
    """One image: a function for a thread, and the future of its result on the event loop.

    Parameters
    ----------
    work : callable
        Returns the result; called on a thread.
    loop : asyncio.AbstractEventLoop
        The event loop on which the result is awaited.
    """

    __slots__ = ("done", "loop", "work")

    def __init__(self, work: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.work = work
        self.loop = loop
        self.done: asyncio.Future[Any] = loop.create_future()

    def run(self) -> None:
        """Do the work on this thread, and pass the result to the event loop."""
        try:
            result, error = self.work(), None
        except BaseException as caught:
            result, error = None, caught
        try:
            self.loop.call_soon_threadsafe(self._finish, result, error)
        except RuntimeError:  # the event loop has ended: nobody awaits the result
            logger.debug("a result arrived after the server had ended")

    def _finish(self, result: Any, error: BaseException | None) -> None:
        if self.done.done():  # cancelled: the client is gone, or the time limit was reached
            return
        if error is None:
            self.done.set_result(result)
        elif isinstance(error, Exception):
            self.done.set_exception(error)
        else:
            self.done.set_exception(RuntimeError(f"{type(error).__name__} on a thread"))


class Engine:
    """Threads that run jobs in the order in which they came.

    Parameters
    ----------
    workers : int, optional
        Number of threads; the number of cores by default.
    limit : int
        Maximum number of waiting jobs.
    """

    def __init__(self, workers: int | None, limit: int) -> None:
        self.workers = workers or count_cores()
        self.limit = limit
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._running = 0
        self._closed = False
        self._finished: deque[float] = deque(maxlen=1024)
        self._threads: list[threading.Thread] = []
        self._opencv = ExitStack()

    @property
    def waiting(self) -> int:
        """Number of waiting images."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Number of images that are being predicted."""
        return self._running

    def start(self) -> None:
        """Start the threads."""
        self._opencv.enter_context(single_threaded_opencv())
        for number in range(self.workers):
            # A thread in a native function must not prevent the process from ending.
            thread = threading.Thread(target=self._work, name=f"kindsight-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self, seconds: float = 5.0) -> None:
        """Drop the waiting jobs, and end the threads after their current job."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        self._opencv.close()

    def check_room(self, count: int = 1) -> None:
        """Raise QueueFullError if `count` more jobs cannot wait."""
        waiting = len(self._waiting)
        if waiting + count > self.limit:
            raise QueueFullError(waiting, self._retry_after(waiting + count - self.limit))

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue all jobs or, with QueueFullError, none."""
        with self._changed:
            self.check_room(len(jobs))
            if self._closed:
                raise RuntimeError("The engine is closed.")
            self._waiting.extend(jobs)
            self._changed.notify(len(jobs))

    def drop(self, jobs: Sequence[Job]) -> None:
        """Remove those jobs that are still waiting; nobody awaits them any more."""
        unwanted = set(map(id, jobs))
        with self._changed:
            kept = [job for job in self._waiting if id(job) not in unwanted]
            self._waiting.clear()
            self._waiting.extend(kept)
        for job in jobs:
            job.done.cancel()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                job = self._waiting.popleft()
                self._running += 1
            job.run()
            with self._changed:
                self._running -= 1
                self._finished.append(time.monotonic())

    def _retry_after(self, excess: int) -> int:
        """Return the seconds until `excess` fewer images are waiting, at the recent rate."""
        now = time.monotonic()
        recent = [moment for moment in list(self._finished) if now - moment < RATE_SECONDS]
        if not recent:
            return 1
        rate = len(recent) / max(0.1, now - recent[0])
        return max(1, min(60, round(excess / rate + 0.5)))
