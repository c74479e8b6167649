"""Jobs: the commands check, train and export as processes, one at a time.

A job is a folder with its command, its output and its state, so that it outlives the server. A
process that is still running when the studio is opened again is recognised by the lock that it
holds; the result of one that has ended is read from its output. A process is stopped with SIGTERM,
which acts like Ctrl-C. On Windows, it ends at once, but the command can be continued as well.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from kindsight.encoding import printable
from kindsight.errors import DatasetError
from kindsight.files import read_json, write_json
from kindsight.studio.shapes import JobShape

if sys.platform != "win32":
    import fcntl

__all__ = ["Job", "Jobs"]

POLL_SECONDS = 0.2
KILL_SECONDS = 120.0
"""Seconds after which a stopped process is killed; with a time budget, it needs time to finish."""

CLOSE_SECONDS = 20.0
"""Seconds for which a stopped studio waits for its job; after that, the job runs on."""

MAX_OUTPUT = 64 * 2**20
"""Maximum bytes of a command's result that are read."""

MAX_LINE = 2**20
LOCK_VARIABLE = "KINDSIGHT_JOB_LOCK"
"""Environment variable with the file that a command locks until it ends, if it inherits no lock."""

LOG_LINES, LOG_WIDTH = 200, 500
MOST_EPOCHS = 10_000
MOST_JOBS = 500
"""Maximum number of listed jobs."""

ENDED = ("done", "failed", "stopped", "interrupted")
ACTIVE = ("queued", "running", "stopping")


class Job:
    """A command that is queued, runs or has ended.

    Parameters
    ----------
    folder : pathlib.Path
        Folder of the job.
    facts : dict
        ``id``, ``kind``, ``title``, ``arguments``, ``created``, ``state``, ``started``, ``ended``,
        ``pid``, ``error``, ``run``, ``details``: the content of ``job.json``.
    """

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        self.folder, self.facts = folder, facts
        self.stage, self.done, self.total = "", 0, 0
        self.epochs: list[dict[str, Any]] = []
        self.log: deque[str] = deque(maxlen=LOG_LINES)
        self.result: Any = None
        self.stops = 0
        """Number of requests to stop it."""
        self._read = 0
        self._partial = b""

    @property
    def id(self) -> int:
        """The number of the job, from 1."""
        return int(self.facts["id"])

    @property
    def state(self) -> str:
        """One of queued, running, stopping, done, failed, stopped and interrupted."""
        return str(self.facts["state"])

    @property
    def arguments(self) -> list[str]:
        """The arguments of ``kindsight``, without ``--json``."""
        return [str(argument) for argument in self.facts["arguments"]]

    def update(self, **facts: Any) -> None:
        """Change facts, and write them."""
        self.facts.update(facts)
        write_json(self.folder / "job.json", self.facts)

    def shape(self, *, whole: bool = False) -> JobShape:
        """Return the job for the page; `whole` with its log and epochs."""
        facts = self.facts
        shape: JobShape = {
            "id": self.id, "kind": facts["kind"], "title": facts["title"],
            "command": shlex.join(["kindsight", *self.arguments]), "state": facts["state"],
            "created": facts["created"], "started": facts["started"], "ended": facts["ended"],
            "stage": self.stage, "done": self.done, "total": self.total, "error": facts["error"],
            "run": facts["run"], "result": facts["details"],
        }  # fmt: skip
        if whole:
            shape["epochs"], shape["log"] = list(self.epochs), list(self.log)
        return shape

    def read_progress(self) -> list[dict[str, Any]]:
        """Read the command's new output; return its new epochs."""
        try:
            with (self.folder / "stderr.txt").open("rb") as file:
                file.seek(self._read)
                data = file.read(4 * MAX_LINE)
        except OSError:
            return []
        self._read += len(data)
        *lines, self._partial = (self._partial + data).split(b"\n")
        self._partial = self._partial[:MAX_LINE]
        epochs = [epoch for line in lines if (epoch := self._take(line)) is not None]
        self.epochs = [*self.epochs, *epochs][:MOST_EPOCHS]
        return epochs

    def _take(self, line: bytes) -> dict[str, Any] | None:
        """Process a line of standard error; return the epoch in it, if there is one."""
        text = line.decode("utf-8", "replace")
        found = None
        if text.startswith('{"'):
            try:
                found = json.loads(text)
            except (ValueError, RecursionError):
                found = None
        if not isinstance(found, dict):
            if text.strip():
                self.log.append(printable(text)[:LOG_WIDTH])
            return None
        if isinstance(epoch := found.get("epoch"), dict):
            return epoch
        try:
            title, done, total = str(found["title"]), int(found["done"]), int(found["total"])
        except (KeyError, TypeError, ValueError):
            return None
        self.stage, self.done, self.total = title[:LOG_WIDTH], done, total
        return None

    def holds_lock(self) -> bool:
        """Return whether the process of the job is running: then it holds the lock."""
        if not (self.folder / "lock").exists():
            return False
        try:
            with FileLock(self.folder / "lock", timeout=0):
                return False
        except Timeout:
            return True
        except OSError:
            return False

    def read_result(self) -> Any:
        """Return the command's output with --json; None if it is missing or incomplete."""
        try:
            return read_json(self.folder / "stdout.json", MAX_OUTPUT)
        except (OSError, ValueError):
            return None


