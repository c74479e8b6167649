"""A run's folder: claimed by one process, never overwritten, continued where it was interrupted."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from kindsight.errors import SettingsError, UsageError
from kindsight.settings import TrainSettings

__all__ = ["claim_run"]

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
    try:
        settings.write(folder / SETTINGS_FILE)
        yield folder
    finally:
        lock.release()
        with contextlib.suppress(OSError):
            (folder / LOCK_FILE).unlink()


def _named(settings: TrainSettings) -> tuple[Path, FileLock]:
    assert settings.run is not None
    name = Path(settings.run)
    folder = name if name.is_absolute() or len(name.parts) > 1 else Path(settings.runs) / name
    if (folder / FINISHED_FILE).exists():
        raise UsageError(
            f"A finished run is never overwritten. Received: {folder}. Give another --run, or "
            "leave it out to get the next number."
        )
    if folder.exists() and any(folder.iterdir()) and not _same(folder, settings):
        raise UsageError(
            f"A run's folder must be new, or of an interrupted run with the same settings. "
            f"Received: {folder}, which holds something else. Give another --run."
        )
    lock = _lock(folder)
    if lock is None:
        raise UsageError(f"The run {folder} is being trained by another process right now.")
    return folder, lock


def _numbered(settings: TrainSettings) -> tuple[Path, FileLock]:
    """Take up the newest run if it is ours and interrupted, else make the next number."""
    parent = Path(settings.runs)
    stem = Path(settings.data).resolve().name or "run"
    pattern = re.compile(re.escape(stem) + r"-(\d{1,9})")
    names = [path.name for path in parent.iterdir()] if parent.is_dir() else []
    numbers = [int(match[1]) for name in names if (match := pattern.fullmatch(name))]
    newest = max(numbers, default=0)
    for number in sorted(numbers, reverse=True):
        folder = parent / f"{stem}-{number}"
        if not (folder / FINISHED_FILE).exists() and _same(folder, settings):
            lock = _lock(folder)
            if lock is not None and not (folder / FINISHED_FILE).exists():
                return folder, lock
    while True:
        newest += 1
        folder = parent / f"{stem}-{newest}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UsageError(
                f"The folder for runs must be one that can be written. Received: {parent} "
                f"({error.strerror})."
            ) from error
        lock = _lock(folder)
        if lock is not None:
            return folder, lock


def _lock(folder: Path) -> FileLock | None:
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


def _same(folder: Path, settings: TrainSettings) -> bool:
    """Whether a folder holds a run with these settings."""
    try:
        return TrainSettings.from_toml(folder / SETTINGS_FILE) == settings
    except SettingsError:
        return False
