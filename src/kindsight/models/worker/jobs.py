"""A child process that does jobs with Keras, one after the other, for several threads."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from numpy.typing import NDArray

from kindsight import errors
from kindsight.errors import KindsightError
from kindsight.models.worker.messages import accept, handed_over, settings

__all__ = [
    "ChildProcess",
    "JobProcess",
]

# SECTION: A Python process that does jobs for this one: a JSON line in, a JSON line out.
#
# It is started afresh (not forked), so that it works alike on Linux, macOS and Windows and from
# programs with threads.

# The child finds kindsight where this process found it, after its own packages. The current
# folder, where any file could pass for a library, is not searched.
_COMMAND = (
    "import sys; sys.path = [p for p in sys.path if p not in ('', '.')] + [sys.argv[1]]; "
    "from {module} import main; main()"
)
# Settings of Python that would make an import fail, or the child wait for a key.
_DROPPED = ("PYTHONWARNINGS", "PYTHONINSPECT", "PYTHONSTARTUP")
_LINE_LENGTH = 2**16
_LAST_WORDS = 20
_PATIENCE = 5.0


class ChildProcess:
    """A running child; it ends with this object or with this process, even if that is killed.

    Parameters
    ----------
    module : str
        Its function ``main`` reads jobs from standard input, and ends when that ends.
    settings : mapping of str to str
        Environment variables for the child, over those of this process.

    Raises
    ------
    KindsightError
        Where no process can be started.
    """

    def __init__(self, module: str, settings: Mapping[str, str]) -> None:
        package_folder = Path(errors.__file__).resolve().parents[1]
        kept = {name: value for name, value in os.environ.items() if name not in _DROPPED}
        try:
            self._process = subprocess.Popen(
                [
                    sys.executable or "python",
                    "-c",
                    _COMMAND.format(module=module),
                    str(package_folder),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**kept, "PYTHONUTF8": "1", **settings},
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            raise KindsightError(
                f"A process must be able to start another. Received: {error}; the interpreter is "
                f"{sys.executable!r}."
            ) from error
        self._answers: queue.Queue[str] = queue.Queue()
        self._last_words: deque[str] = deque(maxlen=_LAST_WORDS)
        self._listeners = (
            _listen(self._process.stdout, self._answers.put),
            _listen(self._process.stderr, self._last_words.append),
        )
        weakref.finalize(self, _end, self._process, 0.0)

    @property
    def pid(self) -> int:
        """The number by which the system knows the child."""
        return self._process.pid

    def send(self, job: Mapping[str, Any]) -> None:
        """Hand over a job; whether it arrived shows in the answer."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()

    def receive(self, job: str, timeout: float) -> dict[str, Any]:
        """Wait for an answer.

        Parameters
        ----------
        job : str
            What is waited for, for the message of an error.
        timeout : float
            Seconds.

        Raises
        ------
        KindsightError
            Where the child ends or the time is over; with the last lines that it wrote.
        """
        try:
            line = self._answers.get(timeout=timeout)
        except queue.Empty:
            raise KindsightError(
                f"The job {job!r} of a child process must end within {timeout:g} seconds. "
                f"Received: no answer.{self._said()}"
            ) from None
        if not line:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_PATIENCE)
            self._listeners[1].join(_PATIENCE)
            raise KindsightError(
                f"A child process must live until its job {job!r} is done. Received: its end, "
                f"with {_describe_end(self._process.returncode)}.{self._said()}"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self, *, kill: bool = False) -> None:
        """End the child: kindly, by the end of its input, or at once."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.close()
        _end(self._process, 0.0 if kill else _PATIENCE)
        for listener in self._listeners:
            listener.join(_PATIENCE)

    def _said(self) -> str:
        lines = [line.rstrip() for line in self._last_words if line.strip()]
        return " Its last words:\n" + "\n".join(lines) if lines else ""


def _listen(stream: Any, keep: Callable[[str], None]) -> threading.Thread:
    """Hand on lines as they come, and an empty one at the end."""

    def pass_on() -> None:
        with contextlib.suppress(OSError, ValueError), stream:
            while line := stream.readline(_LINE_LENGTH):
                keep(line)
        keep("")

    thread = threading.Thread(target=pass_on, daemon=True)
    thread.start()
    return thread


def _end(process: subprocess.Popen[str], patience: float) -> None:
    """Wait for a child to end by itself, then end it."""
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _describe_end(code: int | None) -> str:
    if code is None:
        return "its answers closed"
    if code < 0:
        memory = ", as when memory runs out" if code == -9 else ""
        return f"signal {-code}{memory}"
    return f"exit code {code}"


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
            Gives images, which the job finds in the file ``pixels``.
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
