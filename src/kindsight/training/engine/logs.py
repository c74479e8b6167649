"""Log a training to ``history.csv``, and optionally to TensorBoard and MLflow."""

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

LOGS_FILE = "logs.json"
MAX_LOGS_BYTES = 1 << 16


class CsvLog:
    """A :class:`~.callbacks.TrainingCallback` that rewrites the history after each epoch."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._done = 0
        self._rows: list[EpochRow] = []

    def on_start(self, epochs: int, done: int) -> None:
        """Forget earlier epochs; they are reported again."""
        self._done, self._rows = done, []

    def on_step(self, *_: Any, **__: Any) -> None:
        """Ignore steps."""

    def on_epoch(self, row: EpochRow) -> None:
        """Write the history, unless earlier epochs are still being reported."""
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
    """Yield a callback that logs a training.

    The run folder gets ``history.csv``, and with another log ``logs.json``, by which a resumed run
    finds its logs again. In TensorBoard's log folder, `tensorboard`, the run gets a subfolder of
    its own name. `parameters` are settings, logged to MLflow. MissingExtraError if MLflow is not
    installed; UsageError if the TensorBoard folder is not writable, or holds another run of the
    same name; KindsightError if MLflow's store is not usable.
    """
    logs: list[TrainingCallback] = [CsvLog(folder / HISTORY_FILE)]
    known = _read_logs_file(folder)
    if tensorboard is not None:
        from kindsight.training.engine.tensorboard import TensorBoardLog

        run = known.setdefault("tensorboard", uuid.uuid4().hex)
        write_json(folder / LOGS_FILE, known)
        logs.append(TensorBoardLog(Path(tensorboard, folder.name), f"kindsight {run}"))
    if not mlflow:
        yield CallbackList(*logs)
        return
    from kindsight.training.engine.mlflow import MlflowLog

    log = MlflowLog(folder.name, parameters or {}, known.get("mlflow"))
    write_json(folder / LOGS_FILE, {**known, "mlflow": log.run_id})
    try:
        yield CallbackList(*logs, log)
    except BaseException as error:
        log.close("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    log.close("FINISHED")


def _read_logs_file(folder: Path) -> dict[str, str]:
    """Read the run's identifiers in other logs; empty if the file is missing or damaged."""
    try:
        with (folder / LOGS_FILE).open("rb") as file:
            found = json.loads(file.read(MAX_LOGS_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {k: v for k, v in found.items() if k in ("tensorboard", "mlflow") and isinstance(v, str)}
