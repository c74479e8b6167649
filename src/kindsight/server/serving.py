"""What all routes share: settings, models, engine; and how a request waits for its images."""

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
        """Return the model of a name, the default for None; ProblemError for an unknown one."""
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

        The body of the request must have been read. If the client closes its connection, what
        waits is dropped.

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
        results = asyncio.gather(*(job.done for job in jobs))
        gone = loop.create_task(_until_gone(request))
        try:
            seconds = self.settings.seconds
            either: set[asyncio.Future[Any]] = {results, gone}
            done, _ = await asyncio.wait(
                either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if results in done:
                return results.result()
            if gone in done:
                raise ClientGoneError
            raise ProblemError(
                TIMEOUT,
                f"The predictions were not complete after {seconds:g} seconds. Send fewer images "
                "in each request, or try again later.",
            )
        finally:
            gone.cancel()
            self.engine.drop([job for job in jobs if not job.done.done()])
            results.cancel()


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
