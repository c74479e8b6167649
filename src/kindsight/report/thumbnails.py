"""Which images a report shows, and the small images themselves."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.errors import ImageError, UsageError
from kindsight.report.data import MAX_CARDS, Predictions, ThumbnailCard
from kindsight.report.words import percent

__all__ = ["make_cards", "most_doubtful", "thumbnail_uri", "worst_mistakes"]

_QUALITY = 82


def thumbnail_uri(image: NDArray[np.uint8], size: int = 128) -> str:
    """Give a small JPEG of an image as an address that holds the whole file.

    Parameters
    ----------
    image : uint8 array (H, W, 3)
        RGB.
    size : int
        The longer side in pixels, 16 to 512. A smaller image stays as it is; the shape is
        kept as nearly as whole pixels allow.

    Returns
    -------
    str
        ``data:image/jpeg;base64,...``

    Raises
    ------
    UsageError
        If the image or the size is not of that kind.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise UsageError(f"an image must be uint8 (H, W, 3). Received: {image.dtype} {image.shape}")
    height, width = image.shape[:2]
    if not 16 <= size <= 512 or not height or not width:
        raise UsageError(
            f"size must be 16 to 512 and the image not empty. Received: {size}, {image.shape}"
        )
    scale = min(1.0, size / max(height, width))
    if scale < 1.0:
        shape = max(1, round(width * scale)), max(1, round(height * scale))
        image = np.asarray(cv2.resize(image, shape, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    flipped = np.ascontiguousarray(image[:, :, ::-1])
    made, data = cv2.imencode(".jpg", flipped, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not made:
        raise UsageError(f"a thumbnail must be writable as JPEG. Received: {image.shape}")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def worst_mistakes(predictions: Predictions, limit: int = MAX_CARDS) -> NDArray[np.intp]:
    """Give the rows answered wrongly, the surest first.

    Parameters
    ----------
    predictions : Predictions
        Of n images.
    limit : int
        At most this many.

    Returns
    -------
    int array (at most limit,)
    """
    (wrong,) = np.nonzero(predictions.predicted != predictions.targets)
    confidence = predictions.probabilities.max(axis=1)[wrong]
    chosen: NDArray[np.intp] = wrong[np.argsort(-confidence, kind="stable")][:limit]
    return chosen


def most_doubtful(
    predictions: Predictions,
    limit: int = MAX_CARDS,
    exclude: NDArray[np.integer[Any]] | Sequence[int] = (),
    margin: float = 0.8,
) -> NDArray[np.intp]:
    """Give the rows whose two most probable classes are closest, the closest first.

    Parameters
    ----------
    predictions : Predictions
        Of n images, k >= 2 classes.
    limit : int
        At most this many.
    exclude : int array or sequence of int
        Rows to leave out, such as the mistakes that are shown already.
    margin : float
        Rows whose two most probable classes are at least this far apart are not doubtful:
        at 0.8, with two classes, an answer of 90% and more.

    Returns
    -------
    int array (at most limit,)
    """
    highest = np.partition(predictions.probabilities, -2, axis=1)[:, -2:]
    distance = highest[:, 1] - highest[:, 0]
    order = np.argsort(distance, kind="stable")
    kept = (distance[order] < margin) & ~np.isin(order, np.asarray(exclude, dtype=np.intp))
    return order[kept][:limit]


def make_cards(
    rows: NDArray[np.integer[Any]],
    predictions: Predictions,
    classes: Sequence[str],
    load: Callable[[int], NDArray[np.uint8]],
    size: int = 128,
) -> tuple[ThumbnailCard, ...]:
    """Make a card of each row.

    Parameters
    ----------
    rows : int array
        Rows of `predictions`, as `worst_mistakes` and `most_doubtful` give them.
    predictions : Predictions
        Of n images, k >= 2 classes.
    classes : sequence of str
        The k class names.
    load : callable
        From a row to its image, uint8 (H, W, 3). A `ImageError` gives a card without a
        image.
    size : int
        The longer side of the thumbnails in pixels.

    Returns
    -------
    tuple of ThumbnailCard
        The caption names the second most probable class.
    """
    cards = []
    for row in rows:
        chances = predictions.probabilities[row]
        first = int(chances.argmax())
        second = max((i for i in range(len(classes)) if i != first), key=chances.__getitem__)
        try:
            image: str | None = thumbnail_uri(load(int(row)), size)
        except ImageError:
            image = None
        cards.append(
            ThumbnailCard(
                path=predictions.paths[row],
                image=image,
                label=classes[predictions.targets[row]],
                prediction=classes[first],
                confidence=float(chances[first]),
                caption=f"then {classes[second]} ({percent(chances[second])})",
            )
        )
    return tuple(cards)
