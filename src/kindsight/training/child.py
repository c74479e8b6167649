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
from kindsight.training.checkpoints import CheckpointWriter, read_checkpoint
from kindsight.training.loop import Lessons, Loop
from kindsight.training.plan import Plan

__all__ = ["MODULE", "main"]

MODULE = "kindsight.training.child"


def main() -> None:
    """Answer jobs until told to quit."""
    serve({"train": _train})


def _train(job: dict[str, Any], line: Line) -> dict[str, Any]:
    """Train a network, and write it in both forms."""
    lessons, network = _lessons(job), SmallCNN.from_dict(job["network"])
    path = None if job["checkpoint"] is None else Path(job["checkpoint"])
    checkpoint = None if path is None else read_checkpoint(path, job["key"])
    # Sums are rounded in the same way after a stop as before, whatever cores there are now.
    shards = job["cores"] if checkpoint is None else int(checkpoint.numbers["shards"])
    set_threads(network, job["cores"])
    trainer = Trainer(network, lessons.classes, job["seed"], shards, job["class_weight"])
    with CheckpointWriter(path, job["seconds"]) as writer:
        loop = Loop(
            Plan.from_dict(job["plan"]),
            lessons,
            trainer,
            seed=job["seed"],
            key=job["key"],
            writer=writer,
            tell=line.tell,
            stop=line.stop,
            workers=job["workers"],
            extra={"shards": shards},
        )
        loop.run(checkpoint)
    with replacing(job["keras"]) as keras_file, replacing(job["tflite"]) as tflite_file:
        trainer.save(keras_file, tflite_file)
    return {}


def _lessons(job: dict[str, Any]) -> Lessons:
    with np.load(job["lessons"], allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    pixels = map_pixels(Path(job["pixels"]), tuple(job["network"]["size"]))
    return Lessons(pixels, classes=job["classes"], **arrays)
