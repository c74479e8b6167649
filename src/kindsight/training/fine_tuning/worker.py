"""The Keras worker process of fine-tuning and its jobs.

Started by :class:`kindsight.models.worker.process.KerasProcess` with this module. It computes in
shards, each on its own core: a seventh faster than every operation on all cores in turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kindsight.dataset.reading.image_cache import map_pixels
from kindsight.files import replacing
from kindsight.models.backbones.backbone import FeatureLayout
from kindsight.models.heads import Head
from kindsight.models.keras_jobs import serve_keras_jobs
from kindsight.models.networks.fine_tuned import (
    FineTunedNetwork,
    build_fine_tuned,
    load_network,
    with_head,
)
from kindsight.models.networks.frozen_base import frozen_base_job, list_cut_candidates
from kindsight.models.steps.backbones import FineTunedForward
from kindsight.models.steps.trainable import TrainableNetwork, set_threads
from kindsight.models.worker.device import on_cpu, on_gpu
from kindsight.models.worker.serve import Connection, Job
from kindsight.threads import count_cores
from kindsight.training.activation_cache import map_activations
from kindsight.training.engine.loop import TrainingData, job_checkpoint, run_loop, shard_count
from kindsight.training.engine.plan import Phase, Plan
from kindsight.training.engine.worker import train_job
from kindsight.training.fine_tuning.choices import (
    build_predictor,
    choose_learning_rate,
    choose_prediction,
    flipped_logits,
    trial_epochs,
)

__all__ = ["main"]

# Steps by which the speed is measured, after a first, slower one.
MEASURED_STEPS = 4


def main() -> None:
    """Serve jobs until the process is asked to quit."""
    serve_keras_jobs(JOBS, lambda: set_threads(count_cores(), sharded=True))


def list_cuts_job(job: dict[str, Any], line: Connection) -> dict[str, Any]:
    """List the cuts of a backbone."""
    model, layout = load_network(job["keras"]), FeatureLayout.from_dict(job["layout"])
    return {"cuts": [cut.to_dict() for cut in list_cut_candidates(model, layout)]}


def fine_tune_job(job: dict[str, Any], line: Connection) -> dict[str, Any]:
    """Train a backbone's upper layers, or all, with its head; write both files.

    Returns
    -------
    dict
        ``"rate"``: measured training speed in images per second; ``"epochs"`` planned;
        ``"learning_rate"``; ``"flips"`` and ``"ensemble"`` as in :class:`.Prediction`.
    """
    until = None if job["seconds"] is None else time.monotonic() + job["seconds"]
    with np.load(job["data"], allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    frozen_logits, val_flips = arrays.pop("frozen_logits"), arrays.pop("val_flips")
    built = _build(job, arrays)
    data = TrainingData(_inputs(job), classes=job["classes"], **arrays)
    checkpoint = job_checkpoint(job)
    plan = Plan.from_dict({name: job[name] for name in ("phases", "final_weights", "monitor")})
    split = _input_splitter(
        FeatureLayout.from_dict(job["layout"]), job["stage"], job["base_features"]
    )
    ema_steps = job["ema_epochs"] * -(-len(data.targets) // plan.phases[0].batch_size)
    # A resumed training rounds its sums as before, whatever cores there are now.
    shards = shard_count(checkpoint, job["cores"])
    # With little data the moving average of the weights is less noisy than the last step's.
    network = TrainableNetwork(
        FineTunedForward(built, split, job["compute_dtype"]), job["classes"], 0, shards,
        job["class_weight"], layer_decay=job["layer_decay"], ema_decay=1 - 1 / max(1, ema_steps),
        ema_warmup=False,
    )  # fmt: skip
    if checkpoint is not None:
        rate, epochs = checkpoint.numbers["rate"], checkpoint.numbers["epochs"]
        learning_rate = checkpoint.numbers["learning_rate"]
    else:
        rate, epochs = _measure_speed(network, plan, data, job["seed"]), plan.phases[-1].epochs
        learning_rate = _try_rates(network, plan.phases[-1], data, job, line, rate, until)
        if until is not None:
            seconds = job["epoch_fraction"] * (until - time.monotonic())
            epochs = max(1, min(job["max_epochs"], int(seconds * rate / len(data.targets))))
    phases = [replace(phase, learning_rate=learning_rate) for phase in plan.phases]
    last = replace(phases[-1], epochs=epochs, warmup=min(phases[-1].warmup, epochs / 2))
    plan = replace(plan, phases=(*phases[:-1], last))
    numbers = {"rate": rate, "epochs": epochs, "learning_rate": learning_rate}
    # 0: a training that continues on a CPU has one for each core.
    numbers["shards"] = 0 if on_gpu() else shards
    run_loop(job, line, plan, data, network, extra=numbers, checkpoint=checkpoint, deadline=until)
    flipped = flipped_logits(
        network, data.inputs, val_flips, job["flips"], flipped=job["stage"] is not None,
        report=lambda: line.send({"event": "alive"}),
    )  # fmt: skip
    prediction = choose_prediction(
        flipped, frozen_logits, data.val_targets, wide=job["wide"], margin=job["margin"]
    )
    np.save(job["val_logits"], prediction.logits, allow_pickle=False)
    frozen = built.frozen if prediction.ensemble else None
    if frozen is not None and job["ensemble"] is not None:
        # Keras cannot load a file in which one layer is in two networks of a third.
        loaded = {job["keras_backbone"]: built.backbone} if prediction.flips == 1 else {}
        frozen = _load_ensemble(job["ensemble"], loaded)
    predictor = build_predictor(built, prediction, job["flips"], frozen)
    with replacing(job["keras"]) as keras_file, replacing(job["tflite"]) as tflite_file:
        network.save(keras_file, tflite_file, predictor)
    return {**numbers, "ensemble": prediction.ensemble, "flips": prediction.flips}


JOBS: dict[str, Job] = {
    "list_cuts": on_cpu(list_cuts_job),
    "frozen-base": on_cpu(frozen_base_job),
    "fine_tune": fine_tune_job,
    "train": train_job,
}


def _build(job: dict[str, Any], arrays: dict[str, Any]) -> FineTunedNetwork:
    """Build the network; take the head's arrays out of `arrays`."""
    names = [name for name in arrays if name.startswith("head/")]
    head = Head.from_arrays({name.removeprefix("head/"): arrays.pop(name) for name in names})
    mean, spread = arrays.pop("mean"), arrays.pop("spread")
    layout, model = FeatureLayout.from_dict(job["layout"]), load_network(job["keras_backbone"])
    return build_fine_tuned(model, layout, job["stage"], head, job["temperature"], mean, spread)


