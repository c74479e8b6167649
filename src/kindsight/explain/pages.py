"""The HTML pages of explanations: overlays with the nearest training images, and a map of images.

Each is one file without scripts that loads nothing.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.explain.explanation import Explanation
from kindsight.explain.overlay import colour_scale, encode, shrink
from kindsight.explain.saliency import METHODS
from kindsight.explain.similarity import grid_side
from kindsight.report.data import FeatureMap
from kindsight.report.templating import clean, environment

__all__ = ["MappedPrediction", "render_explanations", "render_image_map"]

SHOWN_CLASSES = 5

IMAGE_SIDE = 512
"""Longer side of an image on the page, in pixels."""

NEIGHBOUR_SIDE = 144
THUMBNAIL_SIDE = 48
THUMBNAIL_QUALITY = 70
MAX_COLOURS = 12
"""Number of classes with distinct colours on a map; further ones share the last."""


def render_explanations(explanations: Sequence[Explanation], run: str) -> str:
    """Return one HTML page with the overlays of some images; the texts may be anything.

    - `run`: name of the classifier.
    """
    good = [found for found in explanations if found.prediction.error is None]
    page = (
        environment()
        .get_template("explain.html.j2")
        .render(
            run=run,
            sections=[_section(found) for found in good],
            skipped=[found.prediction.error for found in explanations if found not in good],
            scale=_uri(colour_scale(), "png"),
        )
    )
    return clean(page)


def _section(found: Explanation) -> dict[str, Any]:
    return {
        "path": found.path,
        "label": found.prediction.label,
        "reason": found.prediction.reason,
        "best": found.prediction.best,
        "confidence": found.prediction.confidence,
        "target": found.target,
        "versus": found.versus,
        "size": found.size,
        "image": _uri(shrink(found.image, IMAGE_SIDE), "jpeg"),
        "overlays": [
            {
                "title": METHODS[name].title,
                "image": _uri(shrink(found.overlay(name), IMAGE_SIDE), "jpeg"),
                "is_empty": not found.maps[name].values.any(),
            }
            for name in found.maps
        ],
        "is_cropped": any(not placed.seen.all() for placed in found.maps.values()),
        "top_classes": found.prediction.top(SHOWN_CLASSES),
        "nearest": [
            {
                "path": each.path,
                "label": each.label,
                "similarity": each.similarity,
                "image": _thumbnail(each.jpeg),
                "is_missing": each.file is None,
            }
            for each in found.nearest
        ],
        "notes": found.notes,
    }


def _thumbnail(jpeg: bytes) -> str | None:
    """Return the URI of a stored image; None if it cannot be decoded."""
    image = _decoded(jpeg)
    return None if image is None else _uri(shrink(image, NEIGHBOUR_SIDE), "jpeg")


def _decoded(jpeg: bytes) -> NDArray[np.uint8] | None:
    found = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) if jpeg else None
    return None if found is None else np.asarray(cv2.cvtColor(found, cv2.COLOR_BGR2RGB), np.uint8)


def _uri(image: NDArray[np.uint8], kind: str, quality: int = 85) -> str:
    text = base64.b64encode(encode(image, kind, quality)).decode("ascii")
    return f"data:image/{kind};base64,{text}"


class MappedPrediction(NamedTuple):
    """What a map shows of an image: its class, the prediction, and its confidence."""

    label: str
    prediction: str | None
    confidence: float | None


def render_image_map(
    found: FeatureMap,
    predictions: Sequence[MappedPrediction],
    load: Callable[[int], bytes],
    run: str,
    *,
    total: int,
) -> str:
    """Return one HTML page with the images of a map as thumbnails in their places.

    Parameters
    ----------
    found : FeatureMap
    predictions : sequence of MappedPrediction
        Of its images, in their order.
    load : callable
        Returns the JPEG of the image with this index; empty if there is none.
    run : str
        Name of the classifier.
    total : int
        Number of images of the split, of which these are some or all.
    """
    side = grid_side(len(found.images))
    classes = sorted({each.label for each in predictions})
    sprite, columns, rows = _sprite([load(index) for index in range(len(found.images))])
    page = (
        environment()
        .get_template("image_map.html.j2")
        .render(
            run=run,
            found=found,
            total=total,
            side=side,
            sprite=_uri(sprite, "jpeg", THUMBNAIL_QUALITY),
            columns=columns,
            rows=rows,
            classes=[(name, _colour(index)) for index, name in enumerate(classes)],
            tiles=[
                {
                    "path": image.path,
                    "column": int(image.x * side) + 1,
                    "row": int(image.y * side) + 1,
                    "x": _position(index % columns, columns),
                    "y": _position(index // columns, rows),
                    "colour": _colour(classes.index(each.label)),
                    "each": each,
                    "wrong": each.prediction is not None and each.prediction != each.label,
                }
                for index, (image, each) in enumerate(zip(found.images, predictions, strict=True))
            ],
        )
    )
    return clean(page)


def _colour(index: int) -> int:
    return min(index, MAX_COLOURS - 1)


def _sprite(jpegs: Sequence[bytes]) -> tuple[NDArray[np.uint8], int, int]:
    """Return all thumbnails as one image, with its number of columns and rows."""
    columns = math.ceil(math.sqrt(len(jpegs)))
    rows = math.ceil(len(jpegs) / columns)
    side = THUMBNAIL_SIDE
    sheet = np.full((rows * side, columns * side, 3), 128, np.uint8)
    for index, jpeg in enumerate(jpegs):
        image = _decoded(jpeg)
        if image is not None:
            top, left = index // columns * side, index % columns * side
            small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
            sheet[top : top + side, left : left + side] = small
    return sheet, columns, rows


def _position(index: int, count: int) -> str:
    """Return the CSS background position of a tile: 0% is the first, 100% the last."""
    return f"{100 * index / (count - 1):.4g}%" if count > 1 else "0%"
