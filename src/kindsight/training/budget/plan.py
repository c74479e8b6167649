"""What fits into a time budget: every constant, cost and fraction of time in one module.

Costs are counted in passes of the default backbone over an image, by its measured speed. Nothing
here trains anything; :mod:`.run` carries the plan out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kindsight.dataset.reading.image_cache import CachedImages
from kindsight.errors import KindsightError
from kindsight.models.backbones.tta import FLIPS
from kindsight.models.backbones.weights import find_imagenet_weights
from kindsight.models.networks.frozen_base import CutCandidate
from kindsight.models.runtime import InterpreterPool
from kindsight.threads import map_ordered
from kindsight.training.activation_cache import activation_dtype
from kindsight.training.fine_tuning.state import FineTuningState
from kindsight.training.frozen.settings import FrozenTrainer

__all__ = [
    "DEFAULT",
    "MIN_TRAINING_SECONDS",
    "WIDE",
    "WIDE_SIZE",
    "CutChoice",
    "choose_cut",
    "choose_tta_flips",
    "choose_wide_flips",
    "fine_tunes_small",
    "fits_extra_copies",
    "flip_sets",
    "is_default",
    "is_default_backbone",
    "measure_seconds_per_image",
    "seconds_left",
    "worker_limits",
]

# The whole budget -----------------------------------------------------------------------------

# Seconds reserved after training: to write, convert and compare the files; and at least as many
# again for wider features.
FINISH_SECONDS, WIDE_FINISH_SECONDS = 25.0, 20.0
# Passes for comparing the files: 64 images, by Keras at a quarter of LiteRT's speed.
PARITY_PASSES = 64 * 4
# Passes of LiteRT that one evaluation of a whole image takes in the Keras worker.
KERAS_EVALUATION_COST = 2
# With fewer seconds left, training does not begin.
MIN_TRAINING_SECONDS = 10.0


def seconds_left(state: FineTuningState) -> float | None:
    """Return the seconds left for training, without those reserved for what follows it.

    None without a budget.
    """
    if state.seconds is None:
        return None
    wide = state.wide is not None or state.fitted.files.members
    per_image = max(state.head_seconds_per_image, state.wide_seconds_per_image)
    reserved = FINISH_SECONDS + _prediction_seconds(state, state.tta_flips)
    if wide and per_image:
        reserved += max(WIDE_FINISH_SECONDS, _predictions_after(state) * per_image)
    return state.seconds - reserved - (time.monotonic() - state.started)


def _prediction_seconds(state: FineTuningState, flips: int) -> float:
    """Return the seconds that the network's predictions after training take."""
    passes = _predictions_after(state)
    if state.fitted.training.fine_tune_mode == "full":  # there is no activation cache to read
        passes += KERAS_EVALUATION_COST * len(state.validation)
    return passes * flips * state.seconds_per_image


def _predictions_after(state: FineTuningState) -> int:
    """Return the predictions that follow training: parity, validation and test images."""
    if not state.predicts_afterwards:
        return 0
    return PARITY_PASSES + len(state.fitted.dataset) - len(state.rows)


def worker_limits(seconds: float | None) -> dict[str, Any]:
    """Return what bounds the training in the worker process.

    ``"seconds"`` in all; learning-rate trials take at most ``"trial_fraction"`` of them, and
    epochs are planned for ``"epoch_fraction"`` of the rest, at most ``"max_epochs"``.
    """
    return {
        "seconds": None if seconds is None else max(1.0, seconds),
        "trial_fraction": 0.5,
        "epoch_fraction": 0.85,  # the last epochs may be slower than the first
        "max_epochs": 30,
    }


# Wider frozen features ------------------------------------------------------------------------

DEFAULT = "efficientnet-lite0"
# The backbone joined to the default one, the image size it gets, and what a pass costs there. The
# default one stays at its own size, with middle crops: other sizes make other errors. Lite1 in its
# place, or as a third, brought nothing (docs/experiments.md).
WIDE, WIDE_SIZE, WIDE_COST = "efficientnet-lite2", 300, 2.9
# What the default backbone costs at that size.
DEFAULT_WIDE_COST = 1.8
# Crops averaged by the default backbone: the whole image and its middle.
MIDDLE_CROPS = 2
# Features of more images would take gigabytes, and gain less.
MAX_WIDE_IMAGES = 40_000
# Fractions of the time left that wider features may take, and each step of extra TTA variants.
WIDE_FRACTION, COPIES_FRACTION = 0.5, 0.25
# From this many images on, fine-tuning gains more than copies do: these must leave it the time of
# this many passes, those of the frozen layers over copies and about ten epochs of the layers above.
MANY_IMAGES, FINE_TUNING_PASSES = 5_000, 16
# Seconds to build a backbone, once on a machine.
BUILD_SECONDS = 8.0


