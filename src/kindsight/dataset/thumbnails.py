"""Small copies of images: as JPEG files, and of a dataset for a notebook."""

from __future__ import annotations

import base64
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.errors import ImageError
from kindsight.images.read import read_image

__all__ = ["dataset_thumbnails", "encode_thumbnail", "row_thumbnail"]

SIDE = 96
"""Longer side in pixels."""

SHOWN = 10
"""Number of images that are shown."""


def dataset_thumbnails(dataset: Any, count: int = SHOWN) -> list[tuple[str, str]]:
    """Return ``data:`` URIs of some readable images, of all classes in turn, and their labels.

    - `dataset`: an ImageDataset, which imports this module.
    """
    by_class: dict[str | None, list[int]] = {}
    for row, label in enumerate(dataset.label):
        by_class.setdefault(label, []).append(row)
    turns = [
        rows[place]
        for place in range(count)
        for _, rows in sorted(by_class.items(), key=lambda item: str(item[0]))
        if place < len(rows)
    ]
    found = list[tuple[str, str]]()
    for row in turns[: 2 * count]:  # some may be unreadable
        uri = row_thumbnail(dataset, row)
        if uri is not None:
            found.append((uri, dataset.label[row] or dataset.path[row]))
        if len(found) == count:
            break
    return found


def row_thumbnail(dataset: Any, row: int) -> str | None:
    """Return the ``data:`` URI of a small copy of an image; None if it cannot be read."""
    try:
        data = dataset.load(row)
        image = (
            read_image(data, target=(SIDE, SIDE), value_range=dataset.value_range)
            if isinstance(data, bytes)
            else data
        )
    except ImageError:
        return None
    jpeg = base64.b64encode(encode_thumbnail(image, SIDE)).decode("ascii")
    return f"data:image/jpeg;base64,{jpeg}"


def encode_thumbnail(image: NDArray[np.uint8], side: int, quality: int = 95) -> bytes:
    """Return a small copy of an image as a JPEG file.

    Parameters
    ----------
    image : array
        uint8 (height, width, 3), RGB.
    side : int
        Maximum pixels of the longer side.
    quality : int
        JPEG quality, 0 to 100.
    """
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    bgr = np.ascontiguousarray(image[:, :, ::-1])
    encoded, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert encoded
    return np.asarray(data).tobytes()
