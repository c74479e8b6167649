"""A stand-in for MLflow, which the tests do not install."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest


class Store:
    """What a stand-in for MLflow was told, over several clients."""

    def __init__(self) -> None:
        self.runs: dict[str, types.SimpleNamespace] = {}
        self.experiments: dict[str, str] = {}
        self.broken = False


def use_store(monkeypatch: pytest.MonkeyPatch) -> Store:
    """Put a stand-in in MLflow's place, with the few calls that are made of it."""
    store = Store()

    class Client:
        def get_experiment_by_name(self, name):
            place = store.experiments.get(name)
            return place and types.SimpleNamespace(experiment_id=place)

        def create_experiment(self, name):
            if store.broken:
                raise ConnectionError("no server")
            return store.experiments.setdefault(name, str(len(store.experiments)))

        def create_run(self, experiment_id, run_name):
            name = f"id{len(store.runs)}"
            info = types.SimpleNamespace(run_id=name, lifecycle_stage="active")
            store.runs[name] = types.SimpleNamespace(
                info=info, name=run_name, status="RUNNING", params={}, metrics=[], files={}
            )
            return store.runs[name]

        def get_run(self, run_id):
            return store.runs[run_id]

        def update_run(self, run_id, status):
            store.runs[run_id].status = status

        set_terminated = update_run

        def get_metric_history(self, run_id, key):
            return [m for m in store.runs[run_id].metrics if m.key == key]

        def log_batch(self, run_id, metrics=(), params=()):
            if store.broken:
                raise ConnectionError("no server")
            store.runs[run_id].metrics += metrics
            store.runs[run_id].params.update({p.key: p.value for p in params})

        def log_artifact(self, run_id, local_path):
            if store.broken:
                raise ConnectionError("no server")
            path = Path(local_path)
            store.runs[run_id].files[path.name] = path.read_bytes()

    def made(*names):
        def make(*values):
            return types.SimpleNamespace(**dict(zip(names, values, strict=True)))

        return make

    mlflow = types.ModuleType("mlflow")
    mlflow.__spec__ = types.SimpleNamespace()
    entities, tracking = types.ModuleType("mlflow.entities"), types.ModuleType("mlflow.tracking")
    entities.Metric = made("key", "value", "timestamp", "step")
    entities.Param = made("key", "value")
    tracking.MlflowClient = Client
    modules = {"mlflow": mlflow, "mlflow.entities": entities, "mlflow.tracking": tracking}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_LOGGING_LEVEL", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return store