def is_default(trainer: FrozenTrainer) -> bool:
    """Return whether the model, size and weights are the default ones."""
    return (trainer.model, trainer.size, trainer.weights) == (DEFAULT, None, "imagenet")


def is_default_backbone(trainer: FrozenTrainer) -> bool:
    """Return whether the backbone is the default one, at whatever size."""
    return (trainer.model, trainer.weights) == (DEFAULT, "imagenet")


def flip_sets(flips: tuple[int, ...], at_least: int = 1) -> list[tuple[int, ...]]:
    """Return the sets of flips that features may be averaged over, the smallest first.

    Parameters
    ----------
    flips : tuple of int
        Flips that preserve the class: indices of :data:`kindsight.models.backbones.tta.FLIPS`.
    at_least : int
        The smallest number of flips.
    """
    # An image turned by 180 degrees differs in both directions: it brings more than a mirror.
    pair = (0, 3) if 3 in flips else flips[:2]
    return [some for some in dict.fromkeys([(0,), pair, flips]) if len(some) >= at_least]


def choose_wide_flips(
    trainer: FrozenTrainer, flips: tuple[int, ...], images: int, rate: float, seconds: float
) -> tuple[int, ...] | None:
    """Return the flips for wider features, or None where they do not fit or do not apply.

    Parameters
    ----------
    trainer : FrozenTrainer
        The settings; a model, size or weights other than the default are left alone.
    flips : tuple of int
        Flips that preserve the class.
    images : int
        Number of images.
    rate : float
        Passes per second of the default backbone.
    seconds : float
        Seconds left.
    """
    if not is_default(trainer) or images > MAX_WIDE_IMAGES or not _has_weights(WIDE):
        return None
    # Two flips bring as much as four, so that more are taken only where the user set them.
    most = max(2, trainer.tta_flips)
    for some in reversed(flip_sets(flips, trainer.tta_flips)):
        crops = max(MIDDLE_CROPS, trainer.tta_crops) + trainer.tta_crops * WIDE_COST
        cost = len(some) * crops * images / rate + 2 * BUILD_SECONDS
        if len(some) <= most and cost <= WIDE_FRACTION * seconds:
            return some
    return None


def _has_weights(name: str) -> bool:
    try:
        find_imagenet_weights(name)
    except KindsightError:
        return False
    return True


def fits_extra_copies(copies: int, images: int, rate: float, seconds: float) -> bool:
    """Return whether there is time for `copies` more TTA variants of each image.

    With many images, they must not take the time of fine-tuning.
    """
    cost, fine_tuning = copies * images / rate, FINE_TUNING_PASSES * images / rate
    reserved = fine_tuning if images >= MANY_IMAGES else 0.0
    return cost <= min(COPIES_FRACTION * seconds, seconds - reserved)


# Fine-tuning ----------------------------------------------------------------------------------

# Cost of an epoch above the usual cut, in passes, and the epochs (learning-rate trials included)
# that must fit for fine-tuning at the large size.
EPOCH_COST, MIN_WIDE_EPOCHS = 1.2, 40


def fine_tunes_small(backbone: str, images: int, rate: float, seconds: float | None) -> bool:
    """Return whether to fine-tune the default backbone at its own size rather than a large one.

    Parameters
    ----------
    backbone : str
        The backbone that is best alone at the large size.
    images : int
        Number of training images.
    rate : float
        Passes per second of the default backbone at its own size.
    seconds : float, optional
        Seconds left; None without a budget.
    """
    if seconds is None:
        return False
    cost = WIDE_COST if backbone == WIDE else DEFAULT_WIDE_COST
    return backbone == DEFAULT or seconds < MIN_WIDE_EPOCHS * EPOCH_COST * cost * images / rate


# Fraction of the time left that test-time augmentation may add to the predictions.
TTA_FRACTION = 0.1
# Images for measuring the network's speed: half a second or more.
SPEED_IMAGES = 96


def choose_tta_flips(state: FineTuningState, flips: int, seconds: float) -> int:
    """Return over how many flips, 1 to `flips`, there is time to average predictions."""
    one = _prediction_seconds(state, 1)
    for number in range(min(flips, len(FLIPS)), 1, -1):
        if _prediction_seconds(state, number) - one <= TTA_FRACTION * seconds:
            return number
    return 1


