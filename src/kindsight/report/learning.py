"""The sentences of a report on its curves: how the training went, read off the numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kindsight.report.epochs import Epoch
from kindsight.report.words import amount, percent

__all__ = ["sentences"]

# By how much the validation loss must have risen from its lowest, as a share of it, to be told.
RISEN = 0.1


def sentences(epochs: Sequence[Epoch], best: int | None) -> list[str]:
    """Say which epoch was best, and whether the training went on too long or not long enough.

    Parameters
    ----------
    epochs : sequence of Epoch
        In order; at least one.
    best : int or None
        The best epoch.
    """
    last = epochs[-1]
    said = [_best(epochs, best)]
    if any(not math.isfinite(row.loss) for row in epochs):
        said.append(
            "The training loss became infinite or no number: it diverged. A lower learning rate "
            "helps."
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
    known = [row for row in epochs if row.val_loss is not None and math.isfinite(row.val_loss)]
    lowest = min(known, key=lambda row: row.val_loss or 0.0, default=None)
    last = epochs[-1]
    if lowest is None or lowest.val_loss is None or last.val_loss is None:
        return None
    risen = not last.val_loss <= lowest.val_loss * (1 + RISEN)
    return lowest if risen and last.loss < lowest.loss else None
