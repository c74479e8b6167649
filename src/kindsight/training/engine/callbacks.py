"""Callbacks of a training, called in the parent process: displays and logs.

Logs are ``history.csv``, and optionally TensorBoard and MLflow. For every kind of training, both
receive the settings as parameters, the metrics of each epoch, the final metrics and the report;
``MLFLOW_TRACKING_URI`` and ``MLFLOW_EXPERIMENT_NAME`` are used if set, the default store is a file
in the current folder.
"""

from __future__ import annotations

import json
import os
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

from kindsight.errors import KindsightError, MissingExtraError
from kindsight.files import FileHeldError, write_json
from kindsight.training.engine.history import COLUMNS, HISTORY_FILE, EpochRow, History

__all__ = [
    "CallbackList", "TrainingCallback", "check_mlflow", "notify_interrupt", "notify_monitor",
    "open_logs",
]  # fmt: skip

LOGS_FILE = "logs.json"
MAX_LOGS_BYTES = 1 << 16
EXPERIMENT = "kindsight"
MAX_TEXT = 250  # characters of a parameter, the smallest limit of all MLflow versions
MAX_PARAMETERS = 100
# Send nothing to anyone but the user's own store, and print nothing into the live display.
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "WARNING"}


class TrainingCallback(Protocol):
    """Receives the progress of a training by epochs and steps.

    All calls come from one thread. A resumed training first reports the epochs that were trained
    before, so a callback sees every epoch, once and in order. Three more methods are optional:
    ``on_interrupt()``, called on a Ctrl-C that ends a training with a budget early;
    ``on_monitor(monitor)``, called before the training if the best epoch is not chosen by accuracy;
    and ``on_result(metrics, report)``, called at the end of a run with its final metrics by name
    and the path of the report.
    """

    def on_start(self, epochs: int, done: int) -> None:
        """Receive the start of the training, or its resumption.

        `epochs` is the maximum; early stopping may end sooner. `done` epochs were trained before,
        of which as many calls of :meth:`on_epoch` follow at once.
        """

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
        """Receive the progress of an epoch, at most about five times a second.

        `epoch` is counted from 1 through all phases, `step` of the epoch's `steps` are done.
        `loss`, in nats, and `accuracy`, 0-1, are means over the epoch's images so far; the speed is
        since the last call.
        """

    def on_epoch(self, row: EpochRow) -> None:
        """Receive a finished epoch."""


class CallbackList:
    """Several callbacks as one, called in the order given."""

    def __init__(self, *callbacks: TrainingCallback) -> None:
        self._callbacks = callbacks

    def on_start(self, epochs: int, done: int) -> None:
        """Call each."""
        for callback in self._callbacks:
            callback.on_start(epochs, done)

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
        """Call each by position, since a callback may name its arguments differently."""
        for callback in self._callbacks:
            callback.on_step(phase, epoch, step, steps, loss, accuracy, images_per_second)

    def on_epoch(self, row: EpochRow) -> None:
        """Call each."""
        for callback in self._callbacks:
            callback.on_epoch(row)

    def on_interrupt(self) -> None:
        """Call each that has the method."""
        for callback in self._callbacks:
            notify_interrupt(callback)

    def on_monitor(self, monitor: str) -> None:
        """Call each that has the method."""
        for callback in self._callbacks:
            notify_monitor(callback, monitor)

    def on_result(self, metrics: Mapping[str, float], report: Path) -> None:
        """Call each that has the method."""
        for callback in self._callbacks:
            method = getattr(callback, "on_result", None)
            if method is not None:
                method(metrics, report)


def notify_interrupt(callback: TrainingCallback | None) -> None:
    """Call a callback's optional method ``on_interrupt``."""
    method = getattr(callback, "on_interrupt", None)
    if method is not None:
        method()


def notify_monitor(callback: TrainingCallback | None, monitor: str) -> None:
    """Call a callback's optional method ``on_monitor`` with ``"accuracy"`` or ``"loss"``."""
    method = getattr(callback, "on_monitor", None)
    if method is not None:
        method(monitor)


@contextmanager
def open_logs(
    folder: Path,
    *,
    tensorboard: str | None = None,
    mlflow: bool = False,
    parameters: Mapping[str, Any] | None = None,
) -> Iterator[CallbackList]:
    """Yield a callback that logs a training.

    The run folder gets ``history.csv``, and with another log ``logs.json``, by which a resumed run
    finds its logs again. In TensorBoard's log folder, `tensorboard`, the run gets a subfolder of
    its own name. `parameters` are the settings. MissingExtraError if MLflow is not
    installed; UsageError if the TensorBoard folder is not writable, or holds another run of the
    same name; KindsightError if MLflow's store is not usable.
    """
    with (
        closing(CsvLog(folder / HISTORY_FILE)) as history,
        _open_services(folder, history, tensorboard, mlflow, parameters or {}) as log,
    ):
        yield log


