"""A run's folder: claimed by one process, never overwritten, continued where it was interrupted."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from kindsight.errors import SettingsError, UsageError
from kindsight.files import clear_leftovers
from kindsight.runs.settings import TrainSettings

__all__ = ["claim_run", "data_name"]

SETTINGS_FILE = "settings.toml"
FINISHED_FILE = "bundle.json"
LOCK_FILE = ".lock"


@contextlib.contextmanager
def claim_run(settings: TrainSettings) -> Iterator[Path]:
    """Give the folder for a training, held by this process until the block ends.

    An interrupted run with the same settings is taken up again; else a new number is taken, the
    data folder's name before it. With ``settings.run`` the folder is that one.

    Parameters
    ----------
    settings : TrainSettings
        Written to the folder as ``settings.toml``.

    Yields
    ------
    pathlib.Path
        The folder.

    Raises
    ------
    UsageError
        If the named run is finished, is another one, or is being trained right now.
    """
    folder, lock = _named(settings) if settings.run else _numbered(settings)
    fresh = _untouched(folder)
    try:
        clear_leftovers(folder)
        settings.write(folder / SETTINGS_FILE)
        yield folder
    except SettingsError:
        # That there is no such layer shows when a network is built: nothing was begun, and the
        # next run may have the folder.
        if fresh and {path.name for path in folder.iterdir()} <= {SETTINGS_FILE, LOCK_FILE}:
            (folder / SETTINGS_FILE).unlink()
        raise
    finally:
        # Another process may hold the lock on the file from the moment it is released; only of a
        # finished run, which nobody takes up, can it be deleted.
        lock.release()
        if (folder / FINISHED_FILE).exists():
            with contextlib.suppress(OSError):
                (folder / LOCK_FILE).unlink()


def _named(settings: TrainSettings) -> tuple[Path, FileLock]:
    assert settings.run is not None
    name = Path(settings.run)
    folder = name if name.is_absolute() or len(name.parts) > 1 else Path(settings.runs) / name
    _check_free(folder, settings)
    lock = _lock(folder)
    if lock is None:
        raise UsageError(f"The run {folder} is being trained by another process right now.")
    try:
        # Until the lock was ours another process may have made, or finished, the run.
        _check_free(folder, settings)
    except BaseException:
        lock.release()
        raise
    return folder, lock


def _check_free(folder: Path, settings: TrainSettings) -> None:
    """Refuse a folder that is not for this training."""
    if (folder / FINISHED_FILE).exists():
        raise UsageError(
            f"A finished run is never overwritten. Received: {folder}. Give another --run, or "
            "leave it out to get the next number."
        )
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"A run must be a folder. Received: {folder}, a file. Give another --run.")
    if not (_untouched(folder) or _same(folder, settings)):
        raise UsageError(
            f"A run's folder must be new, or of an interrupted run with the same settings. "
            f"Received: {folder}, which holds something else. Give another --run."
        )


def _numbered(settings: TrainSettings) -> tuple[Path, FileLock]:
    """Take up the newest run if it is ours and interrupted, else make the next number."""
    parent = Path(settings.runs)
    stem = data_name(settings)
    pattern = re.compile(re.escape(stem) + r"-(\d{1,9})")
    names = [path.name for path in parent.iterdir()] if parent.is_dir() else []
    numbers = [int(match[1]) for name in names if (match := pattern.fullmatch(name))]
    newest = max(numbers, default=0)
    for number in sorted(numbers, reverse=True):
        folder = parent / f"{stem}-{number}"
        if _may_continue(folder, settings):
            lock = _lock(folder)
            if lock is not None and _may_continue(folder, settings):
                return folder, lock
            if lock is not None:
                lock.release()
    while True:
        newest += 1
        folder = parent / f"{stem}-{newest}"
        if os.path.lexists(folder):
            continue
        lock = _lock(folder)
        # Another process that was faster may have begun, or even finished, its run in it.
        if lock is not None and _untouched(folder):
            return folder, lock
        if lock is not None:
            lock.release()


def data_name(settings: TrainSettings) -> str:
    """Return what runs on these data are named after."""
    data = Path(settings.data).resolve()
    return (data.stem if data.is_file() else data.name) or "run"


def _lock(folder: Path) -> FileLock | None:
    """Make a folder and take its lock; None where another process has it."""
    lock = FileLock(folder / LOCK_FILE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        return None
    except OSError as error:
        raise UsageError(
            f"The folder for runs must be one that can be written. Received: {folder.parent} "
            f"({error.strerror})."
        ) from error
    return lock


def _may_continue(folder: Path, settings: TrainSettings) -> bool:
    """Whether a folder is of an interrupted run with these settings, or of one barely begun."""
    if (folder / FINISHED_FILE).exists() or not folder.is_dir():
        return False
    return _untouched(folder) or _same(folder, settings)


def _untouched(folder: Path) -> bool:
    """Whether a folder holds nothing, or no more than a process killed at its start leaves."""
    return not folder.exists() or all(path.name.startswith(".") for path in folder.iterdir())


def _same(folder: Path, settings: TrainSettings) -> bool:
    """Whether a folder holds a run with these settings."""
    try:
        return TrainSettings.from_toml(folder / SETTINGS_FILE) == settings
    except SettingsError:
        return False
