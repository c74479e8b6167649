"""Log a training to MLflow: settings as parameters, epochs as metrics.

``MLFLOW_TRACKING_URI`` and ``MLFLOW_EXPERIMENT_NAME`` are used if set; the default store is a file
in the current folder.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from kindsight.errors import KindsightError, MissingExtraError
from kindsight.training.engine.history import COLUMNS, EpochRow

__all__ = ["MlflowLog", "check_mlflow"]

EXPERIMENT = "kindsight"
MAX_TEXT = 250  # characters of a parameter, the smallest limit of all MLflow versions
MAX_PARAMETERS = 100

# Send nothing to anyone but the user's own store, and print nothing into the live display.
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "WARNING"}


def check_mlflow() -> None:
    """Raise MissingExtraError, with the install command, if MLflow is not installed."""
    from importlib.util import find_spec

    if find_spec("mlflow") is None:
        raise MissingExtraError("Logging to MLflow", "mlflow")


class MlflowLog:
    """A :class:`~.callbacks.TrainingCallback` that logs to a new MLflow run, or that of `run_id`.

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
        self._pending: list[tuple[int, list[Any]]] = []
        try:
            self._client = MlflowClient()
            self.run_id = self._resume(run_id) or self._new(name, parameters)
            history = self._client.get_metric_history(self.run_id, "loss")
        except Exception as error:
            raise KindsightError(
                f"Could not start an MLflow run: {type(error).__name__}: {str(error)[:300]}. "
                "Check MLFLOW_TRACKING_URI, or train without --mlflow."
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
            self._pending.append((row.epoch, metrics))
        self._send()

    def close(self, status: str) -> None:
        """End the run with status ``"FINISHED"``, ``"FAILED"`` or ``"KILLED"``."""
        problem = self._send()
        try:
            self._client.set_terminated(self.run_id, status)
        except Exception as error:
            problem = problem or error
        if problem is not None:
            left = ", ".join(str(epoch) for epoch, _ in self._pending) or "none"
            warnings.warn(
                f"Logging to MLflow failed; epochs missing there: {left}. "
                f"{type(problem).__name__}: {str(problem)[:300]}",
                stacklevel=2,
            )

    def _send(self) -> Exception | None:
        """Log the pending epochs; return the exception if that fails."""
        try:
            while self._pending:
                self._client.log_batch(self.run_id, metrics=self._pending[0][1])
                del self._pending[0]
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
