"""The logs of a training: ``history.csv`` always, TensorBoard and MLflow where they are wanted."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kindsight.files import write_json
from kindsight.training.engine.callbacks import CallbackList, TrainingCallback
from kindsight.training.engine.history import HISTORY_FILE, EpochRow, History

__all__ = ["CsvLog", "open_logs"]

NOTES_FILE = "logs.json"
MAX_NOTES_BYTES = 1 << 16


class CsvLog:
    """A :class:`~.callback.TrainingCallback` that keeps the history in a file, whole at any moment.

    Parameters
    ----------
    path : pathlib.Path
        Replaced after each epoch.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._done = 0
        self._rows: list[EpochRow] = []

    def on_start(self, epochs: int, done: int) -> None:
        """Begin; `done` epochs are told of next."""
        self._done, self._rows = done, []

    def on_step(
        self,
        phase: str,
        epoch: int,
        step: int,
        steps: int,
        loss: float,
        accuracy: float,
        images_per_second: float,
    ) -> None:
        """Leave steps out."""

    def on_epoch(self, row: EpochRow) -> None:
        """Write the history, once all epochs are known that were trained before."""
        self._rows.append(row)
        if len(self._rows) >= self._done:
            History(self._rows).write_csv(self._path)


@contextmanager
def open_logs(
    folder: Path,
    *,
    tensorboard: str | None = None,
    mlflow: bool = False,
    parameters: Mapping[str, Any] | None = None,
) -> Iterator[TrainingCallback]:
    """Give a callback that logs a training while the block runs.

    Parameters
    ----------
    folder : pathlib.Path
        The run's folder; it gets ``history.csv``, and ``logs.json`` where another log is wanted,
        by which a run that goes on finds it again.
    tensorboard : str, optional
        A folder for TensorBoard; the run gets a folder of its own name in it.
    mlflow : bool
        Whether to log to MLflow.
    parameters : mapping, optional
        Settings, for MLflow.

    Yields
    ------
    TrainingCallback

    Raises
    ------
    MissingExtraError
        If MLflow is wanted and not installed.
    UsageError
        If the folder for TensorBoard cannot be written, or holds another run of this name.
    KindsightError
        If MLflow's store cannot be used.
    """
    logs: list[TrainingCallback] = [CsvLog(folder / HISTORY_FILE)]
    notes = _read_notes(folder)
    if tensorboard is not None:
        from kindsight.training.engine.tensorboard import TensorBoardLog

        run = notes.setdefault("tensorboard", uuid.uuid4().hex)
        write_json(folder / NOTES_FILE, notes)
        logs.append(TensorBoardLog(Path(tensorboard, folder.name), f"kindsight {run}"))
    if not mlflow:
        yield CallbackList(*logs)
        return
    from kindsight.training.engine.mlflow import MlflowLog

    log = MlflowLog(folder.name, parameters or {}, notes.get("mlflow"))
    write_json(folder / NOTES_FILE, {**notes, "mlflow": log.run_id})
    try:
        yield CallbackList(*logs, log)
    except BaseException as error:
        log.close("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    log.close("FINISHED")


def _read_notes(folder: Path) -> dict[str, str]:
    """Read which logs are this run's; damaged notes are none."""
    try:
        with (folder / NOTES_FILE).open("rb") as file:
            found = json.loads(file.read(MAX_NOTES_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {k: v for k, v in found.items() if k in ("tensorboard", "mlflow") and isinstance(v, str)}
