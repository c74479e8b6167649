"""Fine-tune from a frozen head, with or without a time budget: the whole sequence on one page.

Flips that preserve the class; with a budget, a network from scratch and wider features; one
backbone to fine-tune; flips for test-time augmentation; the cut and its cached activations;
training; acceptance.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kindsight.cache.folder import Cache
from kindsight.dataset import ImageDataset
from kindsight.dataset.reading.image_cache import CachedImages, cache_images
from kindsight.errors import DatasetError
from kindsight.evaluation import to_probabilities
from kindsight.models.networks.fine_tuned import stages_of
from kindsight.models.networks.frozen_base import CutCandidate
from kindsight.models.runtime import InterpreterPool
from kindsight.models.steps.compute_dtype import choose_compute_dtype
from kindsight.models.worker.process import KerasProcess
from kindsight.training.activation_cache import CopyPlan
from kindsight.training.budget.from_scratch import FittedFromScratch, try_from_scratch
from kindsight.training.budget.plan import (
    MIN_TRAINING_SECONDS,
    CutChoice,
    choose_cut,
    choose_tta_flips,
    is_default,
    measure_seconds_per_image,
    seconds_left,
    worker_limits,
)
from kindsight.training.budget.wider import start_from_one_backbone, try_wider
from kindsight.training.common import Progress
from kindsight.training.engine.callbacks import TrainingCallback, notify_interrupt
from kindsight.training.engine.checkpoints import CHECKPOINT_FILE
from kindsight.training.fine_tuning.choices import choose_flips
from kindsight.training.fine_tuning.images import (
    AUGMENTATION,
    MAX_COPIES,
    TrainingImages,
    cached_activations,
    whole_images,
)
from kindsight.training.fine_tuning.state import MIN_VALIDATION_IMAGES, FineTuningState
from kindsight.training.fine_tuning.train import ENDED, FittedFineTuned, StopNow, keep_frozen, train
from kindsight.training.frozen.fitted import FittedFrozenHead
from kindsight.training.frozen.prepared import FrozenImages, prepare_frozen
from kindsight.training.frozen.settings import FrozenTrainer
from kindsight.training.protocols import FittedModel, FoldChoices

__all__ = ["fine_tune", "prepare_fine_tuning"]

# Fraction of the cache's limit, and of the free disk space, that activations may take.
ACTIVATIONS_DISK = 0.5
NO_TIME = "the budget leaves no time for it"
Flips = tuple[int, ...]
Fitted: TypeAlias = FittedFrozenHead | FittedFineTuned | FittedFromScratch


def fine_tune(state: FineTuningState, own: Any = None) -> Fitted:
    """Fine-tune a backbone from the head that was fitted on it.

    With a budget, the first Ctrl-C ends training with the best result so far.

    Parameters
    ----------
    state : FineTuningState
    own : tempfile.TemporaryDirectory, optional
        The state's folder, where it belongs to the result; then Ctrl-C is raised.

    Returns
    -------
    FittedFineTuned or FittedFromScratch or FittedFrozenHead
        The head where no network is clearly better.
    """
    if reason := _obstacle(state):
        return keep_frozen(state, reason)
    best = [state]
    try:
        return _run(state, best, own)
    except StopNow:
        raise
    except KeyboardInterrupt:
        # A trained checkpoint would be lost: the same command resumes from it instead.
        trained = (state.folder / CHECKPOINT_FILE).exists()
        if state.seconds is None or own is not None or state.keras.interrupted_twice or trained:
            raise
    notify_interrupt(state.callback)
    return keep_frozen(best[-1], ENDED)


def _run(state: FineTuningState, best: list[FineTuningState], own: Any) -> Fitted:
    """Run all steps; `best` receives the state that a Ctrl-C falls back to."""
    state, flips, rate = _choose_flips(state)
    small_rate = None
    if state.seconds is not None:
        first = state.fitted
        # One pass of the backbone stands for the network until that is chosen and measured.
        state = replace(state, seconds_per_image=1 / rate)
        best.append(state)
        if (found := try_from_scratch(state, flips, own)) is not None:
            return found
        with state.timed("wider features"):
            state = try_wider(state, flips, rate)
        # Only what was widened may be fine-tuned smaller, never a model that the user named.
        if state.fitted is not first and is_default(first.training):
            small_rate = rate
    best.append(state)
    state = start_from_one_backbone(state, small_rate)
    if reason := _obstacle(state):
        return keep_frozen(state, reason)
    stored = _store(state)
    try:
        state = _with_tta_flips(state, stored, len(flips))
        return _prepare_and_train(state, stored, flips, own)
    except BaseException:
        stored.close()
        raise


def _obstacle(state: FineTuningState) -> str:
    """Return why fine-tuning is impossible; empty where it is not."""
    count, left = len(state.validation), seconds_left(state)
    if count < MIN_VALIDATION_IMAGES:
        return (
            f"it needs at least {MIN_VALIDATION_IMAGES} validation images to measure whether it "
            f"helps, and there are {count}"
        )
    members = state.fitted.files.members or (state.fitted.files,)
    if state.fitted.training.fine_tune_mode == "light" and not stages_of(members[0].layout):
        return "the backbone has no stage to cut it after; use --fine-tune full"
    return NO_TIME if left is not None and left < MIN_TRAINING_SECONDS else ""


def _choose_flips(state: FineTuningState) -> tuple[FineTuningState, Flips, float]:
    """Return the flips that preserve the class, and the measured passes per second."""
    fitted = state.fitted
    pool = InterpreterPool(fitted.files.tflite, fitted.training.workers)

    def predict(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        return to_probabilities(fitted.head.layers.logits(vectors), fitted.temperature)

    with _store(state) as stored, state.timed("flips"):
        start = time.monotonic()
        flips, runs = choose_flips(
            stored, state.validation, state.validation_targets(), pool, predict, fitted.classes
        )
        seconds = max(1e-9, time.monotonic() - start) / runs
    # With TTA each run is of all copies.
    rate = max(1, sum(len(member.variants) for member in fitted.files.members)) / seconds
    return replace(state, head_seconds_per_image=seconds), flips, rate


def _store(state: FineTuningState) -> CachedImages:
    """Return the resized images, to be closed."""
    fitted = state.fitted
    stored = cache_images(
        fitted.dataset, fitted.training.spec(), Cache(fitted.training.cache),
        workers=fitted.training.workers, progress=state.stage_progress("images"),
    )  # fmt: skip
    if len(stored) != len(fitted.dataset):
        missing = len(fitted.dataset) - len(stored)
        stored.close()
        raise DatasetError(
            f"{missing} of {len(fitted.dataset)} images disappeared during training. Restore "
            "them, or run the command again."
        )
    return stored


def _with_tta_flips(state: FineTuningState, stored: CachedImages, flips: int) -> FineTuningState:
    """Measure the network's speed, and choose the number of TTA flips; one without a budget."""
    if state.seconds is None:
        return state
    state = replace(state, seconds_per_image=measure_seconds_per_image(state, stored))
    before = state.decisions().get("tta_flips")
    if type(before) is int and 1 <= before <= flips:  # a resumed run decides as before
        return replace(state, tta_flips=before)
    left = seconds_left(state)
    assert left is not None
    state = replace(state, tta_flips=choose_tta_flips(state, flips, left))
    state.decide(tta_flips=state.tta_flips)
    return state


