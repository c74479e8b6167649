"""Thumbnails, and the predictions that a gallery shows first."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.errors import UsageError
from kindsight.report.data import MAX_CARDS, Predictions

__all__ = ["confident_mistakes", "most_uncertain", "thumbnail_uri"]

_JPEG_QUALITY = 82


def thumbnail_uri(image: NDArray[np.uint8], size: int = 128, quality: int = _JPEG_QUALITY) -> str:
    """Return a thumbnail as a ``data:image/jpeg;base64,...`` URI.

    - `image`: uint8 array (height, width, 3); RGB.
    - `size`: longer side in pixels, 16 to 512. The aspect ratio is preserved; a smaller image is
      not enlarged.
    - `quality`: of the JPEG, 1 to 100.

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
    - `exclude`: int array or sequence of int; rows to omit, such as mistakes that are shown
      already.
    - `margin`: rows with at least this margin between the two probabilities are not uncertain; with
      two classes, 0.8 means a confidence of 90%.

    Returns int array, at most (limit,).
    """
    highest = np.partition(predictions.probabilities, -2, axis=1)[:, -2:]
    distance = highest[:, 1] - highest[:, 0]
    order = np.argsort(distance, kind="stable")
    close = (distance[order] < margin) & ~np.isin(order, np.asarray(exclude, dtype=np.intp))
    return order[close][:limit]