class Jobs:
    """The jobs of a project, and the thread that runs them one after the other.

    Parameters
    ----------
    project_folder : pathlib.Path
        Folder in which the commands run.
    folder : pathlib.Path
        Folder of the jobs.
    before : callable
        Called before a command is started; updates dataset.csv and returns the project's revision.
    changed : callable
        Called with a job whose state or progress changed, and its new epochs.
    ended : callable
        Called with a job that has ended; returns the part of its result for the page.
    """

    def __init__(
        self,
        project_folder: Path,
        folder: Path,
        before: Callable[[], int],
        changed: Callable[[Job, list[dict[str, Any]]], None],
        ended: Callable[[Job], Any],
    ) -> None:
        self._project_folder, self._folder = project_folder, folder
        self._before, self._changed, self._ended = before, changed, ended
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._closing = False
        self._process: subprocess.Popen[bytes] | None = None
        self._jobs = self._load()
        self._thread = threading.Thread(target=self._work, name="kindsight-jobs", daemon=True)

    def start(self) -> None:
        """Start to run jobs."""
        self._thread.start()

    def close(self) -> None:
        """Stop the running job, as by Ctrl-C; it can be continued later."""
        self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_SECONDS + 5)

    def all(self) -> list[Job]:
        """Return the jobs, newest first."""
        with self._lock:
            return list(reversed(self._jobs.values()))

    def get(self, number: int) -> Job:
        """Return a job; KeyError if there is none."""
        with self._lock:
            if number not in self._jobs:
                raise KeyError(f"There is no job {number}.")
            return self._jobs[number]

    def submit(
        self, kind: str, title: str, arguments: Sequence[str], run: str | None = None
    ) -> Job:
        """Queue a command; DatasetError if a job of the same kind is queued or running."""
        with self._lock:
            if any(j.facts["kind"] == kind and j.state in ACTIVE for j in self._jobs.values()):
                raise DatasetError(f"Another {kind} job is running. Stop it, or wait.")
            number = max(self._jobs, default=0) + 1
            facts: dict[str, Any] = {
                "id": number, "kind": kind, "title": title, "arguments": list(arguments),
                "created": time.time(), "state": "queued", "started": None, "ended": None,
                "pid": None, "error": "", "run": run, "details": None, "revision": None,
            }  # fmt: skip
            job = Job(self._folder / f"{number:04d}", facts)
            job.folder.mkdir(parents=True)
            job.update()
            self._jobs[number] = job
        self._changed(job, [])
        self._wake.set()
        return job

    def again(self, number: int) -> Job:
        """Queue the same command again; it continues from its stored results."""
        job = self.get(number)
        if job.state in ACTIVE:
            raise DatasetError("The job is still running. Stop it, or wait.")
        facts = job.facts
        return self.submit(facts["kind"], facts["title"], job.arguments, facts["run"])

    def stop(self, number: int) -> Job:
        """Stop a running job, or cancel a queued one.

        A training with a time budget then finishes with the best epoch so far; stopped again, it
        ends at once.
        """
        with self._lock:
            job = self.get(number)
            if job.state == "queued":
                job.update(state="stopped", ended=time.time())
            elif job.state in ("running", "stopping"):
                job.stops += 1
                job.update(state="stopping")
        self._changed(job, [])
        self._wake.set()
        return job

    # The thread

    def _work(self) -> None:
        while not self._closing:
            with self._lock:
                waiting = [j for j in self._jobs.values() if j.state in ACTIVE]
                # A job that a killed server left running comes first.
                waiting.sort(key=lambda j: (j.state == "queued", j.id))
            if waiting:
                self._run(waiting[0])
            else:
                self._wake.wait(5.0)
                self._wake.clear()

    def _run(self, job: Job) -> None:
        try:
            with self._lock:
                if job.state not in ACTIVE:
                    return
                if job.state == "queued":
                    self._begin(job)
            self._changed(job, [])
            self._follow(job)
        except (OSError, DatasetError) as error:
            job.update(state="failed", error=str(error), ended=time.time())
        self._process = None
        self._changed(job, [])

    def _begin(self, job: Job) -> None:
        """Start the process of a queued job."""
        revision = self._before()
        command = [sys.executable, "-m", "kindsight", *job.arguments, "--json"]
        environment = {**os.environ, "KINDSIGHT_PROGRESS": "json"}
        if sys.platform == "win32":
            environment[LOCK_VARIABLE] = str((job.folder / "lock").absolute())
        with (
            (job.folder / "stdout.json").open("wb") as out,
            (job.folder / "stderr.txt").open("wb") as errors,
            (job.folder / "lock").open("wb") as lock,
        ):
            self._process = subprocess.Popen(
                command, cwd=self._project_folder, env=environment, stdin=subprocess.DEVNULL,
                stdout=out, stderr=errors, start_new_session=True, **_inherited(lock),
            )  # fmt: skip
        job.update(state="running", started=time.time(), pid=self._process.pid, revision=revision)

    def _follow(self, job: Job) -> None:
        """Report the progress of a running job until it has ended."""
        asked = list[float]()
        shown: Any = None
        while self._is_alive(job):
            if asked and self._closing and time.monotonic() - asked[0] > CLOSE_SECONDS:
                return
            if (self._closing and not asked) or job.stops > len(asked):
                # The second signal ends a training at once; after the first, it finishes with its
                # best epoch.
                asked.append(time.monotonic())
                _signal(job, signal.SIGTERM)
            elif asked and time.monotonic() - asked[0] > KILL_SECONDS:
                _kill(job)
            epochs = job.read_progress()
            now = job.stage, job.done, job.total
            if epochs or now != shown:
                shown = now
                self._changed(job, epochs)
            time.sleep(POLL_SECONDS)
        self._finish(job, asked_to_stop=bool(asked))

    def _finish(self, job: Job, *, asked_to_stop: bool) -> None:
        """Record how a job ended."""
        epochs = job.read_progress()
        job.result = job.read_result()
        error, details, run = "", None, job.facts["run"]
        if job.result is not None:
            state = "done"
            details = self._ended(job)
            run = (details or {}).get("run", run)
            if job.facts["kind"] == "export" and not (details or {}).get("exports"):
                state = "failed"
        elif asked_to_stop:
            state = "interrupted" if self._closing and job.state != "stopping" else "stopped"
        else:
            error = _error_of(job, self._process)
            state = "failed" if error else "interrupted"
        job.result = None
        job.stage = ""
        job.update(state=state, ended=time.time(), error=error, details=details, run=run)
        self._changed(job, epochs)

    def _is_alive(self, job: Job) -> bool:
        if self._process is not None:
            return self._process.poll() is None
        return job.holds_lock()

    def _load(self) -> dict[int, Job]:
        """Read the jobs of the folder; damaged ones are left out."""
        found = dict[int, Job]()
        folders = sorted(self._folder.iterdir()) if self._folder.is_dir() else []
        for folder in folders[-MOST_JOBS:]:
            try:
                job = Job(folder, read_json(folder / "job.json", MAX_LINE))
                number, state = job.id, job.state
                job.shape()
            except (OSError, ValueError, KeyError, TypeError):
                continue
            found[number] = job
            while job.read_progress() or (job._partial == b"" and job._read < _size(folder)):
                pass
            if state in ENDED:
                job.stage = ""
        return found


