"""The folder of a run: locked by one process, never overwritten, continued if interrupted."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from kindsight.dataset.loaders.table_files import is_file_of_images
from kindsight.errors import SettingsError, UsageError
from kindsight.files import clear_leftovers
from kindsight.runs.settings import TrainSettings
from kindsight.storage.address import is_address, title_of
from kindsight.storage.files import check_local

__all__ = ["FOLDS_FILE", "FOLDS_TABLE", "claim_run", "data_name"]

SETTINGS_FILE = "settings.toml"
FINISHED_FILE = "bundle.json"
LOCK_FILE = ".lock"
PROBLEMS_FILE = "problems.csv"
FOLDS_TABLE, FOLDS_FILE = "folds.csv", "folds.json"
"""Out-of-fold predictions, and the folds, of a cross-validation."""

BEFORE_TRAINING = frozenset(
    {SETTINGS_FILE, PROBLEMS_FILE, "split.csv", "leakage.csv", "trained_on.npz", "logs.json"}
)
"""Files that are written before anything is trained."""

WITHOUT_EPOCHS = BEFORE_TRAINING | {
    *("model.tflite", "model.keras", "train.csv", "validation.csv", "test.csv"),
    *("report.html", "report.json", "model_card.md", "fine_tuning.json", "history.csv"),
    *("diagnosis.json", FOLDS_TABLE, FOLDS_FILE),
}
"""Files of a run with nothing to continue from; a training by epochs also has a checkpoint."""


@contextlib.contextmanager
def claim_run(settings: TrainSettings) -> Iterator[Path]:
    """Yield the folder for a run, locked by this process until the block ends.

    Without ``settings.run``, an interrupted run with the same settings is continued; otherwise the
    folder is named after the data and the next number. ``settings.run`` is a name below
    ``settings.runs``, or a path if it contains a path separator. While nothing has been trained, a
    named run accepts other settings, and an error leaves no folder behind. Both must be on a local
    disk.

    - `settings`: written to the folder as ``settings.toml``.

    Yields
    ------
    pathlib.Path
        The folder.

    Raises
    ------
    UsageError
        If the named run is finished, is a training with other settings, or is in use by another
        process.
    """
    check_local(settings.run or "", "`run`")
    check_local(settings.runs or "", "`runs`")
    missing = _missing_folders(run_path(settings) if settings.run else Path(settings.runs))
    folder, lock = _claim_named(settings) if settings.run else _claim_numbered(settings)
    try:
        clear_leftovers(folder)
        if not _is_empty(folder) and not _has_settings(folder, settings):
            _clear(folder, WITHOUT_EPOCHS)  # of other settings
        settings.write(folder / SETTINGS_FILE)
        yield folder
    except Exception:
        # Nothing has been trained, and the next attempt may need other settings: delete the folder,
        # unless it states why images were skipped.
        clear_leftovers(folder)
        if _has_only(folder, BEFORE_TRAINING) and not _has_problems(folder):
            _clear(folder, BEFORE_TRAINING)
            _remove_folders(folder, missing if settings.run else (folder, *missing))
        raise
    finally:
        # Once released, another process may hold the lock on the file. Only the file of a finished
        # run, which no process continues, can be deleted.
        lock.release()
        if (folder / FINISHED_FILE).exists():
            with contextlib.suppress(OSError):
                (folder / LOCK_FILE).unlink()


def data_name(settings: TrainSettings) -> str:
    """Return the name of the data; runs are named after it."""
    if is_address(settings.data):
        name = title_of(settings.data)
        return (name.rpartition(".")[0] if is_file_of_images(settings.data) else name) or "run"
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
    lock = _lock(folder, "runs" if folder.parent == Path(settings.runs) else "run")
    if lock is None:
        raise UsageError(f"The run {folder} is in use by another process.")
    try:
        # Before this process got the lock, another one may have started or finished the run.
        _check_usable(folder, settings)
    except BaseException:
        lock.release()
        raise
    return folder, lock


def _check_usable(folder: Path, settings: TrainSettings) -> None:
    """Raise UsageError for a folder with anything but an interrupted run with these settings.

    Other settings are accepted while nothing has been trained.
    """
    cure = "Choose another `run`, or omit it to use the next number."
    if (folder / FINISHED_FILE).exists():
        raise UsageError(f"{folder} is a finished run, which is never overwritten. {cure}")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, not a run folder. {cure}")
    if _is_empty(folder) or _has_settings(folder, settings):
        return
    if not _is_run(folder):
        raise UsageError(f"{folder} contains files that do not belong to a run. {cure}")
    if not _has_only(folder, WITHOUT_EPOCHS):
        raise UsageError(
            f"{folder} is an interrupted training with other settings. {cure} To continue it, give "
            f"{folder / SETTINGS_FILE} as `settings`."
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
        # A faster process may have started or finished a run in the folder.
        if lock is not None and _is_empty(folder):
            return folder, lock
        if lock is not None:
            lock.release()


def _lock(folder: Path, option: str = "runs") -> FileLock | None:
    """Create a folder and lock it; None if another process has the lock.

    `option` is the option that sets another parent folder, for messages.
    """
    lock = FileLock(folder / LOCK_FILE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except FileNotFoundError:  # removed by a process that failed to start
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
    except Timeout:
        return None
    except OSError as error:
        raise UsageError(
            f"Cannot write to the folder of runs {folder.parent}: {error.strerror}. Choose another "
            f"`{option}`."
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
    """Return whether a run has these settings; the name of its folder may differ."""
    try:
        found = TrainSettings.from_toml(folder / SETTINGS_FILE)
    except SettingsError:
        return False
    return found.with_options(run=settings.run, runs=settings.runs) == settings


def _is_run(folder: Path) -> bool:
    """Return whether a folder belongs to a run, rather than only to settings written by hand."""
    if not (folder / LOCK_FILE).exists():
        return False
    try:
        TrainSettings.from_toml(folder / SETTINGS_FILE)
    except SettingsError:
        return False
    return True


def _has_only(folder: Path, names: Collection[str]) -> bool:
    """Return whether a folder has no other files than these and hidden ones."""
    return all(path.name in names or path.name.startswith(".") for path in folder.iterdir())


def _has_problems(folder: Path) -> bool:
    """Return whether the run has skipped images."""
    try:
        with (folder / PROBLEMS_FILE).open("rb") as file:
            return len(file.readlines(2**16)) > 1
    except OSError:
        return False


def _clear(folder: Path, names: Collection[str]) -> None:
    """Delete the named files of a folder."""
    for name in names:
        (folder / name).unlink(missing_ok=True)


def _missing_folders(folder: Path) -> list[Path]:
    """Return the folders of a path that do not exist yet, the innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _remove_folders(folder: Path, folders: Collection[Path]) -> None:
    """Remove a run folder that contains only its lock, and folders that are then empty.

    The lock is held, so a process that waits for it finds the file deleted and creates another.
    """
    if folder in folders and [path.name for path in folder.iterdir()] == [LOCK_FILE]:
        with contextlib.suppress(OSError):  # Windows does not delete an open file.
            (folder / LOCK_FILE).unlink()
            for path in folders:
                path.rmdir()
