"""What the process with Keras is told of a fine-tuning: its phases, settings and images."""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.augment import Augment
from kindsight.models.steps.compute_dtype import choose_compute_dtype
from kindsight.threads import count_cores
from kindsight.training.common import balanced_weights
from kindsight.training.engine.checkpoints import CHECKPOINT_FILE, key_of
from kindsight.training.engine.plan import Phase
from kindsight.training.fine_tuning.cut import EPOCHS, MOST_EPOCHS
from kindsight.training.fine_tuning.learning_rate import LEARNING_RATES
from kindsight.training.fine_tuning.work import FineTuning
from kindsight.training.frozen.fitted import FittedFrozenHead
from kindsight.training.network.fit import CHECKPOINT_SECONDS

__all__ = ["frozen_logits", "full_phases", "light_phases", "make_data", "make_job"]

FORMAT = 4
"""Raised whenever the same settings and images would give other weights."""

LAYER_DECAY = 0.9
EMA_EPOCHS = 1.0
BATCH = 32
# Epochs of the upper part alone, before everything learns.
FIRST_EPOCHS = 2
# Of the fine-tuned network in the answer: first the one that is taken unless another is clearly
# surer. Alone, it takes half the time to ask. Beside wider features, for which a budget was given,
# accuracy counts: the mean is better as a rule (of the solar cells by a point), and the tuned
# network looks better than it is on the images that chose its rate and its epoch.
SHARES = (1.0, 0.5, 0.25)
SHARES_BESIDE = (0.5, 1.0, 0.25)
# By this factor must the log loss be lower for what is not the first choice; and beside wider
# features.
CLEARLY, CLEARLY_BESIDE = 0.99, 0.9

Rows = NDArray[np.int64]


def light_phases() -> list[Phase]:
    """Return the plan of a training above the cut."""
    return [_phase("upper part", EPOCHS)]


def full_phases(stages: Sequence[str], policy: Augment) -> list[Phase]:
    """Return the plan of a training of all layers, the upper part of them first."""
    every = _phase("all layers", EPOCHS, augment=policy)
    if not stages:
        return [every]
    stage = stages[-2:][0]
    return [_phase("upper part", FIRST_EPOCHS, augment=policy, freeze=stage), every]


def _phase(name: str, epochs: int, **more: Any) -> Phase:
    # Without patience: the small rates at a cosine's end bring what the epochs before did not yet.
    return Phase(
        name, epochs, BATCH, "adamw", LEARNING_RATES[0], schedule="cosine", warmup=1.0, **more,
    )  # fmt: skip


def make_job(
    work: FineTuning, targets: Rows, files: tuple[Path, Path], *, kept: bool
) -> dict[str, Any]:
    """Return what the job is told besides its images.

    Parameters
    ----------
    work : FineTuning
    targets : array
        int64: classes of the training images.
    files : (keras, tflite) of pathlib.Path
        To be written; where `kept`, the checkpoints are beside them.
    kept : bool
        Whether the training is to go on after a stop.
    """
    fitted, seconds = work.fitted, work.left()
    weights = balanced_weights(targets, fitted.training.class_weight)
    checkpoint = files[0].with_name(CHECKPOINT_FILE)
    return {
        "keras_backbone": str(fitted.files.keras.resolve()),
        "layout": fitted.files.layout.to_dict(),
        "temperature": fitted.temperature,
        "classes": len(fitted.classes),
        "class_weight": None if weights is None else [float(weight) for weight in weights],
        "layer_decay": LAYER_DECAY,
        "ema_epochs": EMA_EPOCHS,
        "shares": SHARES if work.before is None else SHARES_BESIDE,
        "wide": work.before is not None,
        "clearly": CLEARLY if work.before is None else CLEARLY_BESIDE,
        "compute_dtype": choose_compute_dtype("auto", batch_norm=False),
        "seconds": None if seconds is None else max(1.0, seconds),
        "rates": LEARNING_RATES,
        "most_epochs": MOST_EPOCHS,
        "seed": fitted.training.seed,
        "cores": count_cores(),
        "workers": fitted.training.workers or count_cores(),
        "checkpoint_seconds": CHECKPOINT_SECONDS,
        "checkpoint": str(checkpoint.resolve()) if kept else None,
        "keras": str(files[0].resolve()),
        "tflite": str(files[1].resolve()),
    }


@contextmanager
def make_data(
    work: FineTuning,
    job: dict[str, Any],
    learned: tuple[Rows, Rows],
    judged: tuple[Rows, Rows, Rows],
    flips: Sequence[int],
    beside: FittedFrozenHead | None,
) -> Iterator[dict[str, Any]]:
    """Write the arrays of a job to a temporary folder; give all that the job is told.

    Parameters
    ----------
    work : FineTuning
    job : dict
        What else it is told.
    learned : (places, targets) of int64 array
        Of the training images.
    judged : (places, targets, places of flipped views) of int64 array
        Of the validation images.
    flips : sequence of int
        What the views are.
    beside : FittedFrozenHead, optional
        What may answer together with the network; the frozen head that it begins as if omitted.
    """
    fitted = work.fitted
    vectors = fitted.features.vectors[work.rows]
    arrays = {
        "rows": learned[0],
        "targets": learned[1],
        "val_rows": judged[0],
        "val_targets": judged[1],
        "val_views": judged[2],
        "before": frozen_logits(work),
        "mean": vectors.mean(0),
        # A number that hardly varies must not be blown up.
        "spread": np.maximum(vectors.std(0), 1e-3 * (1 + np.abs(vectors.mean(0)))),
        **{f"head/{name}": value for name, value in fitted.head.layers.to_arrays().items()},
    }
    with tempfile.TemporaryDirectory(prefix="kindsight-") as folder:
        data, other = Path(folder, "data.npz"), None
        np.savez(data, allow_pickle=False, **arrays)
        if beside is not None:
            head = Path(folder, "head.npz")
            np.savez(head, allow_pickle=False, **beside.head.layers.to_arrays())
            other = {
                "keras": str(beside.files.keras.resolve()),
                "head": str(head),
                "temperature": beside.temperature,
            }
        key = _key(work, job, flips)
        answers = str(Path(folder, "answers.npy"))
        more = {"data": str(data), "val_logits": answers, "beside": other, "key": key}
        yield {**job, **more}


def frozen_logits(work: FineTuning) -> NDArray[np.float32]:
    """Return the frozen head's logits of the validation images, divided by its temperature."""
    frozen = work.frozen
    logits = frozen.head.layers.logits(frozen.features.vectors[work.validation])
    return np.asarray(logits / frozen.temperature, np.float32)


def _key(work: FineTuning, job: dict[str, Any], flips: Sequence[int]) -> str:
    """Return what tells one training from all others, whatever machine and folders it has."""
    names = (
        "layout",
        "classes",
        "class_weight",
        "phases",
        "stage",
        "seed",
        "temperature",
        "compute_dtype",
    )
    dataset = work.fitted.dataset
    return key_of(
        {
            **{name: job[name] for name in names},
            "format": FORMAT,
            "compute_dtype": job["compute_dtype"],
            "backbone": work.fitted.files.digest,
            "flips": list(flips),
            "budget": work.fitted.training.budget,
            "view count": job["view_count"],
            "versions": [importlib.metadata.version(name) for name in ("kindsight", "keras")],
            "images": [
                [(dataset.digest[row], dataset.label[row]) for row in part.tolist()]
                for part in (work.rows, work.validation)
            ],
        }
    )
