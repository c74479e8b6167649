"""A log in MLflow: a run's settings as parameters, its epochs as metrics.

MLflow decides where that goes: ``MLFLOW_TRACKING_URI`` and ``MLFLOW_EXPERIMENT_NAME`` are obeyed,
and without them it keeps a file in the current folder, which ``mlflow ui`` shows from there.
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
# The shortest bound on a parameter's text of any MLflow in use.
MAX_TEXT = 250
MAX_PARAMETERS = 100

# Nothing is sent anywhere but to the user's own store, and nothing is printed into the display.
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "WARNING"}


def check_mlflow() -> None:
    """Make sure that MLflow is installed.

    Raises
    ------
    MissingExtraError
        With the command that installs it.
    """
    from importlib.util import find_spec

    if find_spec("mlflow") is None:
        raise MissingExtraError("Logging to MLflow", "mlflow")


class MlflowLog:
    """A :class:`~.callback.TrainingCallback` that logs to MLflow.

    A store that cannot be reached does not stop the training: what could not be logged is tried
    again with the next epoch, and at the end.

    Parameters
    ----------
    name : str
        The run's name.
    parameters : mapping
        Settings to log once.
    run_id : str, optional
        MLflow's own name of the run, where it was begun before.

    Attributes
    ----------
    run_id : str
        MLflow's own name of the run.

    Raises
    ------
    MissingExtraError
        If MLflow is not installed.
    KindsightError
        If its store cannot be used at the start.
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
            self.run_id = self._continued(run_id) or self._new(name, parameters)
            history = self._client.get_metric_history(self.run_id, "loss")
        except Exception as error:
            raise KindsightError(
                "MLflow must be able to begin a run. Received: "
                f"{type(error).__name__}: {str(error)[:300]}"
            ) from error
        self._logged = {int(metric.step) for metric in history}

    def on_start(self, epochs: int, done: int) -> None:
        """Begin."""

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
        """Log an epoch, unless it was logged before."""
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
        """End the run.

        Parameters
        ----------
        status : str
            ``"FINISHED"``, ``"FAILED"`` or ``"KILLED"``.
        """
        problem = self._send()
        try:
            self._client.set_terminated(self.run_id, status)
        except Exception as error:
            problem = problem or error
        if problem is not None:
            left = ", ".join(str(epoch) for epoch, _ in self._pending) or "none"
            warnings.warn(
                f"MLflow could not be told everything; epochs that are missing there: {left}. "
                f"It said: {type(problem).__name__}: {str(problem)[:300]}",
                stacklevel=2,
            )

    def _send(self) -> Exception | None:
        """Log what is waiting; return what MLflow raised, if it did."""
        try:
            while self._pending:
                self._client.log_batch(self.run_id, metrics=self._pending[0][1])
                del self._pending[0]
        except Exception as error:
            return error
        return None

    def _continued(self, run_id: str | None) -> str | None:
        """Take up a run again, if there is one of this name that was not deleted."""
        if run_id is None:
            return None
        try:
            if self._client.get_run(run_id).info.lifecycle_stage != "active":
                return None
        except Exception:  # another store than before: the run is not there
            return None
        self._client.update_run(run_id, status="RUNNING")
        return run_id

    def _new(self, name: str, parameters: Mapping[str, Any]) -> str:
        from mlflow.entities import Param

        title = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        found = self._client.get_experiment_by_name(title)
        place = found.experiment_id if found else self._client.create_experiment(title)
        run_id = str(self._client.create_run(place, run_name=name).info.run_id)
        texts = list(parameters.items())[:MAX_PARAMETERS]
        self._client.log_batch(
            run_id, params=[Param(key, str(value)[:MAX_TEXT]) for key, value in texts]
        )
        return run_id
