"""The jobs of the process with Keras that belong to training a network.

Started by :class:`kindsight.models.worker.process.KerasProcess` with this module, never by hand.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kindsight.augment import Augment
from kindsight.dataset.reading.image_cache import map_pixels
from kindsight.files import replacing
from kindsight.models.keras_jobs import serve_keras_jobs
from kindsight.models.networks.small_cnn import SmallCNN
from kindsight.models.networks.transfer import TransferNetwork, describe_transfer
from kindsight.models.steps.trainable import TrainableNetwork, set_threads
from kindsight.models.worker.serve import Connection
from kindsight.training.activation_cache import map_activations
from kindsight.training.engine.batches import Batches
from kindsight.training.engine.learning_rate_finder import sweep_rates
from kindsight.training.engine.loop import checkpoint_of, run_loop, shards_of
from kindsight.training.engine.plan import Plan
from kindsight.training.engine.trainable import TrainingData
from kindsight.training.fine_tuning.job import build_lower_job

__all__ = ["main"]


def main() -> None:
    """Answer jobs until told to quit."""
    lower = {"lower": build_lower_job}
    serve_keras_jobs({"train": _train, "find-rate": _find_rate, "describe": _describe, **lower})


def _describe(job: dict[str, Any], line: Connection) -> dict[str, Any]:
    """Say what a network would be."""
    # A later job of the same process trains it, when it is too late to say.
    set_threads(job["cores"], sharded=False)
    return describe_transfer(TransferNetwork.from_dict(job["network"]), job["classes"], job["ends"])


def _train(job: dict[str, Any], line: Connection) -> dict[str, Any]:
    """Train a network, and write it in both forms."""
    network = _network(job)
    data, checkpoint = _data(job), checkpoint_of(job)
    # Sums are rounded in the same way after a stop as before, whatever cores there are now.
    shards = shards_of(checkpoint, job["cores"])
    set_threads(job["cores"], sharded=_is_sharded(network))
    trainer = _trainer(job, network, shards)
    plan, extra = _plan(job), {"shards": shards}
    run_loop(job, line, plan, data, trainer, extra=extra, checkpoint=checkpoint)
    with replacing(job["keras"]) as keras_file, replacing(job["tflite"]) as tflite_file:
        trainer.save(keras_file, tflite_file)
    return {}


def _find_rate(job: dict[str, Any], line: Connection) -> dict[str, Any]:
    """Try learning rates."""
    network, data = _network(job), _data(job)[0]
    set_threads(job["cores"], sharded=_is_sharded(network))
    trainer = _trainer(job, network, job["cores"])
    phase = _plan(job).phases[0]
    batches = Batches(
        data.inputs, data.rows, data.targets, data.classes, phase.batch_size,
        phase.augment, job["seed"],
    )  # fmt: skip

    def hear(done: int, total: int) -> None:
        line.send({"event": "tried", "done": done, "total": total})

    return sweep_rates(trainer, phase, batches, workers=job["workers"], hear=hear).to_dict()


def _plan(job: dict[str, Any]) -> Plan:
    """Return the plan; the kept views of a phase are augmented already."""
    plan = Plan.from_dict(job["plan"])
    phases = [
        replace(phase, augment=Augment()) if source["layer"] else phase
        for phase, source in zip(plan.phases, job["sources"], strict=True)
    ]
    return replace(plan, phases=phases)


def _is_sharded(network: SmallCNN | TransferNetwork) -> bool:
    return isinstance(network, SmallCNN) and not network.batch_norm


def _network(job: dict[str, Any]) -> SmallCNN | TransferNetwork:
    told = job["network"]
    if "backbone" in told:
        return TransferNetwork.from_dict(told)
    return SmallCNN.from_dict(told)


def _trainer(
    job: dict[str, Any], network: SmallCNN | TransferNetwork, shards: int
) -> TrainableNetwork:
    return TrainableNetwork(
        network, job["classes"], job["seed"], shards, job["class_weight"], job["compute_dtype"],
        layer_decay=job["layer_decay"], ema_decay=job["ema_decay"],
    )  # fmt: skip


def _data(job: dict[str, Any]) -> list[TrainingData]:
    """Return the data of each phase."""
    with np.load(job["data"], allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    found = []
    for number, source in enumerate(job["sources"]):
        path, shape = Path(source["file"]), tuple(source["shape"])
        pixels = (
            map_activations(path, 0, shape)["map"]
            if source["layer"]
            else map_pixels(path, shape[:2])
        )
        found.append(
            TrainingData(
                pixels,
                arrays[f"rows_{number}"],
                arrays["targets"],
                arrays[f"val_rows_{number}"],
                arrays["val_targets"],
                job["classes"],
            )
        )
    return found
