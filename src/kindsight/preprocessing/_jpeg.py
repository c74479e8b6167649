"""Ordinary JPEGs by a quicker way than Keras's, with the same pixels to the bit."""

from __future__ import annotations

import functools
import io
import threading
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from kindsight.pictures._jpeg_header import plain_header
from kindsight.pictures.jpeg import decode_jpeg
from kindsight.preprocessing._spec import Loading

__all__ = ["ORIENTATION", "Plain", "load_jpeg"]

ORIENTATION = 0x0112
"""The tag of EXIF data that says how a picture is turned (Exif 2.3, table 4)."""

_own = threading.local()
# Bytes: a photograph of 4 million pixels. Pages are taken when first written.
_ROOM = 12_000_000
_START = b"\xff\xd8\xff"


class Plain(NamedTuple):
    """What is known of a JPEG before its pixels are.

    Attributes
    ----------
    height, width : int
        As stored.
    orientation : int
        EXIF's, 1 to 8; 1 is upright.
    """

    height: int
    width: int
    orientation: int


def load_jpeg(path: str, loading: Loading) -> tuple[Plain, NDArray[np.uint8]] | None:
    """Decode a JPEG in colour straight into an array, and pick its nearest pixels.

    Returns
    -------
    (facts, pixels) or None
        What the file says, and uint8 (height, width, 3); None for whatever is not an undamaged
        JPEG of red, green and blue that is resized so: Keras itself is asked then.
    """
    if (loading.color_mode, loading.interpolation) != ("rgb", "nearest"):
        return None
    if loading.keep_aspect_ratio:
        return None
    try:
        # Without a buffer the file is read in one piece, to its end.
        with open(path, "rb", buffering=0) as file:  # a Path takes as long to make
            data = file.read()
        found = _plain(data) if data.startswith(_START) else None
    except (OSError, SyntaxError, ValueError):
        return None
    if found is None or _is_large(found):
        return None
    size = (found.height, found.width)
    full = decode_jpeg(data, "RGB", size, size, _room())
    if full is None:
        return None
    rows = _nearest(found.height, loading.target_size[0])
    columns = _nearest(found.width, loading.target_size[1])
    # One index for both sides would take four times as long.
    return found, full.take(rows, 0).take(columns, 1)


def _plain(data: bytes) -> Plain | None:
    """Read what a JPEG says, by Pillow where its header is out of the ordinary; None if not RGB."""
    header = plain_header(data)
    if header is not None:
        if header.mode != "RGB":
            return None
        return Plain(header.height, header.width, header.orientation)
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    if image.mode != "RGB":
        return None
    turned = image.getexif().get(ORIENTATION, 1) if "exif" in image.info else 1
    return Plain(image.height, image.width, turned)


def _room() -> NDArray[np.uint8]:
    """Return memory of this thread's own to decode to: only a few of the pixels are taken."""
    if not hasattr(_own, "room"):
        _own.room = np.empty(_ROOM, np.uint8)
    room: NDArray[np.uint8] = _own.room
    return room


def _is_large(found: Plain) -> bool:
    """Whether Pillow would warn of so many pixels, or refuse them."""
    limit = Image.MAX_IMAGE_PIXELS
    return limit is not None and found.width * found.height > limit


@functools.lru_cache(maxsize=256)
def _nearest(old: int, new: int) -> NDArray[np.int64]:
    """Return which of `old` pixels Pillow takes for each of `new`.

    It adds the step up, so the rounding of each sum is part of the answer.
    """
    steps = np.full(new, old / new)
    steps[0] *= 0.5
    return np.minimum(np.add.accumulate(steps).astype(np.int64), old - 1)