def _prepare_and_train(
    state: FineTuningState, stored: CachedImages, flips: Flips, own: Any
) -> FittedFrozenHead | FittedFineTuned:
    with state.timed("activations"):
        images = _training_images(state, stored, flips)
    left = seconds_left(state)
    with closing(images.cached) if images and images.cached else nullcontext():
        if images is None or (left is not None and left < MIN_TRAINING_SECONDS):
            stored.close()
            return keep_frozen(state, NO_TIME)
        return train(state, stored, images, flips, worker_limits(left), own)


def _training_images(
    state: FineTuningState, stored: CachedImages, flips: Flips
) -> TrainingImages | None:
    """Return whole images, or activations at a cut; None where there is no time for these."""
    if state.fitted.training.fine_tune_mode == "full":
        return whole_images(state, stored, flips)
    start, left = time.monotonic(), seconds_left(state)
    before = _decided_cut(state)
    choice = before or _choose_cut(state, flips)
    if choice is None:
        return None
    deadline = None if left is None or before is not None else start + left / 2
    return cached_activations(
        state, stored, flips, choice.cut, choice.copies, choice.reason, deadline
    )


def _choose_cut(state: FineTuningState, flips: Flips) -> CutChoice | None:
    files, cache = state.fitted.files, Cache(state.fitted.training.cache)
    found = state.keras.run_job(
        lambda event: None, job="list_cuts", keras=str(files.keras.resolve()),
        layout=files.layout.to_dict(),
    )  # fmt: skip
    free = shutil.disk_usage(cache.folder()).free
    return choose_cut(
        [CutCandidate.from_dict(cut) for cut in found["cuts"]],
        (len(state.rows), len(state.validation)),
        max_copies=CopyPlan(flips, AUGMENTATION).most(MAX_COPIES),
        max_bytes=ACTIVATIONS_DISK * min(free, cache.limit),
        seconds=seconds_left(state),
        rate=1 / state.seconds_per_image if state.seconds_per_image else 0.0,
        compute_dtype=choose_compute_dtype(
            "auto", batch_norm=False, device=state.fitted.training.device
        ),
        tta_flips=state.tta_flips,
    )


