"""Fine-tuning: from a fitted head on a frozen backbone to a network whose upper part has learned.

The network begins as what the frozen head answers, exactly. It is kept, alone or together with the
frozen head, only where that is better than the head on the validation part.
"""

from __future__ import annotations

import time
from contextlib import closing, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.cache.folder import Cache
from kindsight.dataset.reading.image_cache import CachedImages, cache_images
from kindsight.errors import DatasetError
from kindsight.evaluation import evaluate, to_probabilities
from kindsight.models.networks.fine_tuned import stages_of
from kindsight.models.runtime import InterpreterPool
from kindsight.training.budget.widen import is_default, look_again, on_one_backbone, widen
from kindsight.training.common import class_targets
from kindsight.training.engine.callbacks import notify_interrupt, notify_monitor
from kindsight.training.engine.checkpoints import CHECKPOINT_FILE
from kindsight.training.engine.history import History
from kindsight.training.fine_tuning.images import TuneImages, pixels_to_tune, views_to_tune
from kindsight.training.fine_tuning.plan import frozen_logits, make_data, make_job
from kindsight.training.fine_tuning.settings import (
    DECISIONS_FILE,
    LEAST_VALIDATION,
    MONITOR,
    FittedFineTuned,
    is_better,
)
from kindsight.training.fine_tuning.tta import allow_looks, choose_flips
from kindsight.training.fine_tuning.work import WIDER, FineTuning
from kindsight.training.fine_tuning_result import FineTuningResult
from kindsight.training.frozen.fitted import FittedFrozenHead
from kindsight.training.network.fit import KERAS_FILE, TFLITE_FILE, EpochRecorder
from kindsight.training.network.fitted import cross_temperatures

__all__ = ["FineTuning", "fine_tune"]

# Seconds left that are too few to begin.
LEAST_SECONDS = 10.0
NO_TIME, ENDED = "the budget leaves no time for it", "ended by Ctrl-C"

Rows = NDArray[np.int64]


class StopNow(KeyboardInterrupt):
    """A second Ctrl-C, while what the first one asked for was being done."""


def fine_tune(work: FineTuning, own: Any = None) -> FittedFrozenHead | FittedFineTuned:
    """Fine-tune a backbone from the head that was fitted on it.

    With a budget, wider features are tried before (:mod:`.widening`), and a Ctrl-C ends it with the
    best so far.

    Parameters
    ----------
    work : FineTuning
    own : tempfile.TemporaryDirectory, optional
        The work's folder, if it is to go with the result; then a Ctrl-C ends all.

    Returns
    -------
    FittedFineTuned or FittedFrozenHead
        The latter where it is not better; both have ``fine_tuning`` what was done.
    """
    if why := _impossible(work):
        return _unchanged(work, why)
    best = [work]
    try:
        return _fine_tune(work, best, own)
    except StopNow:
        raise
    except KeyboardInterrupt:
        # What was learned before would be lost: the same command ends with it instead.
        learned = (work.folder / CHECKPOINT_FILE).exists()
        if work.seconds is None or own is not None or work.keras.interrupted_twice or learned:
            raise
    notify_interrupt(work.callback)
    return _unchanged(best[-1], ENDED)


def _fine_tune(
    work: FineTuning, best: list[FineTuning], own: Any
) -> FittedFrozenHead | FittedFineTuned:
    """Prepare and train; `best` is told of what a Ctrl-C is to be answered with."""
    work, flips, small_rate = _widened(work)
    best.append(work)
    work = on_one_backbone(work, small_rate)
    if why := _impossible(work):
        return _unchanged(work, why)
    stored = _stored(work)
    try:
        return _train(allow_looks(work, stored, len(flips)), stored, flips, own)
    except BaseException:
        stored.close()
        raise


def _impossible(work: FineTuning) -> str:
    """Say why there is nothing to be tuned; empty where there is."""
    count, left = len(work.validation), work.left()
    if count < LEAST_VALIDATION:
        return (
            f"that needs {LEAST_VALIDATION} validation images or more to tell whether it helps, "
            f"and there are {count}"
        )
    parts = work.fitted.files.members or (work.fitted.files,)
    if work.fitted.training.tunes == "light" and not stages_of(parts[0].layout):
        return "the backbone has no stage to cut it after; full needs none"
    return NO_TIME if left is not None and left < LEAST_SECONDS else ""


