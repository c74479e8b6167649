"""The command line: one command a file; each parses, calls one thing, and prints.

Exit codes: 0 done, 1 something failed, 2 something was asked for that cannot be done, 130 stopped
with Ctrl-C. Results go to standard output, everything else to standard error.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from pathlib import Path

__all__ = ["main"]

COLLECT_EVERY = 20_000


def main() -> int:
    """Run ``kindsight`` with the arguments of this process.

    Returns
    -------
    int
        The exit code, where the command does not exit by itself.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us
            stream = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (for good)
            setattr(sys, name, stream)
    # By default the collector looks through new objects at every 700th; imports make hundreds of
    # thousands, all of which stay. At the end it would take them apart one by one.
    gc.set_threshold(COLLECT_EVERY, *gc.get_threshold()[1:])
    atexit.register(gc.freeze)
    try:
        from kindsight.cli.app import app

        app(prog_name="kindsight")
    except KeyboardInterrupt:  # before a command had begun
        return 130
    return 0
