"""Train the fine-tuned network in the worker process, and accept or reject it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.reading.image_cache import CachedImages
from kindsight.evaluation import evaluate, to_probabilities
from kindsight.training.acceptance import is_clearly_better
from kindsight.training.common import class_targets
from kindsight.training.engine.callbacks import notify_interrupt, notify_monitor
from kindsight.training.engine.history import History
from kindsight.training.fine_tuning.images import TrainingImages
from kindsight.training.fine_tuning.job_settings import frozen_logits, make_job, write_arrays
from kindsight.training.fine_tuning.settings import DECISIONS_FILE, MONITOR, FittedFineTuned
from kindsight.training.fine_tuning.state import FineTuningState
from kindsight.training.fine_tuning_result import FineTuningResult
from kindsight.training.frozen.fitted import FittedFrozenHead
from kindsight.training.network.fit import KERAS_FILE, TFLITE_FILE, EpochRecorder
from kindsight.training.network.fitted import cross_temperatures

__all__ = ["ENDED", "StopNow", "keep_frozen", "train"]

ENDED = "ended by Ctrl-C"

Rows = NDArray[np.int64]


class StopNow(KeyboardInterrupt):
    """A second Ctrl-C, while the first one's result was being finished."""


def keep_frozen(state: FineTuningState, reason: str) -> FittedFrozenHead:
    """Return the frozen head with the reason why nothing was fine-tuned."""
    (state.folder / DECISIONS_FILE).unlink(missing_ok=True)
    description = "; ".join([*state.notes, f"not fine-tuned: {reason}"])
    nan = float("nan")
    result = FineTuningResult(False, description, state.timings, nan, nan)
    return replace(state.incumbent, fine_tuning=result)


def train(
    state: FineTuningState,
    stored: CachedImages,
    images: TrainingImages,
    flips: tuple[int, ...],
    limits: dict[str, Any],
    own: Any,
) -> FittedFrozenHead | FittedFineTuned:
    """Train the network; return it, or the frozen head where it is not clearly better.

    Parameters
    ----------
    state : FineTuningState
    stored : CachedImages
        All resized images; closed where the head is returned.
    images : TrainingImages
    flips : tuple of int
        Flips that preserve the class.
    limits : dict
        See :func:`.make_job`.
    own : tempfile.TemporaryDirectory, optional
        The state's folder, where it belongs to the result.
    """
    fitted = state.fitted
    files = state.folder / KERAS_FILE, state.folder / TFLITE_FILE
    targets = class_targets(fitted.dataset[state.rows], fitted.classes)
    # In Python no validation predictions are shown: the ensemble's frozen head may be refitted on
    # all images. The comparison uses the one that has not seen the validation images.
    ensemble = state.wide
    if own is not None:
        with state.timed("frozen head"):
            ensemble = state.incumbent.refit(np.concatenate([state.rows, state.validation]))
    job = make_job(state, targets, files, limits, resumable=own is None) | images.job
    with (
        state.timed("training"),
        write_arrays(state, job, images, targets, flips, ensemble) as whole,
    ):
        found, history = _run_job(state, whole)
        own_logits = np.load(whole["val_logits"], allow_pickle=False)
    network = FittedFineTuned(
        fitted.training,  # type: ignore[arg-type]  # what differs is overridden
        fitted.classes, fitted.dataset, stored, state.rows, *files, history, own=own,
    )  # fmt: skip
    if not len(history):
        network.clear_away()
        stored.close()
        return keep_frozen(state, "the time was over before its first epoch")
    if own is not None:
        logits = 0.5 * own_logits + 0.5 * frozen_logits(state) if found["ensemble"] else own_logits
        network.set_logits(state.validation, logits.astype(np.float32))
    state.notes.append(
        f"{images.description}, {found['epochs']} epochs at {found['rate']:,.0f} images a second, "
        f"learning rate {found['learning_rate']:g}"
    )
    state.notes.extend(_describe_prediction(found["flips"], found["ensemble"]))
    return _accept(state, network)


def _run_job(state: FineTuningState, job: dict[str, Any]) -> tuple[dict[str, Any], History]:
    """Run the worker's job; with a budget, Ctrl-C ends training with the best epoch so far."""
    notify_monitor(state.callback, MONITOR)
    recorder = EpochRecorder(state.callback, state.progress)
    try:
        found = state.keras.run_job(recorder, job="fine_tune", **job)
        return found, History(recorder.rows, MONITOR)
    except KeyboardInterrupt:
        if state.seconds is None or job["checkpoint"] is None or state.keras.interrupted_twice:
            raise
    notify_interrupt(state.callback)
    again = EpochRecorder(None, state.progress)
    try:
        found = state.keras.run_job(again, job="fine_tune", **{**job, "seconds": 0.0})
    except KeyboardInterrupt as second:
        raise StopNow from second
    state.notes.append(ENDED)
    return found, History(again.rows, MONITOR)


def _describe_prediction(flips: int, ensemble: bool) -> list[str]:
    found = [f"test-time augmentation over {flips} flips"] if flips > 1 else []
    return [*found, "ensemble with the frozen head"] if ensemble else found


def _accept(state: FineTuningState, network: FittedFineTuned) -> FittedFrozenHead | FittedFineTuned:
    """Return the network where it is clearly better on the validation images, else the head."""
    targets, classes = state.validation_targets(), state.fitted.classes
    with state.timed("evaluation"):
        calibrated = network.calibrated(state.validation, targets)
        assert isinstance(calibrated, FittedFineTuned)
        probabilities = calibrated.probabilities(state.validation), _frozen(state, targets)
        after, before = (evaluate(each, targets, classes) for each in probabilities)
        correct = [each.argmax(1) == targets for each in probabilities]
    accepted = is_clearly_better(after.log_loss, before.log_loss, *correct)
    description = "; ".join(state.notes)
    result = FineTuningResult(
        accepted, description, state.timings, before.accuracy, after.accuracy, network.history
    )
    if accepted:
        return replace(calibrated, fine_tuning=result, frozen=state.incumbent)
    network.clear_away()
    network.stored.close()
    reason = (
        f"the frozen head is used: fine-tuning reached {after.accuracy:.1%} validation accuracy "
        f"with a log loss of {after.log_loss:.3f}; the frozen head has {before.accuracy:.1%} and "
        f"{before.log_loss:.3f} ({description})"
    )
    return replace(state.incumbent, fine_tuning=replace(result, description=reason))


def _frozen(state: FineTuningState, targets: Rows) -> NDArray[np.float32]:
    """Return the frozen head's validation probabilities, calibrated as the network's are.

    Other calibration would by itself favour one of the two.
    """
    frozen, logits = state.incumbent, frozen_logits(state)
    digests = [frozen.dataset.digest[row] for row in state.validation]
    temperatures = cross_temperatures(logits, targets, digests, frozen.training.seed)
    return to_probabilities((logits / temperatures[:, None]).astype(np.float32), 1.0)
