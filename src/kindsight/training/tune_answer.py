"""How a fine-tuned network answers: over flipped views or not, alone or beside the frozen head.

Both are chosen by the log loss on the validation part, each time with a temperature of its own. Of
two ways of which neither is clearly surer, the one that is named first is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.evaluation.calibration import fit_temperature, to_probabilities
from kindsight.models.divided import DividedNetwork
from kindsight.models.together import answering_together, over_views
from kindsight.models.trainer import Trainer
from kindsight.models.views import AXES
from kindsight.training.learner import EVALUATED_AT_ONCE

__all__ = ["Answer", "answering", "choose_answer", "logits_of_views"]

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
        float32 (pictures, classes): the network's own, of the validation pictures.
    """

    views: int
    share: float
    logits: Logits


def logits_of_views(
    tuner: Trainer,
    pixels: NDArray[Any],
    places: Rows,
    flips: Sequence[int],
    *,
    flipped: bool,
    tell: Callable[[], None],
) -> Logits:
    """Return what the network says of flipped pictures, float32 (views, pictures, classes).

    Parameters
    ----------
    tuner : Trainer
    pixels : array
        Pictures, or what their views give at the cut.
    places : array
        int64 (pictures, views): where in these each view of each picture is.
    flips : sequence of int
        What the views are: numbers of :data:`kindsight.models.views.FLIPS`.
    flipped : bool
        Whether what is there is flipped already.
    tell : callable
        Called before each batch.
    """

    def answer(places: Rows, flip: int) -> Logits:
        tell()
        given = pixels[places]
        if not flipped:
            given = np.flip(given, AXES[flip])
        return tuner.logits(given)

    starts = range(0, len(places), EVALUATED_AT_ONCE)
    found = [
        np.concatenate([answer(some[at : at + EVALUATED_AT_ONCE], flip) for at in starts])
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
        float32 (views, pictures, classes): its logits of flipped views, the first of which are the
        pictures as they are.
    before : array
        float32 (pictures, classes): the frozen head's logits.
    targets : array
        int64 (pictures,): the classes.
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


def answering(network: DividedNetwork, answer: Answer, flips: Sequence[int], frozen: Any) -> Any:
    """Return the network that answers so, pixels to logits; None where it is the tuned one as is.

    Parameters
    ----------
    network : DividedNetwork
    answer : Answer
    flips : sequence of int
        What the views are.
    frozen : keras.Model
        What answers with it, where anything does.
    """
    full = network.full
    if answer.views > 1:
        full = over_views(full, flips[: answer.views])
    if answer.share < 1:
        return answering_together(full, frozen, answer.share)
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
