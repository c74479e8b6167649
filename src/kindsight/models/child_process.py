"""A Python process that does jobs for this one: a JSON line in, a JSON line out.

It is started afresh (not forked), so that it works alike on Linux, macOS and Windows and from
programs with threads.
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

__all__ = ["ChildProcess"]

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