def measure_seconds_per_image(state: FineTuningState, stored: CachedImages) -> float:
    """Return the seconds that the backbone to be fine-tuned takes for an image."""
    pool = InterpreterPool(state.fitted.files.tflite, state.fitted.training.workers)
    images = stored.pixels(np.arange(min(SPEED_IMAGES, len(stored))))
    list(map_ordered(pool.run, images[: pool.workers], pool.workers))  # the first runs are slower
    start = time.monotonic()
    list(map_ordered(pool.run, images, pool.workers))
    return max(1e-9, (time.monotonic() - start) / len(images))


# The cut --------------------------------------------------------------------------------------

# Augmented copies of each image without a budget.
COPIES = 3
# The cut without a budget, counted from the last stage; with one, at the earliest.
USUAL_CUT, EARLIEST_CUT = 2, 3
# Fraction of the time that computing copies may take.
COPIES_TIME = 0.25
# Fraction of the time that the images without copies may take at the last cut.
IMAGES_TIME = 0.5
# Cost of a training step, in LiteRT passes over the same layers: forward and backward.
STEP_COST = {"float32": 4.0, "bfloat16": 2.5}
# Epochs that must fit before an earlier cut is used, six of them to try learning rates: these
# bring more than the layers below do.
MIN_EPOCHS = 12


@dataclass(frozen=True)
class CutChoice:
    """Where a backbone is cut.

    Parameters
    ----------
    cut : CutCandidate
        The cut.
    copies : int
        Augmented copies cached for each training image, in addition to the image itself.
    reason : str
        What bounded the copies; empty where nothing did.
    """

    cut: CutCandidate
    copies: int
    reason: str


def choose_cut(
    cuts: Sequence[CutCandidate],
    images: tuple[int, int],
    *,
    max_copies: int,
    max_bytes: float,
    seconds: float | None = None,
    rate: float = 0.0,
    compute_dtype: str = "float32",
    tta_flips: int = 1,
) -> CutChoice | None:
    """Choose the cut and the number of cached copies; None where there is no time for any.

    With a budget it is the earliest cut that leaves time for three copies and
    :data:`MIN_EPOCHS` epochs, else the last one.

    Parameters
    ----------
    cuts : sequence of CutCandidate
        All cuts, the earliest first; at least one.
    images : (int, int)
        Numbers of training and of validation images.
    max_copies : int
        Copies that can differ.
    max_bytes : float
        Room on disk for all activations.
    seconds : float, optional
        For computing activations and training; unlimited if omitted.
    rate : float
        With `seconds`: images per second through the whole backbone.
    compute_dtype : str
        With `seconds`: the training's compute dtype.
    tta_flips : int
        Flips of each validation image, as far as there are copies.
    """
    trained, validated = images

    def activations(copies: int) -> int:
        return trained * (copies + 1) + validated * min(tta_flips, copies + 1)

    usual = cuts[max(0, len(cuts) - USUAL_CUT)]
    wanted = min(COPIES, max_copies)
    if seconds is None:
        copies = _copies_on_disk(usual, activations, wanted, max_bytes)
        return CutChoice(usual, copies, _reason(copies, wanted, "disk"))
    for cut in cuts[max(0, len(cuts) - EARLIEST_CUT) :]:
        on_disk = _copies_on_disk(cut, activations, max_copies, max_bytes)
        passes = COPIES_TIME * seconds * rate / max(1e-9, 1 - cut.work_above)
        copies = min(on_disk, _most_copies(activations, max_copies, passes))
        reason = _reason(copies, max_copies, "disk" if on_disk == copies else "time")
        computing = activations(copies) * (1 - cut.work_above) / rate
        epoch = trained * STEP_COST[compute_dtype] * cut.work_above / rate
        if (seconds - computing) / epoch >= MIN_EPOCHS and copies >= wanted:
            return CutChoice(cut, copies, reason)
    # The last cut, where the images without copies leave enough time.
    alone = (trained + validated) * (1 - cut.work_above) / rate
    return CutChoice(cut, copies, reason) if alone <= IMAGES_TIME * seconds else None


def _copies_on_disk(
    cut: CutCandidate, activations: Callable[[int], int], most: int, max_bytes: float
) -> int:
    return _most_copies(
        activations, most, max_bytes / activation_dtype(cut.features, cut.shape).itemsize
    )


def _most_copies(activations: Callable[[int], int], most: int, allowed: float) -> int:
    """Return how many copies of each image keep the activations within `allowed`."""
    return next((copies for copies in range(most, 0, -1) if activations(copies) <= allowed), 0)


def _reason(copies: int, most: int, bound: str) -> str:
    return "" if copies == most else f"as many as the {bound} allows"
