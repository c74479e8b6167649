"""What fine-tuning trains on: whole images, or cached activations of augmented copies at a cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.augment import Augment
from kindsight.cache.folder import Cache
from kindsight.dataset.reading.image_cache import CachedImages
from kindsight.models.networks.fine_tuned import stages_of
from kindsight.models.networks.frozen_base import CutCandidate, ensure_frozen_base
from kindsight.training.activation_cache import (
    ActivationFile,
    CachedActivations,
    CopyPlan,
    bytes_per_copy,
    cache_activations,
)
from kindsight.training.engine.plan import Phase
from kindsight.training.fine_tuning.choices import LEARNING_RATES, describe_flips
from kindsight.training.fine_tuning.state import FineTuningState

__all__ = [
    "AUGMENTATION", "MAX_COPIES", "TrainingImages", "cached_activations", "full_phases",
    "whole_images",
]  # fmt: skip

MAX_COPIES = 11
"""Maximum number of cached copies of an image, in addition to itself."""

AUGMENTATION = Augment(
    shift=0.05, scale=(0.93, 1.07), brightness=(0.9, 1.1), contrast=(0.9, 1.1), fill="reflect"
)
"""Augmentation of copies besides flips: nothing that changes a class."""

# Epochs without a budget; and of the layers above the cut alone, before all layers are trained.
EPOCHS, FIRST_EPOCHS = 10, 2
BATCH_SIZE = 32

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class TrainingImages:
    """Images or activations on disk, by their row indices in a file.

    Parameters
    ----------
    rows, val_rows : array
        int64 (images,) or (images, copies): training and validation images.
    val_flips : array
        int64 (images, flips): the validation images in each of the job's ``"flips"``.
    job : dict
        The settings of the worker's job that depend on them.
    description : str
        For the summary.
    cached : CachedActivations, optional
        To be closed after training.
    """

    rows: Rows
    val_rows: Rows
    val_flips: Rows
    job: dict[str, Any]
    description: str
    cached: CachedActivations | None = None


def whole_images(
    state: FineTuningState, stored: CachedImages, flips: tuple[int, ...]
) -> TrainingImages:
    """Return the images themselves, augmented anew in each epoch."""
    tta_flips = flips[: state.tta_flips]
    policy = replace(AUGMENTATION, horizontal_flip=1 in flips, vertical_flip=2 in flips)
    phases = full_phases(stages_of(state.fitted.files.layout), policy)
    job = {
        "phases": [phase.to_dict() for phase in phases],
        "stage": None, "records": str(stored.file.resolve()), "base_features": 0, "shape": [],
        "size": list(state.fitted.training.spec().size), "copies": 0, "flips": list(tta_flips),
    }  # fmt: skip
    validation = stored.offsets[state.validation]
    return TrainingImages(
        stored.offsets[state.rows],
        validation,
        np.repeat(validation[:, None], len(tta_flips), 1),
        job,
        f"all layers, {describe_flips(flips)}",
    )


def cached_activations(
    state: FineTuningState,
    stored: CachedImages,
    flips: tuple[int, ...],
    cut: CutCandidate,
    copies: int,
    reason: str,
    deadline: float | None,
) -> TrainingImages:
    """Compute or reuse the activations of augmented copies at a cut.

    Parameters
    ----------
    state, stored
    flips : tuple of int
        Flips that preserve the class.
    cut : CutCandidate
        The cut.
    copies : int
        Copies of each training image, in addition to the image itself.
    reason : str
        What bounded the copies, for the description.
    deadline : float, optional
        ``time.monotonic()`` after which no further round of copies begins.
    """
    trainer = state.fitted.training
    base = ensure_frozen_base(state.fitted.files, cut.stage, state.keras)
    tta_flips = flips[: state.tta_flips][: copies + 1]
    counts = np.full(len(stored), -1, np.int64)
    counts[state.rows], counts[state.validation] = copies, len(tta_flips) - 1
    cached = cache_activations(
        ActivationFile(stored, base, trainer.spec(), trainer.seed, Cache(trainer.cache)),
        CopyPlan(flips, AUGMENTATION), counts, workers=trainer.workers,
        progress=state.stage_progress("activations"), deadline=deadline,
    )  # fmt: skip
    copies = cached.rows.shape[1] - 1  # fewer where the deadline came first
    tta_flips = tta_flips[: copies + 1]
    state.decide(copies=copies, cut=cut.to_dict(), reason=reason)
    job = {
        "phases": [phase.to_dict() for phase in light_phases()],
        "stage": cut.stage, "records": str(cached.file.resolve()), "base_features": base.features,
        "shape": list(base.shape), "size": list(trainer.spec().size), "copies": copies,
        "flips": list(tta_flips),
    }  # fmt: skip
    megabytes = bytes_per_copy(base) * len(state.rows) * (copies + 1) / 1e6
    description = (
        f"cut after {cut.stage}, {copies} augmented {'copy' if copies == 1 else 'copies'} per image"
        f"{f' ({reason})' if reason else ''}, {describe_flips(flips)}, {megabytes:,.0f} MB"
    )
    val_flips = cached.rows[state.validation, : len(tta_flips)]
    return TrainingImages(
        cached.rows[state.rows], val_flips[:, 0], val_flips, job, description, cached
    )


def light_phases() -> list[Phase]:
    """Return the phases of a training above the cut."""
    return [_phase("upper layers", EPOCHS)]


def full_phases(stages: Sequence[str], policy: Augment) -> list[Phase]:
    """Return the phases of a training of all layers: those above the usual cut first."""
    every = _phase("all layers", EPOCHS, augment=policy)
    if not stages:
        return [every]
    first = _phase("upper layers", FIRST_EPOCHS, augment=policy, freeze=stages[-2:][0])
    return [first, every]


def _phase(name: str, epochs: int, **more: Any) -> Phase:
    # No patience: the small learning rates at the end of a cosine schedule bring the most.
    return Phase(
        name, epochs, BATCH_SIZE, "adamw", LEARNING_RATES[0], schedule="cosine", warmup=1.0, **more,
    )  # fmt: skip