@contextmanager
def _open_services(
    folder: Path,
    history: CsvLog,
    tensorboard: str | None,
    mlflow: bool,
    parameters: Mapping[str, Any],
) -> Iterator[CallbackList]:
    """Yield the callback of a history and of the other logs that are wanted."""
    logs: list[TrainingCallback] = [history]
    known = _read_logs_file(folder)
    if tensorboard is not None:
        from kindsight.training.engine.tensorboard import TensorBoardLog

        run = known.setdefault("tensorboard", uuid.uuid4().hex)
        write_json(folder / LOGS_FILE, known)
        logs.append(
            TensorBoardLog(
                Path(tensorboard, folder.name), f"kindsight {run}", parameters=parameters or {}
            )
        )
    if not mlflow:
        yield CallbackList(*logs)
        return
    log = MlflowLog(folder.name, parameters, known.get("mlflow"))
    write_json(folder / LOGS_FILE, {**known, "mlflow": log.run_id})
    try:
        yield CallbackList(*logs, log)
    except BaseException as error:
        log.close("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    log.close("FINISHED")


class CsvLog:
    """A :class:`TrainingCallback` that rewrites the history after each epoch.

    While another program holds the file, as spreadsheets do on Windows, the training continues, and
    the next epoch tries again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held = False
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
            self._write()

    def close(self) -> None:
        """Write epochs that could not be written before; warn if that fails again."""
        if self._held:
            self._write()
        if self._held:
            warnings.warn(
                f"{self._path} lacks the last epochs: another program had it open. The report and "
                "the model are complete.",
                stacklevel=2,
            )

    def _write(self) -> None:
        try:
            History(self._rows).write_csv(self._path)
            self._held = False
        except FileHeldError:
            self._held = True


def check_mlflow() -> None:
    """Raise MissingExtraError, with the install command, if MLflow is not installed."""
    from importlib.util import find_spec

    if find_spec("mlflow") is None:
        raise MissingExtraError("Logging to MLflow", "mlflow")


class MlflowLog:
    """A :class:`TrainingCallback` that logs to a new MLflow run, or that of `run_id`.

    A store that becomes unreachable does not stop the training: logging is retried with the next
    epoch, and at the end. MissingExtraError if MLflow is not installed; KindsightError if the store
    is not usable at the start.
    """

    def __init__(self, name: str, parameters: Mapping[str, Any], run_id: str | None = None) -> None:
        check_mlflow()
        for setting, value in _QUIET.items():
            os.environ.setdefault(setting, value)
        from mlflow.entities import Metric
        from mlflow.tracking import MlflowClient

        self._metric: Callable[..., Any] = Metric
        self._pending: list[tuple[str, list[Any]]] = []
        self._report: Path | None = None
        try:
            self._client = MlflowClient()
            self.run_id = self._resume(run_id) or self._new(name, parameters)
            history = self._client.get_metric_history(self.run_id, "loss")
        except Exception as error:
            raise KindsightError(
                f"Could not start an MLflow run: {type(error).__name__}: {str(error)[:300]}. "
                "Check MLFLOW_TRACKING_URI, or train without `mlflow`."
            ) from error
        self._logged = {int(metric.step) for metric in history}

    def on_start(self, epochs: int, done: int) -> None:
        """Do nothing."""

    def on_step(self, *_: Any, **__: Any) -> None:
        """Ignore steps."""

    def on_epoch(self, row: EpochRow) -> None:
        """Log an epoch, unless it is logged already."""
        if row.epoch not in self._logged:
            now = int(1000 * time.time())
            values = {name: getattr(row, name) for name in COLUMNS[2:]}
            metrics = [
                self._metric(name, value, now, row.epoch)
                for name, value in values.items()
                if value is not None
            ]
            self._logged.add(row.epoch)
            self._pending.append((f"epoch {row.epoch}", metrics))
        self._send()

    def on_result(self, metrics: Mapping[str, float], report: Path) -> None:
        """Log the final metrics and the report."""
        now = int(1000 * time.time())
        values = [self._metric(name, value, now, 0) for name, value in metrics.items()]
        self._pending.append(("metrics", values))
        self._report = report
        self._send()

    def close(self, status: str) -> None:
        """End the run with status ``"FINISHED"``, ``"FAILED"`` or ``"KILLED"``."""
        problem = self._send()
        try:
            self._client.set_terminated(self.run_id, status)
        except Exception as error:
            problem = problem or error
        if problem is not None:
            missing = [name for name, _ in self._pending]
            missing += ["report"] if self._report is not None else []
            warnings.warn(
                f"Logging to MLflow failed; missing there: {', '.join(missing) or 'none'}. "
                f"{type(problem).__name__}: {str(problem)[:300]}",
                stacklevel=2,
            )

    def _send(self) -> Exception | None:
        """Log what is pending; return the exception if that fails."""
        try:
            while self._pending:
                self._client.log_batch(self.run_id, metrics=self._pending[0][1])
                del self._pending[0]
            if self._report is not None:
                self._client.log_artifact(self.run_id, os.fspath(self._report))
                self._report = None
        except Exception as error:
            return error
        return None

    def _resume(self, run_id: str | None) -> str | None:
        """Resume a run, unless it is missing or deleted."""
        if run_id is None:
            return None
        try:
            if self._client.get_run(run_id).info.lifecycle_stage != "active":
                return None
        except Exception:  # another store than before
            return None
        self._client.update_run(run_id, status="RUNNING")
        return run_id

    def _new(self, name: str, parameters: Mapping[str, Any]) -> str:
        from mlflow.entities import Param

        title = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        found = self._client.get_experiment_by_name(title)
        experiment = found.experiment_id if found else self._client.create_experiment(title)
        run_id = str(self._client.create_run(experiment, run_name=name).info.run_id)
        texts = list(parameters.items())[:MAX_PARAMETERS]
        self._client.log_batch(
            run_id, params=[Param(key, str(value)[:MAX_TEXT]) for key, value in texts]
        )
        return run_id


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
