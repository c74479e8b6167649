"""Which flips of a picture leave its class what it is: asked of the frozen head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.catalog.store import StoredPictures
from kindsight.evaluation import Evaluation, evaluate
from kindsight.models.views import FLIPS, flip
from kindsight.runtime import InterpreterPool
from kindsight.threads import map_ordered

__all__ = ["choose_flips", "flips_in_words"]

# Enough to tell whether much is lost, and seconds' work.
PICTURES = 200
# A flip is a view where no more than this is lost by it: share right, and log loss.
RIGHT, LOSS, LOSS_AT_LEAST = 0.03, 1.25, 0.01

Rows = NDArray[np.int64]


def choose_flips(
    stored: StoredPictures,
    rows: Rows,
    targets: Rows,
    pool: InterpreterPool,
    probabilities: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    classes: Sequence[str],
) -> tuple[tuple[int, ...], int]:
    """Choose how a picture may be flipped.

    A flip may be where the frozen head answers flipped validation pictures nearly as well as they
    are: a mirrored 2 is no 2.

    Parameters
    ----------
    stored : StoredPictures
    rows, targets : array
        int64: the validation pictures, and their classes.
    pool : InterpreterPool
        The backbone, from pixels to features.
    probabilities : callable
        The head: from float32 (n, features) to float32 (n, classes).
    classes : sequence of str

    Returns
    -------
    flips : tuple of int
        Numbers of :data:`kindsight.models.views.FLIPS`, 0 always among them.
    seen : int
        How many pictures were run for that.
    """
    step = -(-len(rows) // PICTURES)
    chosen, right = rows[::step], targets[::step]

    def judge(view: int) -> Evaluation:
        def run(row: int) -> Any:
            return pool.run(flip(stored.pixels(np.array([row]))[0], view))

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
    """Say how pictures are flipped."""
    names = {1: "left to right", 2: "upside down"}
    named = [name for view, name in names.items() if view in flips]
    return f"flipped {' and '.join(named)}" if named else "not flipped"
