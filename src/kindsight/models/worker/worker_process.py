"""A Python subprocess that runs jobs: one JSON line in, one or more JSON lines out.

The subprocess is started afresh (not forked), so that it behaves the same on Linux, macOS and
Windows and in programs with threads.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kindsight import errors
from kindsight.errors import KindsightError

__all__ = ["WorkerEndedError", "WorkerProcess"]

# The worker finds kindsight where this process found it, after its own packages. The current
# folder, where any file could shadow a library, is not searched.
_COMMAND = (
    "import sys; sys.path = [p for p in sys.path if p not in ('', '.')] + [sys.argv[1]]; "
    "from {module} import main; main()"
)
# Python settings that would make an import fail, or the worker wait for a key.
_DROPPED = ("PYTHONWARNINGS", "PYTHONINSPECT", "PYTHONSTARTUP")
_LINE_LENGTH = 2**16
# Lines of standard error shown in an error message.
_STDERR_LINES = 20
# Seconds a worker has to end by itself once its input is closed.
_GRACE_SECONDS = 5.0


class WorkerEndedError(KindsightError):
    """The worker process ended during a job."""


class WorkerProcess:
    """A running worker; it ends with this object or with this process, even if that is killed.

    `module` has a function ``main``, which reads jobs from standard input and returns when that
    ends; `environment` overrides variables of this process; errors call it `name`. KindsightError
    when it cannot be started.
    """

    def __init__(
        self, module: str, environment: Mapping[str, str], name: str = "Keras worker process"
    ) -> None:
        self._name = name
        package_folder = Path(errors.__file__).resolve().parents[1]
        inherited = {name: value for name, value in os.environ.items() if name not in _DROPPED}
        code = _COMMAND.format(module=module)
        try:
            self._process = subprocess.Popen(
                [sys.executable or "python", "-c", code, str(package_folder)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env={**inherited, "PYTHONUTF8": "1", **environment},
                encoding="utf-8", errors="replace",
            )  # fmt: skip
        except OSError as error:
            raise KindsightError(
                f"Could not start the {name} with {sys.executable!r}: {error}."
            ) from error
        self._messages: queue.Queue[str] = queue.Queue()
        self._stderr: deque[str] = deque(maxlen=_STDERR_LINES)
        self._readers = (
            _read_lines(self._process.stdout, self._messages.put),
            _read_lines(self._process.stderr, self._stderr.append),
        )
        weakref.finalize(self, _end, self._process, 0.0)

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    def send(self, job: Mapping[str, Any]) -> None:
        """Send a job. Whether it arrived is known from :meth:`receive`."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()

    def receive(self, job: str, timeout: float) -> dict[str, Any]:
        """Wait up to `timeout` seconds for a message.

        KindsightError when the worker ends or the time is over; it quotes the worker's standard
        error.
        """
        try:
            line = self._messages.get(timeout=timeout)
        except queue.Empty:
            raise KindsightError(
                f"The {self._name} did not finish the job {job!r} within {timeout:g} "
                f"seconds.{self._quote_stderr()}"
            ) from None
        if not line:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_SECONDS)
            self._readers[1].join(_GRACE_SECONDS)
            raise WorkerEndedError(
                f"The {self._name} ended during the job {job!r}, with "
                f"{_describe_end(self._process.returncode)}.{self._quote_stderr()}"
            )
        message: dict[str, Any] = json.loads(line)
        return message

    def close(self, *, kill: bool = False) -> None:
        """End the worker: by closing its input, or at once."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.close()
        _end(self._process, 0.0 if kill else _GRACE_SECONDS)
        for reader in self._readers:
            reader.join(_GRACE_SECONDS)

    def _quote_stderr(self) -> str:
        lines = [line.rstrip() for line in self._stderr if line.strip()]
        return " Its last output:\n" + "\n".join(lines) if lines else ""


def _read_lines(stream: Any, handle: Callable[[str], None]) -> threading.Thread:
    """Call `handle` with each line from a thread, and with an empty string at the end."""

    def read() -> None:
        with contextlib.suppress(OSError, ValueError), stream:
            while line := stream.readline(_LINE_LENGTH):
                handle(line)
        handle("")

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def _end(process: subprocess.Popen[str], grace: float) -> None:
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _describe_end(code: int | None) -> str:
    if code is None:
        return "its output closed"
    if code < 0:
        memory = ", as when memory runs out" if code == -9 else ""
        return f"signal {-code}{memory}"
    return f"exit code {code}"
