"""The folder of the experiments: one process at a time, and the time used so far."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kindsight.errors import UsageError
from kindsight.files import write_json
from kindsight.runs.settings import TrainSettings

__all__ = ["LOCK_FILE", "claimed", "improve_folder", "write_state"]

STATE_FILE, LOCK_FILE = "state.json", ".lock"
MAX_STATE_BYTES = 1 << 20


def improve_folder(run: Path) -> Path:
    """Return the folder of the experiments on a run."""
    return run.with_name(f"{run.name}-improve")


@contextmanager
def claimed(folder: Path, settings: TrainSettings, any_model: bool) -> Iterator[float]:
    """Lock the folder while the block runs; yield the seconds used before.

    UsageError if another process has it, or it belongs to other settings.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK_FILE)
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(f"{folder} is in use by another process.") from None
    except OSError as error:
        raise UsageError(
            f"Cannot write to {folder}: {error.strerror}. Choose another `folder`."
        ) from error
    try:
        names = {path.name for path in folder.iterdir()} - {LOCK_FILE}
        state = _read_state(folder)
        if state is None and names:
            raise UsageError(
                f"{folder} contains files that do not belong to experiments. Choose another "
                "`folder`."
            )
        if state is not None and state.get("settings") != _plain(settings, any_model):
            raise UsageError(
                f"{folder} has experiments with other settings. Choose another `folder`, or give "
                "the same options to continue them."
            )
        write_state(folder, settings, any_model, 0.0 if state is None else state["seconds"])
        yield 0.0 if state is None else float(state["seconds"])
    finally:
        lock.release()


def _plain(settings: TrainSettings, any_model: bool) -> Any:
    return json.loads(json.dumps({**settings.to_dict(), "any_model": any_model}, default=list))


def write_state(folder: Path, settings: TrainSettings, any_model: bool, used: float) -> None:
    """Store the settings and the seconds used."""
    write_json(
        folder / STATE_FILE,
        {"settings": _plain(settings, any_model), "seconds": round(used, 3)},
    )


def _read_state(folder: Path) -> dict[str, Any] | None:
    """Return the state of interrupted experiments; None if there is none, or it is damaged."""
    try:
        with (folder / STATE_FILE).open("rb") as file:
            state = json.loads(file.read(MAX_STATE_BYTES))
        return {"settings": state["settings"], "seconds": float(state["seconds"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None
