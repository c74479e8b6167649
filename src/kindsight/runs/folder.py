"""The folder of a run: locked by one process, never overwritten, continued if interrupted."""

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
    """Yield the folder for a run, locked by this process until the block ends.

    Without ``settings.run``, an interrupted run with the same settings is continued; otherwise the
    folder is named after the data and the next number. ``settings.run`` is a name below
    ``settings.runs``, or a path if it contains a path separator.

    - `settings`: written to the folder as ``settings.toml``.

    Yields
    ------
    pathlib.Path
        The folder.

    Raises
    ------
    UsageError
        If the named run is finished, has other settings, or is in use by another process.
    """
    folder, lock = _claim_named(settings) if settings.run else _claim_numbered(settings)
    was_empty = _is_empty(folder)
    try:
        clear_leftovers(folder)
        settings.write(folder / SETTINGS_FILE)
        yield folder
    except SettingsError:
        # Some settings fail only when the network is built, such as an unknown layer. Nothing was
        # begun: the next run may use the folder.
        if was_empty and {path.name for path in folder.iterdir()} <= {SETTINGS_FILE, LOCK_FILE}:
            (folder / SETTINGS_FILE).unlink()
        raise
    finally:
        # Once released, another process may hold the lock on the file. Only the file of a finished
        # run, which no process continues, can be deleted.
        lock.release()
        if (folder / FINISHED_FILE).exists():
            with contextlib.suppress(OSError):
                (folder / LOCK_FILE).unlink()


def data_name(settings: TrainSettings) -> str:
    """Return the name of the data, after which runs are named."""
    data = Path(settings.data).resolve()
    return (data.stem if data.is_file() else data.name) or "run"


def run_path(settings: TrainSettings) -> Path:
    """Return the folder that ``settings.run`` names."""
    run: str = settings.run
    if any(separator in run for separator in {os.sep, os.altsep or os.sep, "/"}):
        return Path(run)
    return Path(settings.runs, run)


def _claim_named(settings: TrainSettings) -> tuple[Path, FileLock]:
    folder = run_path(settings)
    _check_usable(folder, settings)
    lock = _lock(folder)
    if lock is None:
        raise UsageError(f"The run {folder} is in use by another process.")
    try:
        # Before the lock was ours, another process may have started or finished the run.
        _check_usable(folder, settings)
    except BaseException:
        lock.release()
        raise
    return folder, lock


def _check_usable(folder: Path, settings: TrainSettings) -> None:
    """Raise UsageError for a folder with anything but an interrupted run with these settings."""
    cure = "Choose another `run`, or omit it to use the next number."
    if (folder / FINISHED_FILE).exists():
        raise UsageError(f"{folder} is a finished run, which is never overwritten. {cure}")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, not a run folder. {cure}")
    if not (_is_empty(folder) or _has_settings(folder, settings)):
        raise UsageError(
            f"{folder} is neither empty nor an interrupted run with the same settings. {cure}"
        )


def _claim_numbered(settings: TrainSettings) -> tuple[Path, FileLock]:
    """Lock the newest interrupted run with these settings, or the folder with the next number."""
    parent, stem = Path(settings.runs), data_name(settings)
    pattern = re.compile(re.escape(stem) + r"-(\d{1,9})")
    names = [path.name for path in parent.iterdir()] if parent.is_dir() else []
    numbers = [int(match[1]) for name in names if (match := pattern.fullmatch(name))]
    for number in sorted(numbers, reverse=True):
        folder = parent / f"{stem}-{number}"
        if _can_continue(folder, settings):
            lock = _lock(folder)
            if lock is not None and _can_continue(folder, settings):
                return folder, lock
            if lock is not None:
                lock.release()
    number = max(numbers, default=0)
    while True:
        number += 1
        folder = parent / f"{stem}-{number}"
        if os.path.lexists(folder):
            continue
        lock = _lock(folder)
        # A faster process may have started or finished a run in it.
        if lock is not None and _is_empty(folder):
            return folder, lock
        if lock is not None:
            lock.release()


def _lock(folder: Path) -> FileLock | None:
    """Create a folder and lock it; None if another process has the lock."""
    lock = FileLock(folder / LOCK_FILE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        return None
    except OSError as error:
        raise UsageError(
            f"Cannot write to the folder of runs {folder.parent}: {error.strerror}. Choose another "
            "`runs`."
        ) from error
    return lock


def _can_continue(folder: Path, settings: TrainSettings) -> bool:
    """Return whether a folder has an interrupted run with these settings, or nothing yet."""
    if (folder / FINISHED_FILE).exists() or not folder.is_dir():
        return False
    return _is_empty(folder) or _has_settings(folder, settings)


def _is_empty(folder: Path) -> bool:
    """Return whether a folder is missing or has hidden files only, as of a killed process."""
    return not folder.exists() or all(path.name.startswith(".") for path in folder.iterdir())


def _has_settings(folder: Path, settings: TrainSettings) -> bool:
    try:
        return TrainSettings.from_toml(folder / SETTINGS_FILE) == settings
    except SettingsError:
        return False
