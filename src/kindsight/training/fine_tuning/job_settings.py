"""The worker's fine-tuning job: its settings and arrays."""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.models.steps.compute_dtype import choose_compute_dtype
from kindsight.threads import count_cores
from kindsight.training.acceptance import ENSEMBLE_MARGIN, MARGIN
from kindsight.training.common import balanced_weights
from kindsight.training.engine.checkpoints import CHECKPOINT_FILE, key_of
from kindsight.training.fine_tuning.images import TrainingImages
from kindsight.training.fine_tuning.learning_rate import LEARNING_RATES
from kindsight.training.fine_tuning.state import FineTuningState
from kindsight.training.frozen.fitted import FittedFrozenHead
from kindsight.training.network.fit import CHECKPOINT_SECONDS

__all__ = ["frozen_logits", "make_job", "write_arrays"]

FORMAT = 5
"""Raised whenever the same settings and images would give other weights."""

LAYER_DECAY = 0.9
# Epochs over which the weights' exponential moving average runs.
EMA_EPOCHS = 1.0

Rows = NDArray[np.int64]


def make_job(
    state: FineTuningState,
    targets: Rows,
    files: tuple[Path, Path],
    limits: dict[str, Any],
    *,
    resumable: bool,
) -> dict[str, Any]:
    """Return the job's settings, without its images and arrays.

    Parameters
    ----------
    state : FineTuningState
    targets : array
        int64: class indices of the training images.
    files : (keras, tflite) of pathlib.Path
        The files to be written.
    limits : dict
        What bounds the training, as :func:`.budget.plan.worker_limits` returns it.
    resumable : bool
        Whether to write checkpoints beside the files.
    """
    fitted = state.fitted
    weights = balanced_weights(targets, fitted.training.class_weight)
    checkpoint = files[0].with_name(CHECKPOINT_FILE)
    return {
        **limits,
        "keras_backbone": str(fitted.files.keras.resolve()),
        "layout": fitted.files.layout.to_dict(),
        "temperature": fitted.temperature,
        "classes": len(fitted.classes),
        "class_weight": None if weights is None else [float(weight) for weight in weights],
        "layer_decay": LAYER_DECAY,
        "ema_epochs": EMA_EPOCHS,
        "wide": state.wide is not None,
        "margin": MARGIN if state.wide is None else ENSEMBLE_MARGIN,
        "compute_dtype": choose_compute_dtype("auto", batch_norm=False),
        "rates": LEARNING_RATES,
        "seed": fitted.training.seed,
        "cores": count_cores(),
        "workers": fitted.training.workers or count_cores(),
        "checkpoint_seconds": CHECKPOINT_SECONDS,
        "checkpoint": str(checkpoint.resolve()) if resumable else None,
        "keras": str(files[0].resolve()),
        "tflite": str(files[1].resolve()),
    }


@contextmanager
def write_arrays(
    state: FineTuningState,
    job: dict[str, Any],
    images: TrainingImages,
    targets: Rows,
    flips: Sequence[int],
    ensemble: FittedFrozenHead | None,
) -> Iterator[dict[str, Any]]:
    """Write a job's arrays to a temporary folder; yield the whole job.

    Parameters
    ----------
    state : FineTuningState
    job : dict
        The other settings.
    images : TrainingImages
        The images' rows.
    targets : array
        int64: class indices of the training images.
    flips : sequence of int
        Flips that preserve the class.
    ensemble : FittedFrozenHead, optional
        The head that may form an ensemble with the network; the initial one if omitted.
    """
    fitted = state.fitted
    vectors = fitted.features.vectors[state.rows]
    arrays = {
        "rows": images.rows,
        "targets": targets,
        "val_rows": images.val_rows,
        "val_targets": state.validation_targets(),
        "val_flips": images.val_flips,
        "frozen_logits": frozen_logits(state),
        "mean": vectors.mean(0),
        # A feature that hardly varies must not be blown up.
        "spread": np.maximum(vectors.std(0), 1e-3 * (1 + np.abs(vectors.mean(0)))),
        **{f"head/{name}": value for name, value in fitted.head.layers.to_arrays().items()},
    }
    with tempfile.TemporaryDirectory(prefix="kindsight-") as folder:
        data, other = Path(folder, "data.npz"), None
        np.savez(data, allow_pickle=False, **arrays)
        if ensemble is not None:
            head = Path(folder, "head.npz")
            np.savez(head, allow_pickle=False, **ensemble.head.layers.to_arrays())
            other = {
                "keras": str(ensemble.files.keras.resolve()),
                "head": str(head),
                "temperature": ensemble.temperature,
            }
        yield {
            **job,
            "data": str(data),
            "val_logits": str(Path(folder, "val_logits.npy")),
            "ensemble": other,
            "key": _training_key(state, job, flips),
        }


def frozen_logits(state: FineTuningState) -> NDArray[np.float32]:
    """Return the frozen head's validation logits, divided by its temperature."""
    frozen = state.incumbent
    logits = frozen.head.layers.logits(frozen.features.vectors[state.validation])
    return np.asarray(logits / frozen.temperature, np.float32)


def _training_key(state: FineTuningState, job: dict[str, Any], flips: Sequence[int]) -> str:
    """Return a digest of all that determines the weights, without the machine and folders."""
    names = (
        "layout", "classes", "class_weight", "phases", "stage", "seed", "temperature",
        "compute_dtype", "copies",
    )  # fmt: skip
    dataset = state.fitted.dataset
    return key_of(
        {
            **{name: job[name] for name in names},
            "format": FORMAT,
            "backbone": state.fitted.files.digest,
            "flips": list(flips),
            "budget": state.fitted.training.budget,
            "versions": [importlib.metadata.version(name) for name in ("kindsight", "keras")],
            "images": [
                [(dataset.digest[row], dataset.label[row]) for row in rows.tolist()]
                for rows in (state.rows, state.validation)
            ],
        }
    )
