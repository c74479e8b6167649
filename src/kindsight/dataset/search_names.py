"""Search names for a user's regular expression, in a separate process that can be stopped.

Python's regular expressions can take exponential time, and nothing stops a search within a process.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence

__all__ = ["SECONDS", "SECONDS_PER_NAME", "SearchTimeoutError", "search_names"]

SECONDS = 10.0
"""Time limit of a search, in seconds, to which :data:`SECONDS_PER_NAME` is added for each name."""

SECONDS_PER_NAME = 0.001
"""Further seconds for each name; usual patterns take 1 to 10 microseconds."""


class SearchTimeoutError(Exception):
    """A search was stopped after `seconds`, at the name with the index `index`."""

    def __init__(self, seconds: float, index: int) -> None:
        super().__init__(f"{seconds:.0f} s, in name {index}")
        self.seconds, self.index = seconds, index


def search_names(pattern: str, group: str | int, names: Sequence[str]) -> list[str | None]:
    """Return the text of a group in the first match in each name; None where there is none.

    Raises
    ------
    SearchTimeoutError
        If the search takes longer than :data:`SECONDS` and :data:`SECONDS_PER_NAME` for each name.
    OSError
        If the process cannot be started, or fails.
    """
    limit = SECONDS + SECONDS_PER_NAME * len(names)
    try:
        # Run as a script, without the rest of the package, this file starts in hundredths of a
        # second.
        done = subprocess.run(
            [sys.executable or "python", "-I", "-S", __file__],
            input=json.dumps([pattern, group, list(names)]).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        finished = (error.stdout or b"").count(b"\n")
        raise SearchTimeoutError(limit, min(finished, len(names) - 1)) from None
    found: list[str | None] = [json.loads(line) for line in done.stdout.splitlines()]
    if len(found) != len(names):
        raise OSError(f"the search ended with exit code {done.returncode}")
    return found


def _search() -> None:
    text, group, names = json.loads(sys.stdin.buffer.read())
    pattern = re.compile(text)
    for name in names:
        match = pattern.search(name)
        sys.stdout.write(json.dumps(match[group] if match else None) + "\n")
        sys.stdout.flush()  # the number of lines shows the name at which a time limit was reached


if __name__ == "__main__":
    _search()
