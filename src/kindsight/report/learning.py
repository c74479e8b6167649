"""The sentences of a report on its curves: how the training went, read off the numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kindsight.report.epochs import Epoch
from kindsight.report.words import amount, percent

__all__ = ["sentences"]

# By how much the validation loss must have risen from its lowest to be told: as a share of it, and
# in nats. In as many epochs at the end, so that one that is worse by chance does not count.
RISEN, RISEN_NATS = 0.1, 0.01
IN_A_ROW = 2
# Share of the loss of guessing above which a network has learned next to nothing.
GUESSING = 0.97


def sentences(epochs: Sequence[Epoch], best: int | None, classes: int) -> list[str]:
    """Say which epoch was best, and whether the training went on too long or not long enough.

    Parameters
    ----------
    epochs : sequence of Epoch
        In order; at least one.
    best : int or None
        The best epoch.
    classes : int
        How many there are.
    """
    last = epochs[-1]
    said = [_best(epochs, best)]
    if any(not math.isfinite(row.loss) for row in epochs):
        said.append(
            "The training loss became infinite or no number: it diverged. A lower learning rate "
            "helps."
        )
    elif min(last.loss, last.loss if last.val_loss is None else last.val_loss) > (
        guess := GUESSING * math.log(classes)
    ):
        said.append(
            f"It has hardly begun to learn: the loss is still that of guessing, "
            f"{guess / GUESSING:.3f}. More epochs, another learning rate or less augmentation help."
        )
    elif last.val_loss is None:
        said.append("Without validation pictures nothing tells learning from learning by heart.")
    elif lowest := _overfitted(epochs):
        said.append(
            f"After epoch {lowest.epoch} the validation loss rose, from {lowest.val_loss:.3f} to "
            f"{last.val_loss:.3f}, while the training loss fell on: overfitting. More pictures, "
            "augmentation, dropout or fewer epochs help."
        )
    elif best == last.epoch and len(epochs) > 1:
        said.append("It was still getting better at the end: more epochs may help.")
    return said


def _best(epochs: Sequence[Epoch], best: int | None) -> str:
    start = f"The best of {amount(len(epochs), 'epoch')} was epoch {best}"
    if len(epochs) == 1:
        start = "After one epoch"
    for row in epochs:
        if row.epoch == best and row.val_accuracy is not None:
            return (
                f"{start}: {percent(row.val_accuracy)} of the "
                f"validation pictures right, with {percent(row.accuracy)} of the training pictures."
            )
        if row.epoch == best:
            return (
                f"{start}, by the training loss: {percent(row.accuracy)} of the training "
                "pictures right."
            )
    return f"The training took {amount(len(epochs), 'epoch')}."


def _overfitted(epochs: Sequence[Epoch]) -> Epoch | None:
    """Return the epoch of the lowest validation loss, if it went up from there for good."""
    losses = [math.nan if row.val_loss is None else row.val_loss for row in epochs]
    places = [place for place, loss in enumerate(losses) if math.isfinite(loss)]
    place = min(places, key=lambda place: losses[place], default=len(epochs))
    end = losses[-IN_A_ROW:]
    if place >= len(epochs) - IN_A_ROW:
        return None
    bound = max(losses[place] * (1 + RISEN), losses[place] + RISEN_NATS)
    risen = all(not loss <= bound for loss in end)
    return epochs[place] if risen and epochs[-1].loss < epochs[place].loss else None
