"""The command line, one command per module.

Exit codes: 0 success, 1 failure at run time, 2 wrong usage, 130 stopped with Ctrl-C,
143 ended by SIGTERM. Results go to standard output, everything else to standard error.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
from pathlib import Path

__all__ = ["main"]

COLLECT_EVERY = 20_000
"""Number of allocations between two runs of the garbage collector."""


def main() -> int:
    """Run ``kindsight`` with the arguments of this process.

    Returns
    -------
    int
        The exit code, if the command does not exit itself.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the parent process
            stream = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (for good)
            setattr(sys, name, stream)
    # Imports allocate hundreds of thousands of objects that live until the end. Collecting after
    # every 700 of them, and again at exit, would waste time.
    gc.set_threshold(COLLECT_EVERY, *gc.get_threshold()[1:])
    atexit.register(gc.freeze)
    if lock := os.environ.pop("KINDSIGHT_JOB_LOCK", ""):
        _hold(lock)
    try:
        from kindsight.cli.commands import COMMANDS, make_app

        # Importing the other commands and registering them with Typer would take a tenth of a
        # second.
        named = [name for name in sys.argv[1:2] if name in COMMANDS]
        make_app(named or COMMANDS)(prog_name="kindsight")
    except KeyboardInterrupt:  # before a command has started
        return 130
    return 0


def _hold(name: str) -> None:
    """Lock a file until this process ends, so that the studio that started it can tell."""
    from filelock import FileLock, Timeout

    lock = FileLock(name, timeout=5)
    with contextlib.suppress(Timeout, OSError):
        lock.acquire()
        atexit.register(lock.release)
