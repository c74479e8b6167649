"""Whole processes, timed from outside, with the most memory that they and their children held."""

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

__all__ = ["HERE", "Done", "environment", "kindsight", "run", "say", "script"]

HERE = Path(__file__).resolve().parent
# Settings of the caller's that would speed one side up or slow it down.
UNSET = ("KERAS_", "KINDSIGHT_", "MKL_", "OMP_", "OPENBLAS_", "TF_")
SAMPLE_SECONDS = 0.05


@dataclass(frozen=True)
class Done:
    """A process that has ended well.

    Parameters
    ----------
    seconds : float
        From its start to its end, as its user waits.
    output : str
        Its standard output.
    tree : int
        Bytes: the largest sum of resident memory over it and its children, sampled; pages that
        they share count once for each. 0 where it was not asked for.
    largest : int
        Bytes: the most that a single one of them held, as the system counts it. 0 where the
        system does not say.
    """

    seconds: float
    output: str
    tree: int = 0
    largest: int = 0

    @property
    def answer(self) -> dict[str, Any]:
        """The last line of its output, which is JSON."""
        found: dict[str, Any] = json.loads(self.output.strip().splitlines()[-1])
        return found

    @property
    def megabytes(self) -> float:
        """The larger of the two counts of memory, in MB of a million bytes."""
        return max(self.tree, self.largest) / 1e6


def say(text: str) -> None:
    """Tell whoever waits, on standard error."""
    print(text, file=sys.stderr, flush=True)


def kindsight(*arguments: object) -> list[str]:
    """Return the command that runs kindsight with this Python."""
    return [sys.executable, "-m", "kindsight", *map(str, arguments)]


def script(name: str, *arguments: object, python: str | Path = sys.executable) -> list[str]:
    """Return the command that runs a script of this folder."""
    return [str(python), str(HERE / name), *map(str, arguments)]


def environment(cache: Path | None = None, **more: str) -> dict[str, str]:
    """Return this process's environment without what would favour or hinder anyone.

    Parameters
    ----------
    cache : pathlib.Path, optional
        kindsight's cache.
    **more
        What the process is given besides.
    """
    # Installed modules are compiled once, on both sides.
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(UNSET) and name != "PYTHONDONTWRITEBYTECODE"
    }
    if cache is not None:
        kept["KINDSIGHT_CACHE"] = str(cache)
    return {**kept, **more}


def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    given: Path | None = None,
    memory: bool = False,
    good: Collection[int] = (0,),
) -> Done:
    """Run a command to its end.

    Parameters
    ----------
    command : sequence of str
    env : mapping, optional
        Its environment; :func:`environment` if omitted.
    given : pathlib.Path, optional
        A file for its standard input.
    memory : bool
        Whether to watch its memory, which takes a little of a core.

    Raises
    ------
    SystemExit
        If it fails, with the end of what it said.
    """
    source = given or Path(os.devnull)
    with (
        source.open("rb") as stdin,
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryFile() as stderr,
    ):
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            env=dict(env or environment()),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
        )
        with _watched(process.pid, memory) as peak:
            largest = _wait(process)
        seconds = time.perf_counter() - start
        output, said = (_content(file) for file in (stdout, stderr))
    if process.returncode not in good:
        raise SystemExit(
            f"{' '.join(command)}\nended with {process.returncode}:\n{said[-3000:]}{output[-500:]}"
        )
    return Done(seconds, output, peak[0], largest)


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for the end; return the most bytes that it, or a child it waited for, held."""
    if not hasattr(os, "wait4"):
        process.wait()
        return 0
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return int(usage.ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


@contextmanager
def _watched(pid: int, wanted: bool) -> Iterator[list[int]]:
    """Sample the memory of a process and its children until the block ends."""
    peak = [0]
    if not wanted:
        yield peak
        return
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            peak[0] = max(peak[0], _tree_bytes(pid))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def _tree_bytes(pid: int) -> int:
    """Sum the resident memory of a process and all its descendants that are alive."""
    import psutil

    total = 0
    try:
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return 0
    for member in family:
        try:
            total += member.memory_info().rss
        except psutil.Error:  # it has just ended
            continue
    return total


def _content(file: Any) -> str:
    file.seek(0)
    text: str = file.read().decode("utf-8", "replace")
    return text
