"""Thumbnails, and the images that a report shows: worst mistakes, closest calls, confusions."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.errors import UsageError
from kindsight.report.data import MAX_CARDS, Predictions

__all__ = [
    "LARGE", "SMALL", "Cell", "Gallery", "choose_images", "confident_mistakes", "most_uncertain",
    "thumbnail_uri",
]  # fmt: skip

_JPEG_QUALITY = 82


def thumbnail_uri(image: NDArray[np.uint8], size: int = 128, quality: int = _JPEG_QUALITY) -> str:
    """Return a thumbnail as a ``data:image/jpeg;base64,...`` URI.

    - `image`: uint8 array (height, width, 3); RGB.
    - `size`: longer side in pixels, 16 to 512. The aspect ratio is preserved; a smaller image is
      not enlarged.
    - `quality`: JPEG quality, 1 to 100.

    Raises `UsageError` for another dtype, shape or size.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise UsageError(
            "The image must be a non-empty uint8 array of shape (height, width, 3); got "
            f"{image.dtype} {image.shape}."
        )
    if not 16 <= size <= 512:
        raise UsageError(f"size must be 16 to 512 pixels; got {size}.")
    height, width = image.shape[:2]
    scale = min(1.0, size / max(height, width))
    if scale < 1.0:
        shape = max(1, round(width * scale)), max(1, round(height * scale))
        image = np.asarray(cv2.resize(image, shape, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    bgr = np.ascontiguousarray(image[:, :, ::-1])
    encoded, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not encoded:
        raise UsageError(f"Could not encode a thumbnail of shape {image.shape} as JPEG.")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def confident_mistakes(predictions: Predictions, limit: int = MAX_CARDS) -> NDArray[np.intp]:
    """Return the rows of at most `limit` misclassified images, most confident first."""
    (wrong,) = np.nonzero(predictions.predicted != predictions.targets)
    confidence = predictions.probabilities.max(axis=1)[wrong]
    rows: NDArray[np.intp] = wrong[np.argsort(-confidence, kind="stable")][:limit]
    return rows


def most_uncertain(
    predictions: Predictions,
    limit: int = MAX_CARDS,
    exclude: NDArray[np.integer[Any]] | Sequence[int] = (),
    margin: float = 0.8,
) -> NDArray[np.intp]:
    """Return the rows whose two most probable classes are closest, smallest margin first.

    - `predictions`: at least two classes.
    - `limit`: maximum number of rows.
    - `exclude`: int array or sequence of int; rows to omit, such as mistakes that are already
      shown.
    - `margin`: rows with at least this margin between the two probabilities are not uncertain; with
      two classes, 0.8 means a confidence of 90%.

    Returns int array, at most (limit,).
    """
    highest = np.partition(predictions.probabilities, -2, axis=1)[:, -2:]
    distance = highest[:, 1] - highest[:, 0]
    order = np.argsort(distance, kind="stable")
    close = (distance[order] < margin) & ~np.isin(order, np.asarray(exclude, dtype=np.intp))
    return order[close][:limit]


LARGE, SMALL = 128, 88
"""Longer side, in pixels, of the thumbnails of a gallery and of a cell of the confusion matrix."""

MAX_PER_CELL = 12
"""Maximum number of images shown per cell of the confusion matrix."""

MAX_SMALL = 480
"""Maximum number of small thumbnails on a page: 1.5 MB, encoded in a quarter of a second."""

PER_CORRECT_CELL = 4


@dataclass(frozen=True, eq=False)
class Cell:
    """A cell of the confusion matrix, with the rows of its images that are shown.

    `images` is the number of all its images. The most confident mistakes are shown first, and the
    least confident correct predictions.
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
    """Return the images of a split that a report shows.

    - `predictions`: at least two classes.
    - `limit`: maximum number of images in the cells. Each confusion gets one image before any gets
      a second one, so that none remains without an image.
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
    """Distribute `limit` images among the cells: mistakes in turns, then correct predictions."""
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