def _size(folder: Path) -> int:
    try:
        return (folder / "stderr.txt").stat().st_size
    except OSError:
        return 0


def _inherited(lock: IO[bytes]) -> dict[str, Any]:
    """Lock a file for a process to inherit; return the arguments with which the process does so.

    The lock lasts as long as the process, so that a later server can detect that the process is
    running. On Windows, the process locks the file itself, by :data:`LOCK_VARIABLE`.
    """
    if sys.platform == "win32":
        return {}
    fcntl.flock(lock, fcntl.LOCK_EX)
    return {"pass_fds": (lock.fileno(),)}


def _signal(job: Job, number: int) -> None:
    """Send a signal to the process of a job, which ends its own processes."""
    pid = job.facts["pid"]
    if isinstance(pid, int) and pid > 1:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _kill(job: Job) -> None:
    """Kill the process of a job, and its own processes."""
    if sys.platform == "win32":
        _signal(job, signal.SIGTERM)
        return
    pid = job.facts["pid"]
    if isinstance(pid, int) and pid > 1:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def _error_of(job: Job, process: subprocess.Popen[bytes] | None) -> str:
    """Return the error message of a command without a result; empty if it was killed or stopped."""
    lines = [line for line in job.log if line.startswith("kindsight: ")]
    if lines and not lines[-1].startswith("kindsight: stopped."):
        return "\n".join(lines[-3:])
    crashed = process is not None and (process.returncode or 0) > 0 and not lines
    return "\n".join(list(job.log)[-3:]) or "The command ended without a result." if crashed else ""
