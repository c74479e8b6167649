"""Train the fine-tuned network in the worker process, and accept or reject it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.reading.image_cache import CachedImages
from kindsight.errors import DivergedError
from kindsight.evaluation import Evaluation, distinct_images, evaluate, to_probabilities
from kindsight.models.steps.compute_dtype import choose_compute_dtype
from kindsight.threads import count_cores
from kindsight.training.common import balanced_weights, class_targets
from kindsight.training.engine.callbacks import notify_interrupt, notify_monitor
from kindsight.training.engine.checkpoints import CHECKPOINT_FILE
from kindsight.training.engine.history import History
from kindsight.training.fine_tuning.choices import LEARNING_RATES
from kindsight.training.fine_tuning.images import TrainingImages
from kindsight.training.fine_tuning.state import DECISIONS_FILE, MONITOR, FineTuningState
from kindsight.training.frozen.fitted import FittedFrozenHead
from kindsight.training.held_out import ENSEMBLE_MARGIN, MARGIN, is_clearly_better
from kindsight.training.network.fit import (
    CHECKPOINT_SECONDS,
    KERAS_FILE,
    TFLITE_FILE,
    EpochRecorder,
    training_key,
)
from kindsight.training.network.fitted import CALIBRATED_BY, FittedNetwork, calibrate_validation
from kindsight.training.protocols import FineTuningResult, ReportSections, describe_seconds

__all__ = ["ENDED", "FittedFineTuned", "StopNow", "compare", "keep_frozen", "train"]

ENDED = "ended by Ctrl-C"
Rows = NDArray[np.int64]

FORMAT = 5
"""Raised whenever the same settings and images would give other weights."""

STATISTICS_IMAGES = 20_000
"""Images from which on the features' statistics are those of every second, third, ... one."""

LAYER_DECAY = 0.9
# Epochs over which the weights' exponential moving average runs.
EMA_EPOCHS = 1.0


class StopNow(KeyboardInterrupt):
    """A second Ctrl-C, while the first one's result was being finished."""


@dataclass(frozen=True)
class FittedFineTuned(FittedNetwork):
    """A fine-tuned backbone with its head.

    Parameters
    ----------
    frozen : FittedFrozenHead
        The frozen head that it replaced.
    """

    frozen: Any = None

    def words(self) -> str:
        """Describe the network in a line."""
        assert self.fine_tuning is not None
        return f"{self.training.model}, {self.fine_tuning.description}"

    def _final_weights(self) -> str:
        return "best"  # the settings are the frozen head's, which have no choice

    def describe(self) -> dict[str, str]:
        """Return the rows of the summary: how the input size was chosen, and the network."""
        return {**self.frozen.input_row("input"), **super().describe()}

    def _facts(self) -> dict[str, Any]:
        head = asdict(self.frozen.head.chosen)
        return {**self._epochs(), "fine_tuning": self.words(), "head": head}

    def report_sections(self) -> ReportSections:
        """Return how the network was fine-tuned, and from which head."""
        result = self.fine_tuning
        frozen: ReportSections = self.frozen.report_sections()
        assert result is not None
        details = {
            **frozen.details,
            "Backbone": f"{self.frozen.training.describe_backbone()}, fine-tuned",
            "Fine-tuning": f"{result.description}; weights of the best epoch, "
            f"{self.history.best_epoch}",
            "Gain": f"validation accuracy {result.accuracy_after:.1%}, with the frozen head "
            f"{result.accuracy_before:.1%}",
            "Time": describe_seconds(result.seconds),
        }
        source = CALIBRATED_BY if self.folds else ""
        return replace(frozen, details=details, temperature_source=source)

    def clear_away(self) -> None:
        """Delete the files for resuming: the bundle has everything else."""
        super().clear_away()
        self.keras.with_name(DECISIONS_FILE).unlink(missing_ok=True)


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
        try:
            found, history = _run_job(state, whole)
        except DivergedError:
            stored.close()
            return keep_frozen(state, "its loss became NaN or infinite in the first epoch")
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


@dataclass(frozen=True)
class Comparison:
    """A network, where there is one, and the frozen head on the validation images.

    `before` is of the head, `after` of the network.
    """

    before: Evaluation
    after: Evaluation | None
    accepted: bool


def compare(state: FineTuningState, network: FittedNetwork | None = None) -> Comparison:
    """Return the metrics of the frozen head and of a calibrated network that may replace it."""
    targets, classes = state.validation_targets(), state.fitted.classes
    digests = state.fitted.dataset[state.validation].digest
    counted = distinct_images(digests, targets)

    def judge(probabilities: NDArray[np.float32]) -> tuple[Evaluation, NDArray[np.bool_]]:
        found = evaluate(probabilities, targets, classes, digests, resamples=0)
        return found, (probabilities.argmax(1) == targets)[counted]

    before, known = judge(_frozen(state, targets))
    if network is None:
        return Comparison(before, None, accepted=False)
    after, correct = judge(network.probabilities(state.validation))
    accepted = is_clearly_better(after.log_loss, before.log_loss, correct, known)
    return Comparison(before, after, accepted)


def _accept(state: FineTuningState, network: FittedFineTuned) -> FittedFrozenHead | FittedFineTuned:
    """Return the network where it is clearly better on the validation images, else the head."""
    with state.timed("evaluation"):
        calibrated = network.calibrated(state.validation, state.validation_targets())
        assert isinstance(calibrated, FittedFineTuned)
        found = compare(state, calibrated)
    before, after, accepted = found.before, found.after, found.accepted
    assert after is not None
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
    found = calibrate_validation(logits, targets, digests, frozen.training.seed)
    return to_probabilities((logits / found.cross_fitted[:, None]).astype(np.float32), 1.0)


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
        Whether to write checkpoints next to the files.
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
        "compute_dtype": choose_compute_dtype(
            "auto", batch_norm=False, device=fitted.training.device
        ),
        "rates": LEARNING_RATES,
        "final_weights": "best",
        "monitor": MONITOR,
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
    vectors = fitted.features.vectors[state.rows[:: 1 + len(state.rows) // STATISTICS_IMAGES]]
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
    logits = frozen.features.vectors.take(state.validation).map(frozen.head.layers.logits)
    return np.asarray(logits / frozen.temperature, np.float32)


def _training_key(state: FineTuningState, job: dict[str, Any], flips: Sequence[int]) -> str:
    """Return a digest of all that determines the weights, without the machine and folders."""
    names = (
        "layout", "classes", "class_weight", "phases", "stage", "seed", "temperature",
        "compute_dtype", "copies",
    )  # fmt: skip
    facts = {
        **{name: job[name] for name in names},
        "format": FORMAT,
        "backbone": state.fitted.files.digest,
        "flips": list(flips),
        "budget": state.fitted.training.budget,
    }
    return training_key(facts, state.fitted.dataset, (state.rows, state.validation))