def _decided_cut(state: FineTuningState) -> CutChoice | None:
    """Return the cut that an interrupted run had chosen; None where there is none."""
    stored = state.decisions()
    try:
        cut, copies = CutCandidate.from_dict(stored["cut"]), stored["copies"]
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    stages = stages_of(state.fitted.files.layout)
    if type(copies) is not int or not 0 <= copies <= MAX_COPIES or cut.stage not in stages:
        return None
    return CutChoice(cut, copies, str(stored.get("reason", "")))


def prepare_fine_tuning(
    training: FrozenTrainer,
    dataset: ImageDataset,
    progress: Progress | None = None,
    keras: KerasProcess | None = None,
) -> FineTunedImages:
    """Return a dataset's frozen features, ready to fit a head and to fine-tune from it."""
    return FineTunedImages(**vars(prepare_frozen(training, dataset, progress, keras)))


@dataclass(frozen=True)
class FineTunedImages(FrozenImages):
    """Frozen features on which a head is fitted, from which the backbone is then fine-tuned."""

    def for_fold(self, folds: int) -> FineTunedImages:
        """Return the features for a training that begins now, with its share of the budget.

        For 0 folds, the training began with the features and has all of the budget.
        """
        if not folds:
            return self
        budget, training = self.training.budget_seconds, self.training
        if budget is not None:
            training = replace(training, budget=budget / folds)
        return replace(self, training=training, begun=time.monotonic())

    def warm_up(self, keras: KerasProcess, rows: NDArray[np.int64], *, verify: str) -> None:
        """Start the worker process, which will train."""
        keras.start()

    def fit(
        self,
        classes: Sequence[str],
        rows: NDArray[np.int64],
        validation: NDArray[np.int64],
        *,
        keras: KerasProcess,
        folder: Path | None = None,
        progress: Progress | None = None,
        callback: TrainingCallback | None = None,
        chosen: FoldChoices | None = None,
    ) -> FittedModel:
        """Fit a head to the images of `rows`, then fine-tune; see :func:`fine_tune`."""
        head = self.fit_head(classes, rows, progress)
        budget, spent = self.training.budget_seconds, time.monotonic() - self.begun
        own = None
        if folder is None:
            own = tempfile.TemporaryDirectory(prefix="kindsight-")
            folder = Path(own.name)
        state = FineTuningState(
            head, rows, validation, keras, folder,
            seconds=None if budget is None else budget - spent, progress=progress,
            callback=callback, timings={"frozen head": spent}, predicts_afterwards=own is None,
        )  # fmt: skip
        return fine_tune(state, own)
