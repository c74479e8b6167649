"""The jobs of the process with Keras that belong to training a network.

Started by :class:`kindsight.models.keras_process.KerasProcess` with this module, never by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kindsight.catalog.store import map_pixels
from kindsight.files import replacing
from kindsight.models.keras_child import Line, serve
from kindsight.models.small_cnn import SmallCNN
from kindsight.models.trainer import Trainer, set_threads
from kindsight.training.batches import Batches
from kindsight.training.job_loop import checkpoint_of, run_loop
from kindsight.training.loop import Lessons
from kindsight.training.plan import Plan
from kindsight.training.rate_finder import sweep_rates
from kindsight.training.tune_job import TUNE_JOBS

__all__ = ["main"]


def main() -> None:
    """Answer jobs until told to quit."""
    serve({"train": _train, "find-rate": _find_rate, **TUNE_JOBS})


def _train(job: dict[str, Any], line: Line) -> dict[str, Any]:
    """Train a network, and write it in both forms."""
    lessons, network = _lessons(job), SmallCNN.from_dict(job["network"])
    checkpoint = checkpoint_of(job)
    # Sums are rounded in the same way after a stop as before, whatever cores there are now.
    shards = job["cores"] if checkpoint is None else int(checkpoint.numbers["shards"])
    set_threads(network, job["cores"])
    trainer = _trainer(job, lessons, network, shards)
    plan, extra = Plan.from_dict(job["plan"]), {"shards": shards}
    run_loop(job, line, plan, lessons, trainer, extra=extra, checkpoint=checkpoint)
    with replacing(job["keras"]) as keras_file, replacing(job["tflite"]) as tflite_file:
        trainer.save(keras_file, tflite_file)
    return {}


def _find_rate(job: dict[str, Any], line: Line) -> dict[str, Any]:
    """Try learning rates."""
    lessons, network = _lessons(job), SmallCNN.from_dict(job["network"])
    set_threads(network, job["cores"])
    trainer = _trainer(job, lessons, network, job["cores"])
    phase = Plan.from_dict(job["plan"]).phases[0]
    batches = Batches(
        lessons.pixels, lessons.places, lessons.targets, lessons.classes, phase.batch_size,
        phase.augment, job["seed"],
    )  # fmt: skip

    def hear(done: int, total: int) -> None:
        line.tell({"event": "tried", "done": done, "total": total})

    return sweep_rates(trainer, phase, batches, workers=job["workers"], hear=hear).to_dict()


def _trainer(job: dict[str, Any], lessons: Lessons, network: SmallCNN, shards: int) -> Trainer:
    return Trainer(
        network, lessons.classes, job["seed"], shards, job["class_weight"], job["precision"]
    )


def _lessons(job: dict[str, Any]) -> Lessons:
    with np.load(job["lessons"], allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    pixels = map_pixels(Path(job["pixels"]), tuple(job["network"]["size"]))
    return Lessons(pixels, classes=job["classes"], **arrays)
