"""The images that a report shows: worst mistakes, closest calls, some of each confusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kindsight.report.data import MAX_CARDS, Predictions
from kindsight.report.thumbnails import confident_mistakes, most_uncertain

__all__ = [
    "LARGE", "MAX_PER_CELL", "SMALL", "Cell", "Gallery", "choose_images",
]  # fmt: skip

LARGE, SMALL = 128, 88
"""Longer side, in pixels, of the thumbnails of a gallery and of a cell of the confusion matrix."""

MAX_PER_CELL = 12
"""Maximum number of images shown of a cell of the confusion matrix."""

MAX_SMALL = 480
"""Maximum number of small thumbnails of a page: 1.5 MB, made in a quarter of a second."""

PER_CORRECT_CELL = 4


@dataclass(frozen=True, eq=False)
class Cell:
    """A cell of the confusion matrix with the rows of the images that are shown of it.

    `images` counts all; of mistakes the most confident are shown first, of correct predictions the
    least confident.
    """

    label: int
    prediction: int
    images: int
    rows: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Gallery:
    """Rows of a split's predictions whose images a report shows."""

    mistakes: tuple[int, ...]  # most confident first
    uncertain: tuple[int, ...]  # smallest margin first
    cells: tuple[Cell, ...]  # by label, then by prediction

    @property
    def large(self) -> tuple[int, ...]:
        """The rows with a large thumbnail."""
        return (*self.mistakes, *self.uncertain)

    @property
    def small(self) -> tuple[int, ...]:
        """The rows with a small thumbnail, most important first."""
        return tuple(row for cell in self.cells for row in cell.rows)


def choose_images(predictions: Predictions, limit: int = MAX_SMALL) -> Gallery:
    """Return the images that a report shows of a split.

    - `predictions`: at least two classes.
    - `limit`: maximum number of images in the cells. One of each confusion comes first, then a
      second one of each, so that no confusion is without an image for the sake of another.
    """
    mistakes = confident_mistakes(predictions, MAX_CARDS)
    uncertain = most_uncertain(predictions, MAX_CARDS // 2, exclude=mistakes)
    members = _members(predictions)
    shown = _share(members, limit)
    cells = tuple(
        Cell(label, prediction, len(rows), tuple(rows[: shown[label, prediction]].tolist()))
        for (label, prediction), rows in sorted(members.items())
    )
    return Gallery(tuple(mistakes.tolist()), tuple(uncertain.tolist()), cells)


def _members(predictions: Predictions) -> dict[tuple[int, int], NDArray[np.intp]]:
    """Return the rows of each cell in the order in which they are shown."""
    predicted = predictions.predicted
    confidence = predictions.probabilities.max(axis=1)
    classes = predictions.probabilities.shape[1]
    key = predictions.targets.astype(np.int64) * classes + predicted
    wrong = predicted != predictions.targets
    order = np.lexsort((np.where(wrong, -confidence, confidence), key))
    keys, starts = np.unique(key[order], return_index=True)
    parts = np.split(order, starts[1:])
    return {divmod(int(value), classes): part for value, part in zip(keys, parts, strict=True)}


def _share(
    members: dict[tuple[int, int], NDArray[np.intp]], limit: int
) -> dict[tuple[int, int], int]:
    """Divide `limit` images among the cells: mistakes in turns, then correct predictions."""
    shown = dict.fromkeys(members, 0)
    wrong = sorted((cell for cell in members if cell[0] != cell[1]), key=lambda c: -len(members[c]))
    right = [cell for cell in members if cell[0] == cell[1]]
    for cells, most in ((wrong, MAX_PER_CELL), (right, PER_CORRECT_CELL)):
        for turn in range(most):
            waiting: Sequence[tuple[int, int]] = [c for c in cells if len(members[c]) > turn]
            for cell in waiting[:limit]:
                shown[cell] += 1
            limit -= min(limit, len(waiting))
    return shown