def _load_ensemble(ensemble: dict[str, Any], loaded: dict[str, Any]) -> Any:
    """Put the ensemble's head on its backbone, which may be loaded already."""
    with np.load(ensemble["head"], allow_pickle=False) as arrays:
        head = Head.from_arrays({name: arrays[name] for name in arrays.files})
    model = loaded.get(ensemble["keras"]) or load_network(ensemble["keras"])
    return with_head(model, head, ensemble["temperature"])


def _inputs(job: dict[str, Any]) -> Any:
    path = Path(job["records"])
    if job["stage"] is None:
        return map_pixels(path, tuple(job["size"]))
    return map_activations(path, job["base_features"], tuple(job["shape"]))


def _input_splitter(
    layout: FeatureLayout, stage: str | None, low: int
) -> Callable[[Any], list[Any]]:
    """Return the function from a batch to the network's inputs."""
    if stage is None:
        return lambda images: [images]
    blocks = [slice(block.start, block.stop) for block in layout.blocks if block.stop <= low]
    return lambda records: [records["map"], *(records["features"][:, block] for block in blocks)]


def _measure_speed(network: TrainableNetwork, plan: Plan, data: TrainingData, seed: int) -> float:
    """Return the training speed in images per second, by steps at a learning rate of 0."""
    phase = plan.phases[-1]
    batches = data.batches(phase, seed)
    batch = batches.make(1, 0, batches.order(1))
    network.begin(phase.update_rule(), phase.label_smoothing, phase.freeze)
    network.step(batch.images, batch.targets, 0.0, batch.random_key)
    start = time.monotonic()
    for _ in range(MEASURED_STEPS):
        network.step(batch.images, batch.targets, 0.0, batch.random_key)
    return MEASURED_STEPS * len(batch.images) / max(1e-9, time.monotonic() - start)


def _try_rates(
    network: TrainableNetwork,
    phase: Phase,
    data: TrainingData,
    job: dict[str, Any],
    line: Connection,
    rate: float,
    until: float | None,
) -> float:
    """Choose among as many learning rates as there is time to try."""
    rates = tuple(job["rates"])
    tried = rates
    if until is not None:
        trial = trial_epochs(phase, data) * len(data.targets) / rate
        tried = rates[: max(0, int(job["trial_fraction"] * (until - time.monotonic()) / trial))]
    if len(tried) < 2:
        return float(rates[0])

    def report(done: int, total: int) -> None:
        line.send({"event": "rates", "done": done, "total": total})

    def is_late() -> bool:
        return until is not None and time.monotonic() > until

    return choose_learning_rate(
        network, phase, data, job["seed"], tried, report, line.stop.is_set, is_late
    )