def _unchanged(work: FineTuning, why: str) -> FittedFrozenHead:
    """Keep the frozen head untried."""
    (work.folder / DECISIONS_FILE).unlink(missing_ok=True)
    nan = float("nan")
    words = "; ".join([*work.said, f"not fine-tuned: {why}"])
    return replace(work.frozen, fine_tuning=FineTuningResult(False, words, work.took, nan, nan))


def _widened(work: FineTuning) -> tuple[FineTuning, tuple[int, ...], float | None]:
    """Choose the flips and, with a budget, wider features.

    The last that is returned is :func:`.on_one_backbone`'s ``small_rate``.
    """
    fitted, targets = work.fitted, work.targets()
    pool = InterpreterPool(fitted.files.tflite, fitted.training.workers)

    def answer(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        return to_probabilities(fitted.head.layers.logits(vectors), fitted.temperature)

    with _stored(work) as stored, work.timed("flips"):
        began = time.monotonic()
        flips, seen = choose_flips(stored, work.validation, targets, pool, answer, fitted.classes)
        each = max(1e-9, time.monotonic() - began) / seen
    # Of one view: where the head is of several, each of these was run over all of them.
    rate = max(1, sum(len(part.variants) for part in fitted.files.members)) / each
    work = replace(work, head_seconds=each)
    small_rate = None
    if work.seconds is not None:
        # Until what is tuned is known, and its pace measured.
        work = replace(work, look_seconds=1 / rate)
        with work.timed(WIDER):
            wider = widen(work, flips, rate)
            work = look_again(work, flips, rate) if wider is work else wider
        # What was chosen by name is tuned as it is; only what was widened may be tuned smaller.
        if work.fitted is not fitted and is_default(fitted.training):
            small_rate = rate
    return work, flips, small_rate


def _stored(work: FineTuning) -> CachedImages:
    """Return the resized images, to be closed."""
    fitted = work.fitted
    stored = cache_images(
        fitted.dataset, fitted.training.spec(), Cache(fitted.training.cache),
        workers=fitted.training.workers, progress=work.step("images"),
    )  # fmt: skip
    if len(stored) != len(fitted.dataset):
        stored.close()
        raise DatasetError(
            "Images must stay where they are while they are learned from. Received: "
            f"{len(stored)} of {len(fitted.dataset)} that can still be read."
        )
    return stored


def _train(
    work: FineTuning, stored: CachedImages, flips: tuple[int, ...], own: Any
) -> FittedFrozenHead | FittedFineTuned:
    """Train on the stored images, or on views of them."""
    with work.timed("views"):
        full = work.fitted.training.tunes == "full"
        images = (pixels_to_tune if full else views_to_tune)(work, stored, flips)
    left = work.left()
    with closing(images.views) if images and images.views else nullcontext():
        if images is None or (left is not None and left < LEAST_SECONDS):
            stored.close()
            return _unchanged(work, NO_TIME)
        return _learn(work, stored, images, flips, own)


def _learn(
    work: FineTuning,
    stored: CachedImages,
    images: TuneImages,
    flips: tuple[int, ...],
    own: Any,
) -> FittedFrozenHead | FittedFineTuned:
    """Learn from images or views, and judge what came of it."""
    fitted, targets = work.fitted, work.targets()
    files = work.folder / KERAS_FILE, work.folder / TFLITE_FILE
    learned = class_targets(fitted.dataset[work.rows], fitted.classes)
    parts = (images.places, learned), (images.val_places, targets, images.val_views)
    # Where nobody is shown how the validation images are answered, the frozen head that answers
    # together with the network may have learned from them; what is judged has not.
    beside = work.before
    if own is not None:
        with work.timed("frozen head"):
            beside = work.frozen.refitted(np.concatenate([work.rows, work.validation]))
    job = make_job(work, learned, files, kept=own is None) | images.job
    with work.timed("training"), make_data(work, job, *parts, flips, beside) as told:
        found, history = _follow(work, told)
        tuned = np.load(told["val_logits"], allow_pickle=False)
    network = FittedFineTuned(
        fitted.training,  # type: ignore[arg-type]  # what differs is overridden
        fitted.classes, fitted.dataset, stored, work.rows, *files, history, own=own,
    )  # fmt: skip
    if not len(history):
        network.clear_away()
        stored.close()
        return _unchanged(work, "the time was over before its first epoch")
    if own is not None:
        share = np.float32(found["share"])
        network.answers(work.validation, share * tuned + (1 - share) * frozen_logits(work))
    work.said.append(
        f"{images.said}, {found['epochs']} epochs of {found['rate']:,.0f} images a second at a "
        f"learning rate of {found['learning_rate']:g}"
    )
    if answers := _answers_in_words(found["views"], found["share"]):
        work.said.append(answers)
    return _judged(work, network, targets)


def _follow(work: FineTuning, told: dict[str, Any]) -> tuple[dict[str, Any], History]:
    """Have the training done; with a budget, a Ctrl-C ends it with the best so far."""
    notify_monitor(work.callback, MONITOR)
    hearing = EpochRecorder(work.callback, work.progress)
    try:
        return work.keras.run_job(hearing, job="tune", **told), History(hearing.rows, MONITOR)
    except KeyboardInterrupt:
        if work.seconds is None or told["checkpoint"] is None or work.keras.interrupted_twice:
            raise
    notify_interrupt(work.callback)
    again = EpochRecorder(None, work.progress)
    try:
        found = work.keras.run_job(again, job="tune", **{**told, "seconds": 0.0})
    except KeyboardInterrupt as wish:
        raise StopNow from wish
    work.said.append(ENDED)
    return found, History(again.rows, MONITOR)


def _answers_in_words(views: int, share: float) -> str:
    """Say how the network answers, where it is not by one look and alone."""
    if views == 1:
        return "it answers together with the frozen head" if share < 1 else ""
    looks = f"it answers by the mean of {views} looks, at the image as it is and flipped"
    return f"{looks}, together with the frozen head" if share < 1 else looks


def _frozen_answers(work: FineTuning, targets: Rows) -> NDArray[np.float32]:
    """Return what the frozen head answers, calibrated as the network is.

    Otherwise one of the two would have the better of it by that alone.
    """
    frozen, rows, logits = work.frozen, work.validation, frozen_logits(work)
    digests = [frozen.dataset.digest[row] for row in rows]
    crosswise = cross_temperatures(logits, targets, digests, frozen.training.seed)
    scaled: NDArray[np.float32] = (logits / crosswise[:, None]).astype(np.float32)
    return to_probabilities(scaled, 1.0)


def _judged(
    work: FineTuning, network: FittedFineTuned, targets: Rows
) -> FittedFrozenHead | FittedFineTuned:
    """Keep the better of the two."""
    with work.timed("judging"):
        calibrated = network.calibrated(work.validation, targets)
        assert isinstance(calibrated, FittedFineTuned)
        answers = calibrated.probabilities(work.validation), _frozen_answers(work, targets)
        ours, before = (evaluate(each, targets, work.fitted.classes) for each in answers)
        right, right_before = (each.argmax(1) == targets for each in answers)
    better, said = is_better(ours, before, right, right_before), "; ".join(work.said)
    tuning = FineTuningResult(
        better, said, work.took, before.accuracy, ours.accuracy, network.history
    )
    if better:
        return replace(calibrated, fine_tuning=tuning, frozen=work.frozen)
    network.clear_away()
    network.stored.close()
    why = (
        f"the frozen head is kept: fine-tuned, {ours.accuracy:.1%} of the validation images were "
        f"right, with a log loss of {ours.log_loss:.3f}, where the frozen head has "
        f"{before.accuracy:.1%} and {before.log_loss:.3f} ({said})"
    )
    return replace(work.frozen, fine_tuning=replace(tuning, description=why))
