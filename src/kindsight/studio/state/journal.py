"""The journal of a project: a line of JSON for each change, on disk before the response is sent."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kindsight.errors import DatasetError

__all__ = ["JOURNAL_FILE", "Journal"]

JOURNAL_FILE = "journal.jsonl"

# A file on disk is not trusted.
MAX_BYTES = 2 * 2**30
MAX_LINE_BYTES = 512 * 2**20


class Journal:
    """An append-only file of JSON objects, one per line.

    A line that was cut short by a kill or a full disk is ignored, and overwritten by the next one.

    Parameters
    ----------
    path : pathlib.Path
        Created with the first line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._end = 0
        """Number of bytes in complete lines."""

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield the objects, oldest first; DatasetError for a damaged file."""
        self._end = 0
        if not self.path.exists():
            return
        if self.path.stat().st_size > MAX_BYTES:
            raise self.damaged("it is larger than 2 GB")
        with self.path.open("rb") as file:
            for number in range(1, MAX_BYTES):
                line = file.readline(MAX_LINE_BYTES)
                if not line.endswith(b"\n"):
                    if len(line) == MAX_LINE_BYTES:
                        raise self.damaged(f"line {number:,} is too long")
                    return
                try:
                    entry = json.loads(line)
                except (ValueError, RecursionError):
                    raise self.damaged(f"line {number:,} is not JSON") from None
                if not isinstance(entry, dict):
                    raise self.damaged(f"line {number:,} is not an object")
                yield entry
                self._end += len(line)

    def append(self, entry: dict[str, Any]) -> None:
        """Write an object; it is on disk when this returns.

        After an error (such as a full disk), the file is as before.
        """
        line = json.dumps(entry, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        created = not self.path.exists()
        flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0)
        descriptor = os.open(self.path, flags, 0o666)
        try:
            os.ftruncate(descriptor, self._end)
            os.lseek(descriptor, self._end, os.SEEK_SET)
            view = memoryview(line)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, self._end)
            raise
        finally:
            os.close(descriptor)
        if created:
            _sync_folder(self.path.parent)
        self._end += len(line)

    def damaged(self, why: str) -> DatasetError:
        """Return the error for a file that cannot be read."""
        table = self.path.parent / "dataset.csv"
        return DatasetError(
            f"{self.path} is damaged: {why}. Restore it, or start a project in a new folder with "
            f"{table}, which has the same images and labels, as `data`."
        )


def _sync_folder(folder: Path) -> None:
    """Write the folder's entry to disk, if the system supports it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
