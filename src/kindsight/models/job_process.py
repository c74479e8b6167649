"""A child process that does jobs with Keras, one after the other, for several threads."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, TypeVar

from numpy.typing import NDArray

from kindsight.errors import KindsightError
from kindsight.models.child_process import ChildProcess
from kindsight.models.keras_messages import accept, handed_over, settings

__all__ = ["JobProcess"]

STOP_SECONDS = 15.0

Self = TypeVar("Self", bound="JobProcess")


class JobProcess:
    """A child process that does jobs, started when first needed; a context manager.

    Parameters
    ----------
    timeout : float
        Most seconds that one job may take, and the start of TensorFlow; where a job sends news,
        most seconds from one piece of news to the next.
    module : str
        The module whose ``main`` the child runs.

    Attributes
    ----------
    versions : mapping of str to str
        Of Keras and TensorFlow, once a job has been done.
    hurried : bool
        Whether a second Ctrl-C came while the child was given time to answer the first.

    Notes
    -----
    Jobs of several threads are done one after the other. The child ends with the ``with`` block,
    with this object, or with this process, whichever comes first, even if that is killed.
    """

    def __init__(self, timeout: float, module: str) -> None:
        self.timeout = timeout
        self._module = module
        self.versions: Mapping[str, str] = {}
        self._lock = threading.Lock()
        self._child: ChildProcess | None = None
        self._leaving: threading.Thread | None = None
        self._waiting = 0
        self._ready = False
        self.hurried = False

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(kill=kind is not None)

    def start(self: Self) -> Self:
        """Start the child and return at once; TensorFlow's import goes on meanwhile.

        Raises
        ------
        KindsightError
            Where no process can be started.
        """
        with self._lock:
            self._started()
        return self

    def ahead(self, pixels: Callable[[], NDArray[Any]] | None = None, **job: Any) -> None:
        """Have a job done that nobody waits for, and return at once.

        Parameters
        ----------
        pixels : callable, optional
            Gives pictures, which the job finds in the file ``pixels``.
        **job
            As :meth:`follow` takes it.
        """
        # Not start(): that would wait for what is being done ahead already.
        if (child := self._child) is None:
            child = self.start()._child
        if child is None:  # closed meanwhile
            return

        def work() -> None:
            # Whatever it is: the job that needs what was to be done ahead says so.
            with contextlib.suppress(Exception):
                if pixels is None:
                    self.request(child=child, **job)
                else:
                    with handed_over(pixels()) as given:
                        self.request(child=child, **job, pixels=str(given))

        threading.Thread(target=work, name="kindsight-ahead", daemon=True).start()

    def dismiss(self) -> None:
        """Let the child end while other work goes on; a later job starts another one."""
        child, self._child = self._child, None
        if child is None:
            return
        with contextlib.suppress(KindsightError):
            child.send({"job": "quit"})
        self._leaving = threading.Thread(target=child.close, name="kindsight-dismiss", daemon=True)
        self._leaving.start()

    def follow(self, hear: Callable[[dict[str, Any]], None], **job: Any) -> dict[str, Any]:
        """Have a job done that sends news before its answer.

        Parameters
        ----------
        hear : callable
            Given each piece of news, on this thread. When it raises, or Ctrl-C comes, the child is
            asked to stop and has :data:`STOP_SECONDS` to leave its work in order.
        **job
            ``job``, the job's name, and what JSON can hold.

        Raises
        ------
        KindsightError
            Where the child fails.
        """
        return self.request(hear, **job)

    def close(self, *, kill: bool = False) -> None:
        """End the child, if it was started; the next job starts another."""
        child, self._child = self._child, None
        if child is not None:
            if not kill:
                child.send({"job": "quit"})
            child.close(kill=kill)
        if self._leaving is not None:
            self._leaving.join(STOP_SECONDS)
            self._leaving = None

    def _started(self) -> ChildProcess:
        if self._child is None:
            self._ready = False
            self._child = ChildProcess(self._module, settings())
        return self._child

    def request(
        self,
        hear: Callable[[dict[str, Any]], None] | None = None,
        child: ChildProcess | None = None,
        **job: Any,
    ) -> dict[str, Any]:
        """Send one job and wait for its answer.

        Parameters
        ----------
        hear, **job
            As :meth:`follow` takes them.
        child : ChildProcess, optional
            The job is for this one alone, and only while no other job waits for it; if that
            cannot be, the answer is empty.

        Raises
        ------
        KindsightError
            Where the child fails.
        """
        ahead = child
        self._waiting += ahead is None
        with self._lock:
            self._waiting -= ahead is None
            if ahead is not None and ahead is not self._child:
                return {}
            child = ahead or self._started()
            try:
                if not self._ready:
                    self.versions = accept("start", child.receive("start", self.timeout))[
                        "versions"
                    ]
                    self._ready = True
                if ahead is not None and self._waiting:
                    return {}
                child.send(job)
                answer = child.receive(job["job"], self.timeout)
                while "ok" not in answer:
                    if hear is not None:
                        hear(answer)
                    answer = child.receive(job["job"], self.timeout)
            except BaseException as error:
                if hear is not None and not isinstance(error, KindsightError):
                    self.hurried = not _let_stop(child, job["job"])
                # Whatever stopped the wait (its end, Ctrl-C, the time), the next answer to come
                # would belong to this job.
                self.close(kill=True)
                raise
        return accept(job["job"], answer)


def _let_stop(child: ChildProcess, job: str) -> bool:
    """Ask the child to stop, and give it the time to; say whether nobody was in a hurry."""
    child.send({"job": "stop"})
    end = time.monotonic() + STOP_SECONDS
    try:
        # What it ends with, or that it does not, is of no matter: it is ended next.
        with contextlib.suppress(KindsightError):
            while "ok" not in child.receive(job, max(0.0, end - time.monotonic())):
                pass
    except KeyboardInterrupt:
        return False
    return True
