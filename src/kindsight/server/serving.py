"""The state that all routes share: settings, models, engine; requests wait here for results."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from fastapi import Request

from kindsight.server.engine import Engine, Job, QueueFullError
from kindsight.server.metrics import Metrics
from kindsight.server.models import LoadedModel, Models
from kindsight.server.problems import FULL, NOT_FOUND, STOPPING, TIMEOUT, ProblemError
from kindsight.server.settings import ServerSettings
from kindsight.server.uploads import ClientGoneError

__all__ = ["Serving"]

Result = TypeVar("Result")

WATCH_AFTER = 0.2
"""Seconds after which a request whose images still wait is dropped if its client is gone.

Watching a connection needs a separate task, and most requests end before.
"""


class Serving:
    """A server's settings, models, engine and metrics.

    Parameters
    ----------
    settings : ServerSettings
    models : Models
    engine : Engine
    """

    def __init__(self, settings: ServerSettings, models: Models, engine: Engine) -> None:
        self.settings = settings
        self.models = models
        self.engine = engine
        self.metrics = Metrics(engine, models)
        self.stopping = False

    def model(self, name: str | None = None) -> LoadedModel:
        """Return the model of a name, the default for None; ProblemError if it is unknown."""
        try:
            return self.models.get(name)
        except KeyError:
            names = ", ".join(served.name for served in self.models.all)
            raise ProblemError(
                NOT_FOUND, f"There is no model {str(name)[:80]!r}. Models: {names}."
            ) from None

    def check_room(self, count: int = 1) -> None:
        """Raise ProblemError if `count` more images cannot wait."""
        try:
            self.engine.check_room(count)
        except QueueFullError as error:
            raise _full(error, count) from None

    async def run(self, request: Request, works: Sequence[Callable[[], Result]]) -> list[Result]:
        """Return the results of functions, one for each image, that run on the engine's threads.

        The body of the request must have been read. If the client closes its connection, waiting
        jobs are dropped.

        Raises
        ------
        ProblemError
            If too many images wait, or the results take too long.
        ClientGoneError
            If the client is gone.
        """
        loop = asyncio.get_running_loop()
        jobs = [Job(work, loop) for work in works]
        try:
            self.engine.submit(jobs)
        except QueueFullError as error:
            raise _full(error, len(jobs)) from None
        except RuntimeError:
            raise ProblemError(STOPPING, "The server is stopping. Try another.") from None
        outcome = _Outcome(jobs, request, self.settings.seconds)
        try:
            if await outcome.ended:
                return [job.done.result() for job in jobs]
            if outcome.is_gone:
                raise ClientGoneError
            raise ProblemError(
                TIMEOUT,
                f"The predictions were not complete after {self.settings.seconds:g} seconds. Send "
                "fewer images in each request, or try again later.",
            )
        finally:
            outcome.close()
            if unfinished := [job for job in jobs if not job.done.done()]:
                self.engine.drop(unfinished)


class _Outcome:
    """The outcome of waiting for the images of a request; `ended` is true if all were predicted.

    It uses timers and callbacks instead of the tasks of ``asyncio.wait``, which take a sixth of a
    request's processor time.
    """

    def __init__(self, jobs: Sequence[Job], request: Request, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[bool] = loop.create_future()
        self.is_gone = False
        self._left = len(jobs)
        self._watching: asyncio.Task[None] | None = None
        self._timers = (
            loop.call_later(seconds, self._end, False),
            loop.call_later(WATCH_AFTER, self._watch, request),
        )
        for job in jobs:
            job.done.add_done_callback(self._count)
        if not jobs:
            self._end(True)

    def close(self) -> None:
        """Cancel the timers, and stop watching the connection."""
        for timer in self._timers:
            timer.cancel()
        if self._watching is not None:
            self._watching.cancel()

    def _count(self, done: asyncio.Future[Any]) -> None:
        if not done.cancelled():
            done.exception()  # asyncio logs exceptions that were never retrieved
        self._left -= 1
        if not self._left:
            self._end(True)

    def _watch(self, request: Request) -> None:
        self._watching = asyncio.get_running_loop().create_task(_until_gone(request))
        self._watching.add_done_callback(self._note_gone)

    def _note_gone(self, watching: asyncio.Task[None]) -> None:
        if not watching.cancelled():
            self.is_gone = watching.exception() is None
            self._end(False)

    def _end(self, complete: bool) -> None:
        if not self.ended.done():
            self.ended.set_result(complete)


async def _until_gone(request: Request) -> None:
    """Return when the client has closed its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _full(error: QueueFullError, count: int) -> ProblemError:
    seconds = error.retry_after
    return ProblemError(
        FULL,
        f"{error.waiting} images are waiting: no room for {count} more. Try again in {seconds} "
        f"second{'s' * (seconds != 1)}.",
        {"Retry-After": str(seconds)},
    )
