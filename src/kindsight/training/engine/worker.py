"""Training jobs of the Keras worker process.

Started by :class:`kindsight.models.worker.process.KerasProcess`.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from kindsight.augment import Augment
from kindsight.dataset.reading.image_cache import map_pixels
from kindsight.files import replacing
from kindsight.models.keras_jobs import serve_keras_jobs
from kindsight.models.networks.frozen_base import frozen_base_job
from kindsight.models.networks.small_cnn import ModernCNN, SmallCNN
from kindsight.models.networks.transfer import TransferNetwork, describe_transfer
from kindsight.models.steps.trainable import TrainableNetwork, set_threads
from kindsight.models.worker.device import on_cpu, on_gpu
from kindsight.models.worker.serve import Connection
from kindsight.training.activation_cache import map_activations
from kindsight.training.engine.learning_rate_finder import sweep_rates
from kindsight.training.engine.loop import TrainingData, job_checkpoint, run_loop, shard_count
from kindsight.training.engine.plan import Plan

__all__ = ["main", "train_job"]

Network: TypeAlias = SmallCNN | ModernCNN | TransferNetwork


def main() -> None:
    """Serve jobs until the parent process quits."""
    jobs = {"train": train_job, "find-rate": _find_rate, "describe": on_cpu(_describe)}
    serve_keras_jobs({**jobs, "frozen-base": on_cpu(frozen_base_job)})


def _describe(job: dict[str, Any], line: Connection) -> dict[str, Any]:
    """Describe the layers of a transfer network."""
    # A later job of this process may train it, when threads can no longer be set.
    set_threads(job["cores"], sharded=False)
    return describe_transfer(TransferNetwork.from_dict(job["network"]), job["classes"], job["ends"])


def train_job(job: dict[str, Any], line: Connection) -> dict[str, Any]:
    """Train a network and write it as ``.keras`` and ``.tflite``, if their paths are given.

    ``"seconds"`` ends the training, where it is not None.
    """
    seconds = job["seconds"]
    deadline = None if seconds is None else time.monotonic() + seconds
    settings = _network_settings(job)
    data, checkpoint = read_training_data(job), job_checkpoint(job)
    shards = shard_count(checkpoint, job["cores"])
    set_threads(job["cores"], sharded=_is_sharded(settings))
    network = _network(job, settings, shards)
    # 0: a training that continues on a CPU has one for each core.
    plan, extra = training_plan(job), {"shards": 0 if on_gpu() else shards}
    run_loop(job, line, plan, data, network, extra=extra, checkpoint=checkpoint, deadline=deadline)
    if job["keras"] is None:
        return {}
    with replacing(job["keras"]) as keras_file, replacing(job["tflite"]) as tflite_file:
        network.save(keras_file, tflite_file)
    return {}


def _find_rate(job: dict[str, Any], line: Connection) -> dict[str, Any]:
    """Run the learning-rate finder."""
    settings, data = _network_settings(job), read_training_data(job)[0]
    set_threads(job["cores"], sharded=_is_sharded(settings))
    network = _network(job, settings, job["cores"])
    phase = training_plan(job).phases[0]
    batches = data.batches(phase, job["seed"])

    def progress(done: int, total: int) -> None:
        line.send({"event": "tried", "done": done, "total": total})

    return sweep_rates(network, phase, batches, workers=job["workers"], progress=progress).to_dict()


def training_plan(job: dict[str, Any]) -> Plan:
    """Return the plan of a job, without augmentation where cached copies are augmented already."""
    plan = Plan.from_dict(job["plan"])
    phases = [
        replace(phase, augment=Augment()) if source["layer"] else phase
        for phase, source in zip(plan.phases, job["sources"], strict=True)
    ]
    return replace(plan, phases=phases)


def _is_sharded(settings: Network) -> bool:
    if isinstance(settings, SmallCNN):
        return not settings.batch_norm
    return isinstance(settings, ModernCNN)


def _network_settings(job: dict[str, Any]) -> Network:
    values = job["network"]
    if "backbone" in values:
        return TransferNetwork.from_dict(values)
    modern = values.get("preset") == "modern"
    return ModernCNN.from_dict(values) if modern else SmallCNN.from_dict(values)


def _network(job: dict[str, Any], settings: Network, shards: int) -> TrainableNetwork:
    return TrainableNetwork(
        settings, job["classes"], job["seed"], shards, job["class_weight"], job["compute_dtype"],
        layer_decay=job["layer_decay"], ema_decay=job["ema_decay"],
    )  # fmt: skip


def read_training_data(job: dict[str, Any]) -> list[TrainingData]:
    """Read the data of each phase, written by :meth:`.fit.JobInputs.write`."""
    with np.load(job["data"], allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    found = []
    for number, source in enumerate(job["sources"]):
        path, shape = Path(source["file"]), tuple(source["shape"])
        cached = bool(source["layer"])
        inputs = map_activations(path, 0, shape)["map"] if cached else map_pixels(path, shape[:2])
        data = TrainingData(
            inputs, arrays[f"rows_{number}"], arrays["targets"], arrays[f"val_rows_{number}"],
            arrays["val_targets"], job["classes"],
        )  # fmt: skip
        found.append(data)
    return found
