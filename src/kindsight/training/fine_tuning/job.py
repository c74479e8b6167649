"""The jobs of fine-tuning, in the process with Keras: cuts, the lower part, the training."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kindsight.dataset.reading.image_cache import map_pixels
from kindsight.files import replacing
from kindsight.models.backbones.layout import FeatureLayout
from kindsight.models.heads.head import Head
from kindsight.models.networks.fine_tuned import (
    FineTunedNetwork,
    build_fine_tuned,
    load_network,
    with_head,
)
from kindsight.models.networks.frozen_base import frozen_base_job, list_cut_candidates
from kindsight.models.steps.backbones import FineTunedForward
from kindsight.models.steps.trainable import TrainableNetwork
from kindsight.models.worker.serve import Connection, Job
from kindsight.training.activation_cache import map_activations
from kindsight.training.engine.batches import Batches
from kindsight.training.engine.loop import job_checkpoint, run_loop, shard_count
from kindsight.training.engine.plan import Phase, Plan
from kindsight.training.engine.trainable import TrainingData
from kindsight.training.fine_tuning.learning_rate import choose_rate, tried_epochs
from kindsight.training.fine_tuning.settings import MONITOR
from kindsight.training.fine_tuning.tta import answering, choose_answer, logits_of_views

__all__ = ["TUNE_JOBS"]

# Steps by which the time of an epoch is measured, after the first, which is slower.
MEASURED = 4
# The share of the time allowed that epochs are planned for: the last ones may be slower.
PLANNED = 0.85
# The share of the time left that trying learning rates may take.
TRIED_SHARE = 0.5


def survey_job(job: dict[str, Any], line: Connection) -> dict[str, Any]:
    """Look at the places where a backbone can be cut."""
    model, layout = load_network(job["keras"]), FeatureLayout.from_dict(job["layout"])
    return {"cuts": [place.to_dict() for place in list_cut_candidates(model, layout)]}


def tune_job(job: dict[str, Any], line: Connection) -> dict[str, Any]:
    """Train the upper part, or all, of a backbone with its head; write it in both forms.

    Returns
    -------
    dict
        ``"rate"``: images learned from in a second, as measured before; ``"epochs"`` planned;
        the ``"learning_rate"`` that was best;
        ``"share"`` of the fine-tuned network in the answer, and over how many flipped ``"views"``
        it is.
    """
    until = None if job["seconds"] is None else time.monotonic() + job["seconds"]
    with np.load(job["data"], allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    before, val_views = arrays.pop("before"), arrays.pop("val_views")
    network = _divide(job, arrays)
    data = TrainingData(_pixels(job), classes=job["classes"], **arrays)
    checkpoint = job_checkpoint(job)
    plan = Plan.from_dict({"phases": job["phases"], "final_weights": "best", "monitor": MONITOR})
    given = _inputs(FeatureLayout.from_dict(job["layout"]), job["stage"], job["base_features"])
    steps = job["ema_epochs"] * -(-len(data.targets) // plan.phases[0].batch_size)
    # Sums are rounded in the same way after a stop as before, whatever cores there are now.
    shards = shard_count(checkpoint, job["cores"])
    # The mean runs over about so many of the last steps, from the first on: little data makes it
    # less of a gamble than what the last step left.
    tuner = TrainableNetwork(
        FineTunedForward(network, given, job["compute_dtype"]), job["classes"], 0, shards,
        job["class_weight"], layer_decay=job["layer_decay"], ema_decay=1 - 1 / max(1, steps),
        ema_warmup=False,
    )  # fmt: skip
    if checkpoint is not None:
        rate, epochs = checkpoint.numbers["rate"], checkpoint.numbers["epochs"]
        learning_rate = checkpoint.numbers["learning_rate"]
    else:
        rate, epochs = _measure(tuner, plan, data, job["seed"]), plan.phases[-1].epochs
        learning_rate = _choose_rate(tuner, plan.phases[-1], data, job, line, rate, until)
        if until is not None:
            most = int(PLANNED * (until - time.monotonic()) * rate / len(data.targets))
            epochs = max(1, min(job["most_epochs"], most))
    phases = [replace(phase, learning_rate=learning_rate) for phase in plan.phases]
    plan = replace(plan, phases=(*phases[:-1], _lasting(phases[-1], epochs)))
    extra = {"rate": rate, "epochs": epochs, "learning_rate": learning_rate, "shards": shards}
    run_loop(job, line, plan, data, tuner, extra=extra, checkpoint=checkpoint, deadline=until)
    views = logits_of_views(
        tuner, data.inputs, val_views, job["flips"], flipped=job["stage"] is not None,
        tell=lambda: line.send({"event": "alive"}),
    )  # fmt: skip
    answer = choose_answer(
        views, before, data.val_targets, job["shares"], wide=job["wide"], clearly=job["clearly"]
    )
    np.save(job["val_logits"], answer.logits, allow_pickle=False)
    frozen = network.frozen if answer.share < 1 else None
    if frozen is not None and job["beside"] is not None:
        # A layer that is in two networks within a third cannot be loaded from its file.
        known = {job["keras_backbone"]: network.backbone} if answer.views == 1 else {}
        frozen = _beside(job["beside"], known)
    answers = answering(network, answer, job["flips"], frozen)
    with replacing(job["keras"]) as keras_file, replacing(job["tflite"]) as tflite_file:
        tuner.save(keras_file, tflite_file, answers)
    return {**extra, "share": answer.share, "views": answer.views}


TUNE_JOBS: dict[str, Job] = {"survey": survey_job, "frozen-base": frozen_base_job, "tune": tune_job}
"""By the names that the parent calls them."""


def _head(arrays: dict[str, Any], prefix: str) -> Head:
    """Take the arrays of a head out of others."""
    names = [name for name in arrays if name.startswith(prefix)]
    return Head.from_arrays({name.removeprefix(prefix): arrays.pop(name) for name in names})


def _divide(job: dict[str, Any], arrays: dict[str, Any]) -> FineTunedNetwork:
    """Divide the backbone with its head; takes what it needs out of the arrays."""
    head, mean, spread = _head(arrays, "head/"), arrays.pop("mean"), arrays.pop("spread")
    layout = FeatureLayout.from_dict(job["layout"])
    model = load_network(job["keras_backbone"])
    return build_fine_tuned(model, layout, job["stage"], head, job["temperature"], mean, spread)


def _beside(told: dict[str, Any], known: dict[str, Any]) -> Any:
    """Put another head on the backbone of a file, which may be loaded already."""
    with np.load(told["head"], allow_pickle=False) as arrays:
        head = Head.from_arrays({name: arrays[name] for name in arrays.files})
    model = known.get(told["keras"]) or load_network(told["keras"])
    return with_head(model, head, told["temperature"])


def _pixels(job: dict[str, Any]) -> Any:
    path = Path(job["records"])
    if job["stage"] is None:
        return map_pixels(path, tuple(job["size"]))
    return map_activations(path, job["base_features"], tuple(job["shape"]))


def _lasting(phase: Phase, epochs: int) -> Phase:
    return replace(phase, epochs=epochs, warmup=min(phase.warmup, epochs / 2))


def _inputs(layout: FeatureLayout, stage: str | None, low: int) -> Callable[[Any], list[Any]]:
    """Return what makes of a batch the arrays that the upper part takes."""
    if stage is None:
        return lambda images: [images]
    blocks = [slice(block.start, block.stop) for block in layout.blocks if block.stop <= low]
    return lambda records: [records["map"], *(records["features"][:, block] for block in blocks)]


def _measure(tuner: TrainableNetwork, plan: Plan, data: TrainingData, seed: int) -> float:
    """Return how many images a second are learned from, in steps that change nothing."""
    phase = plan.phases[-1]
    batches = Batches(
        data.inputs, data.rows, data.targets, data.classes, phase.batch_size,
        phase.augment, seed,
    )  # fmt: skip
    batch = batches.make(1, 0, batches.order(1))
    tuner.begin(phase.update_rule(), phase.label_smoothing, phase.freeze)
    tuner.step(batch.images, batch.targets, 0.0, batch.random_key)
    start = time.monotonic()
    for _ in range(MEASURED):
        tuner.step(batch.images, batch.targets, 0.0, batch.random_key)
    return MEASURED * len(batch.images) / max(1e-9, time.monotonic() - start)


def _choose_rate(
    tuner: TrainableNetwork,
    phase: Phase,
    data: TrainingData,
    job: dict[str, Any],
    line: Connection,
    rate: float,
    until: float | None,
) -> float:
    """Try learning rates, as many of them as half of the time left allows."""
    rates = every = tuple(job["rates"])
    if until is not None:
        trial = tried_epochs(phase, data) * len(data.targets) / rate
        rates = rates[: max(0, int(TRIED_SHARE * (until - time.monotonic()) / trial))]
    if len(rates) < 2:
        return float(every[0])

    def tell(done: int, total: int) -> None:
        line.send({"event": "rates", "done": done, "total": total})

    def is_late() -> bool:
        return until is not None and time.monotonic() > until

    stopped = line.stop.is_set
    return choose_rate(tuner, phase, data, job["seed"], rates, tell, stopped, is_late)
