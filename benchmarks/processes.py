"""Run whole processes and measure wall time, processor time and peak memory, with children."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["HERE", "CompletedRun", "environment", "kindsight", "log", "run", "script"]

HERE = Path(__file__).resolve().parent
# Prefixes of environment variables that would change the speed of one of the sides.
UNSET = ("KERAS_", "KINDSIGHT_", "MKL_", "OMP_", "OPENBLAS_", "TF_")
SAMPLE_SECONDS = 0.05


@dataclass(frozen=True)
class CompletedRun:
    """A process that has ended.

    Parameters
    ----------
    seconds : float
        Wall time of the whole process.
    output : str
        Its standard output.
    tree : int
        Peak of the summed resident memory of the process and its children in bytes, sampled;
        shared pages count once per process. 0 if it was not measured.
    largest : int
        Peak resident memory of the largest single process in bytes, from the operating system;
        0 where it is not available.
    cpu : float
        Seconds of processor time, user and system, of the process and its children; 0 where it is
        not available.
    """

    seconds: float
    output: str
    tree: int = 0
    largest: int = 0
    cpu: float = 0.0

    @property
    def result(self) -> dict[str, Any]:
        """The last line of the output, parsed as JSON."""
        content: dict[str, Any] = json.loads(self.output.strip().splitlines()[-1])
        return content

    @property
    def megabytes(self) -> float:
        """The larger of `tree` and `largest` in MB (10^6 bytes)."""
        return max(self.tree, self.largest) / 1e6


def log(text: str) -> None:
    """Print progress on standard error."""
    print(text, file=sys.stderr, flush=True)


def kindsight(*arguments: object) -> list[str]:
    """Return the command that runs kindsight with this Python."""
    return [sys.executable, "-m", "kindsight", *map(str, arguments)]


def script(name: str, *arguments: object, python: str | Path = sys.executable) -> list[str]:
    """Return the command that runs a script of this folder."""
    return [str(python), str(HERE / name), *map(str, arguments)]


def environment(cache: Path | None = None, **more: str) -> dict[str, str]:
    """Return the environment with a cache folder and without variables that change speeds."""
    # PYTHONDONTWRITEBYTECODE would make every process compile its modules anew.
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(UNSET) and name != "PYTHONDONTWRITEBYTECODE"
    }
    if cache is not None:
        variables["KINDSIGHT_CACHE"] = str(cache)
    return {**variables, **more}


def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdin: Path | None = None,
    memory: bool = False,
    accepted: Collection[int] = (0,),
) -> CompletedRun:
    """Run a command and return its output, wall time and (if `memory`) peak memory.

    Parameters
    ----------
    command : sequence of str
    env : mapping, optional
        :func:`environment` if omitted.
    stdin : pathlib.Path, optional
        File for standard input.
    memory : bool
        Whether memory is sampled, which uses a little CPU time.
    accepted : collection of int
        Exit codes that count as success.

    Raises
    ------
    SystemExit
        If the exit code is another one; the message ends with the end of the output.
    """
    with (
        (stdin or Path(os.devnull)).open("rb") as source,
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryFile() as stderr,
    ):
        start = time.perf_counter()
        process = subprocess.Popen(
            command, env=dict(env or environment()), stdin=source, stdout=stdout, stderr=stderr
        )
        with _sampled_memory(process.pid, memory) as peak:
            largest, cpu = _wait(process)
        seconds = time.perf_counter() - start
        output, errors = (_content(file) for file in (stdout, stderr))
    if process.returncode not in accepted:
        raise SystemExit(
            f"{' '.join(command)}\nexited with {process.returncode}:\n"
            f"{errors[-3000:]}{output[-500:]}"
        )
    return CompletedRun(seconds, output, peak[0], largest, cpu)


def _wait(process: subprocess.Popen[bytes]) -> tuple[int, float]:
    """Wait for the process; return the peak bytes of its largest process, and processor time."""
    if not hasattr(os, "wait4"):
        process.wait()
        return 0, 0.0
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    largest = int(usage.ru_maxrss) * (1 if sys.platform == "darwin" else 1024)
    return largest, usage.ru_utime + usage.ru_stime


@contextmanager
def _sampled_memory(pid: int, enabled: bool) -> Iterator[list[int]]:
    """Sample the memory of a process tree during the block; the list holds the peak."""
    peak = [0]
    if not enabled:
        yield peak
        return
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            peak[0] = max(peak[0], _tree_bytes(pid))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def _tree_bytes(pid: int) -> int:
    """Return the summed resident memory of a process and its descendants."""
    import psutil

    total = 0
    try:
        parent = psutil.Process(pid)
        tree = [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return 0
    for process in tree:
        try:
            total += process.memory_info().rss
        except psutil.Error:  # it has just exited
            continue
    return total


def _content(file: Any) -> str:
    file.seek(0)
    text: str = file.read().decode("utf-8", "replace")
    return text
