"""How a fine-tuned network answers: over flipped views or not, alone or beside the frozen head.

Both are chosen by the log loss on the validation part, each time with a temperature of its own. Of
two ways of which neither is clearly surer, the one that is named first is taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.reading.image_cache import CachedImages
from kindsight.evaluation import Evaluation, evaluate
from kindsight.evaluation.calibration import fit_temperature, to_probabilities
from kindsight.models.backbones.tta import FLIP_AXES, FLIPS, flip_image
from kindsight.models.networks.fine_tuned import (
    FineTunedNetwork,
    average_logits,
    average_over_flips,
)
from kindsight.models.runtime import InterpreterPool
from kindsight.models.steps.trainable import TrainableNetwork
from kindsight.threads import map_ordered
from kindsight.training.engine.trainable import EVALUATION_BATCH
from kindsight.training.fine_tuning.work import FineTuning

__all__ = [
    "Answer",
    "allow_looks",
    "answering",
    "choose_answer",
    "choose_flips",
    "flips_in_words",
    "logits_of_views",
]

Logits = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Answer:
    """How the network answers.

    Parameters
    ----------
    views : int
        Over how many of the flipped views its logits are averaged.
    share : float
        Of these logits in the answer; the rest is what the frozen head says.
    logits : array
        float32 (images, classes): the network's own, of the validation images.
    """

    views: int
    share: float
    logits: Logits


def logits_of_views(
    tuner: TrainableNetwork,
    pixels: NDArray[Any],
    places: Rows,
    flips: Sequence[int],
    *,
    flipped: bool,
    tell: Callable[[], None],
) -> Logits:
    """Return what the network says of flipped images, float32 (views, images, classes).

    Parameters
    ----------
    tuner : TrainableNetwork
    pixels : array
        Images, or what their views give at the cut.
    places : array
        int64 (images, views): where in these each view of each image is.
    flips : sequence of int
        What the views are: numbers of :data:`kindsight.models.backbones.tta.FLIPS`.
    flipped : bool
        Whether what is there is flipped already.
    tell : callable
        Called before each batch.
    """

    def answer(places: Rows, flip: int) -> Logits:
        tell()
        given = pixels[places]
        if not flipped:
            given = np.flip(given, FLIP_AXES[flip])
        return tuner.logits(given)

    starts = range(0, len(places), EVALUATION_BATCH)
    found = [
        np.concatenate([answer(some[at : at + EVALUATION_BATCH], flip) for at in starts])
        for some, flip in zip(places.T, flips, strict=True)
    ]
    return np.stack(found)


def choose_answer(
    views: Logits,
    before: Logits,
    targets: Rows,
    shares: Sequence[float],
    *,
    wide: bool,
    clearly: float,
) -> Answer:
    """Choose how the network answers.

    Parameters
    ----------
    views : array
        float32 (views, images, classes): its logits of flipped views, the first of which are the
        images as they are.
    before : array
        float32 (images, classes): the frozen head's logits.
    targets : array
        int64 (images,): the classes.
    shares : sequence of float
        Of the network in the answer: the first unless another is clearly surer.
    wide : bool
        Whether the frozen head is of wider features than the network. Then it answers over all
        views, unless it is clearly surer of one, since accuracy counts, not how long it takes to
        ask. Otherwise over one, unless all of them, without the frozen head, are clearly surer.
    clearly : float
        By this factor is the log loss then lower.
    """
    one, every = views[0], np.asarray(views.mean(0), np.float32)
    ways = [(one, 1), (every, len(views))] if len(views) > 1 else [(one, 1)]
    if wide:
        logits, count = _surest(ways[::-1], targets, clearly)
        mixed = [(_mixed(logits, before, share), share) for share in shares]
        return Answer(count, _surest(mixed, targets, clearly)[1], logits)
    mixed = [(_mixed(one, before, share), share) for share in shares]
    first, share = _surest(mixed, targets, clearly)
    _, count = _surest([(first, 1), *ways[1:]], targets, clearly)
    return Answer(1, share, one) if count == 1 else Answer(count, 1.0, every)


def answering(network: FineTunedNetwork, answer: Answer, flips: Sequence[int], frozen: Any) -> Any:
    """Return the network that answers so, pixels to logits; None where it is the tuned one as is.

    Parameters
    ----------
    network : FineTunedNetwork
    answer : Answer
    flips : sequence of int
        What the views are.
    frozen : keras.Model
        What answers with it, where anything does.
    """
    full = network.full
    if answer.views > 1:
        full = average_over_flips(full, flips[: answer.views])
    if answer.share < 1:
        return average_logits(full, frozen, answer.share)
    return full if answer.views > 1 else None


def _mixed(tuned: Logits, before: Logits, share: float) -> Logits:
    return (share * tuned + (1 - share) * before).astype(np.float32)


def _surest(
    ways: Sequence[tuple[Logits, Any]], targets: Rows, clearly: float
) -> tuple[Logits, Any]:
    """Return the way with the lowest log loss, or the first where it is not clearly lower."""

    def loss(way: tuple[Logits, Any]) -> float:
        logits = way[0]
        probabilities = to_probabilities(logits, fit_temperature(logits, targets))
        right = probabilities[np.arange(len(targets)), targets].astype(np.float64)
        return float(-np.log(np.maximum(right, 1e-12)).mean())

    best = min(ways, key=loss)
    return best if loss(best) < clearly * loss(ways[0]) else ways[0]


# SECTION: Which flips of an image leave its class what it is: asked of the frozen head.

# Enough to tell whether much is lost, and seconds' work.
IMAGES = 200
# A flip is a view where no more than this is lost by it: share right, and log loss.
RIGHT, LOSS, LOSS_AT_LEAST = 0.03, 1.25, 0.01


def choose_flips(
    stored: CachedImages,
    rows: Rows,
    targets: Rows,
    pool: InterpreterPool,
    probabilities: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    classes: Sequence[str],
) -> tuple[tuple[int, ...], int]:
    """Choose how an image may be flipped.

    A flip may be where the frozen head answers flipped validation images nearly as well as they
    are: a mirrored 2 is no 2.

    Parameters
    ----------
    stored : CachedImages
    rows, targets : array
        int64: the validation images, and their classes.
    pool : InterpreterPool
        The backbone, from pixels to features.
    probabilities : callable
        The head: from float32 (n, features) to float32 (n, classes).
    classes : sequence of str

    Returns
    -------
    flips : tuple of int
        Numbers of :data:`kindsight.models.backbones.tta.FLIPS`, 0 always among them.
    seen : int
        How many images were run for that.
    """
    step = -(-len(rows) // IMAGES)
    chosen, right = rows[::step], targets[::step]

    def judge(view: int) -> Evaluation:
        def run(row: int) -> Any:
            return pool.run(flip_image(stored.pixels(np.array([row]))[0], view))

        vectors = np.stack(list(map_ordered(run, chosen.tolist(), pool.workers)))
        return evaluate(probabilities(vectors), right, tuple(classes))

    plain, *flipped = (judge(view) for view in range(len(FLIPS) - 1))
    single = [view for view, found in enumerate(flipped, 1) if _is_harmless(found, plain)]
    # Whoever may be flipped both ways may be turned.
    both = [len(FLIPS) - 1] if len(single) == len(flipped) else []
    return (0, *single, *both), len(chosen) * (1 + len(flipped))


def _is_harmless(flipped: Evaluation, plain: Evaluation) -> bool:
    return (
        flipped.accuracy >= plain.accuracy - RIGHT
        and flipped.log_loss <= LOSS * plain.log_loss + LOSS_AT_LEAST
    )


def flips_in_words(flips: Sequence[int]) -> str:
    """Say how images are flipped."""
    names = {1: "left to right", 2: "upside down"}
    named = [name for view, name in names.items() if view in flips]
    return f"flipped {' and '.join(named)}" if named else "not flipped"


# SECTION: How often a fine-tuned network may look at an image: over as many flips as there is
# time for.

# The share of the time left for training that looks after the first may take.
LOOKING = 0.1
# Images by which the backbone's pace is measured: half a second or more.
MEASURED = 96


def allow_looks(work: FineTuning, stored: CachedImages, most: int) -> FineTuning:
    """Measure how long a look takes, and say over how many flips there is time to answer.

    Parameters
    ----------
    work : FineTuning
        Without a budget it stays as it is: one look.
    stored : CachedImages
        The images.
    most : int
        How many flips there are.
    """
    if work.seconds is None:
        return work
    work = replace(work, look_seconds=_measured(work, stored))
    before = work.decided().get("looks")
    if type(before) is int and 1 <= before <= most:  # the same as before a stop
        return replace(work, looks=before)
    one, left = work.answering(), work.left()
    assert left is not None
    for looks in range(most, 1, -1):
        if (more := replace(work, looks=looks)).answering() - one <= LOOKING * left:
            break
    else:
        more = work
    work.decide(looks=more.looks)
    return more


def _measured(work: FineTuning, stored: CachedImages) -> float:
    """Return for how many seconds the network that is tuned looks at an image."""
    pool = InterpreterPool(work.fitted.files.tflite, work.fitted.training.workers)
    images = stored.pixels(np.arange(min(MEASURED, len(stored))))
    # The first of each interpreter takes longer.
    list(map_ordered(pool.run, images[: pool.workers], pool.workers))
    began = time.monotonic()
    list(map_ordered(pool.run, images, pool.workers))
    return max(1e-9, (time.monotonic() - began) / len(images))
