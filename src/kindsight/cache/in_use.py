"""Folders of the cache whose files this process uses, so that others do not delete them.

Tables need no mark: SQLite's own locks show whether a process has one open.
"""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from pathlib import Path

from filelock import FileLock, Timeout

from kindsight.cache.sqlite_table import lock_folder
from kindsight.errors import CacheError
from kindsight.files import delete_file

__all__ = ["is_used_elsewhere", "mark_used"]

_marks: dict[Path, FileLock] = {}
_marks_lock = threading.Lock()


def mark_used(folder: Path) -> None:
    """Mark a folder as used by this process until the process ends.

    A read-only folder is not marked, since nothing can be deleted from it.
    """
    with _marks_lock:
        mark = _marks.get(folder)
        # A mark from before a fork is not this process's, and the folder may have been deleted.
        file = Path(mark.lock_file) if mark is not None else None
        if file is not None and f"-{os.getpid()}-" in file.name and file.exists():
            return
        # A folder that cannot be marked (read-only, or a drive without locks) is used unprotected.
        with contextlib.suppress(CacheError, OSError, NotImplementedError), lock_folder(folder):
            mark = FileLock(folder / f".used-{os.getpid()}-{uuid.uuid4().hex[:8]}.lock")
            mark.acquire(timeout=0)
            _marks[folder] = mark


def is_used_elsewhere(folder: Path) -> bool:
    """Return whether another running process uses a folder; delete the marks of ended ones."""
    used = False
    for path in folder.glob(".used-*.lock"):
        if path.name.startswith(f".used-{os.getpid()}-"):
            continue
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            used = True
            continue
        lock.release()
        with contextlib.suppress(OSError):
            delete_file(path)
    return used
