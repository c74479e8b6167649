"""Measure one image: file facts, brightness, sharpness, colour, perceptual hash.

The image is decoded once, a large JPEG at reduced size but never below 224 x 224 pixels, the input
size of most networks; features are computed from the same decoding. Blur that is invisible at this
size is invisible to a network, too. The whole file is decompressed, so damage anywhere is noticed.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.checks.pixel_statistics import SIZE, measure_pixels
from kindsight.digest import content_digest
from kindsight.errors import ImageError
from kindsight.images.convert import apply_orientation
from kindsight.images.formats.detect import detect_format
from kindsight.images.hashes import perceptual_hash, small_grey
from kindsight.images.metadata import ALPHA_MODES, ImageMetadata
from kindsight.images.read import read_image, read_with_metadata

__all__ = [
    "NUMERIC",
    "SIZE",
    "SMALL",
    "TEXT",
    "MeasuredImage",
    "measure_decoded",
    "measure_image",
    "thumbnail_difference",
    "transparency",
    "unreadable",
]

SMALL = (64, 64)
"""Height and width of the small grey image that is cached to compare images pixel by pixel."""

MAX_THUMBNAIL = 1_000_000
"""Maximum pixels of an EXIF thumbnail; the standard says 160 x 120."""

NUMERIC = np.dtype(
    [
        ("bytes", np.int64),
        ("height", np.int32),
        ("width", np.int32),
        ("stored_height", np.int32),
        ("stored_width", np.int32),
        ("orientation", np.int8),
        ("frames", np.int32),
        ("quality", np.float32),
        ("progressive", np.bool_),
        ("taken", np.float64),
        ("transparency", np.float32),
        ("thumbnail_difference", np.float32),
        ("brightness", np.float32),
        ("red", np.float32),
        ("green", np.float32),
        ("blue", np.float32),
        ("p01", np.float32),
        ("p05", np.float32),
        ("p50", np.float32),
        ("p95", np.float32),
        ("p99", np.float32),
        ("contrast", np.float32),
        ("entropy", np.float32),
        ("uniformity", np.float32),
        ("sharpness", np.float32),
        ("softness", np.float32),
        ("blur", np.float32),
        ("colourfulness", np.float32),
        ("chroma", np.float32),
        ("hash", np.uint64, (4,)),
    ]
)
"""Numeric columns; see :class:`kindsight.checks.Measurements`."""

TEXT = ("format", "mode", "subsampling", "encoder", "camera", "software", "code", "reason")
"""Text columns."""

_MISSING: dict[str, Any] = {
    name: math.nan if NUMERIC[name].kind == "f" else (0,) * 4 if name == "hash" else 0
    for name in NUMERIC.names or ()
}
"""Numeric values of an unreadable image."""


@dataclass(frozen=True)
class MeasuredImage:
    """Measurements of one image.

    Parameters
    ----------
    digest : str
        Content digest.
    numeric : array
        One record of :data:`NUMERIC`; NaN, or 0 for integers, if the image is unreadable.
    text : dict
        Values of :data:`TEXT`.
    small : uint8 array (64, 64)
        Small grey image; zeros if the image is unreadable.
    """

    digest: str
    numeric: NDArray[np.void]
    text: dict[str, str]
    small: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(SMALL, np.uint8))

    @property
    def readable(self) -> bool:
        """Whether the image can be read."""
        return not self.text["code"]


def measure_image(data: bytes | NDArray[np.uint8], digest: str | None = None) -> MeasuredImage:
    """Decode and measure one image.

    Parameters
    ----------
    data : bytes or uint8 array (height, width, 3)
        Content of a file, or an RGB image in memory.
    digest : str, optional
        Content digest of `data`; computed if omitted.

    Returns
    -------
    MeasuredImage
        For an unreadable file, ``text["code"]`` and ``text["reason"]`` say why.
    """
    digest = digest or content_digest(data)
    if isinstance(data, np.ndarray):
        facts = ImageMetadata("", "array", data.shape[0], data.shape[1])
        return measure_decoded(digest, data, data, facts)
    try:
        image, facts = read_with_metadata(data, target=SIZE)
    except ImageError as error:
        return unreadable(digest, data, error)
    return measure_decoded(digest, data, image, facts)


def unreadable(digest: str, data: bytes, error: ImageError) -> MeasuredImage:
    """Return the measurements of a file that cannot be read."""
    text = dict.fromkeys(TEXT, "") | {"code": error.code, "reason": error.reason}
    with contextlib.suppress(ImageError):
        text["format"] = detect_format(data)
    return MeasuredImage(digest, _record({"bytes": len(data)}), text)


def measure_decoded(
    digest: str,
    data: bytes | NDArray[np.uint8],
    image: NDArray[np.uint8],
    facts: ImageMetadata,
) -> MeasuredImage:
    """Measure a decoded, upright image of at least :data:`SIZE` if the file has the pixels."""
    stored = (facts.height, facts.width)
    height, width = stored[::-1] if facts.orientation >= 5 else stored
    from_pixels, grey = measure_pixels(image)
    numeric = from_pixels | {
        "bytes": data.nbytes if isinstance(data, np.ndarray) else len(data),
        "height": height, "width": width, "stored_height": stored[0], "stored_width": stored[1],
        "orientation": facts.orientation, "frames": facts.frames, "quality": facts.quality,
        "progressive": facts.progressive, "taken": facts.exif.taken,
        "hash": tuple(perceptual_hash(small_grey(grey.astype(np.float32))).tolist()),
    }  # fmt: skip
    if facts.mode.split(";")[0] in ALPHA_MODES and isinstance(data, bytes):
        numeric["transparency"] = transparency(data, image)
    if facts.exif.thumbnail:
        numeric["thumbnail_difference"] = thumbnail_difference(
            facts.exif.thumbnail,
            small_grey(grey),
            facts.orientation,
            image.shape[0] / image.shape[1],
        )
    text = {
        "format": facts.format, "mode": facts.mode, "subsampling": facts.subsampling,
        "encoder": facts.encoder, "camera": facts.exif.camera, "software": facts.exif.software,
        "code": "", "reason": "",
    }  # fmt: skip
    return MeasuredImage(digest, _record(numeric), text, small_grey(grey, SMALL[0]))


def _record(numeric: dict[str, Any]) -> NDArray[np.void]:
    return np.array(tuple((_MISSING | numeric).values()), NUMERIC)


def transparency(data: bytes, on_white: NDArray[np.uint8]) -> float:
    """Return the mean transparency of an image, 0 to 1.

    Parameters
    ----------
    data : bytes
        Content of the file.
    on_white : uint8 array (height, width, 3)
        The image composited on white; it is compared with the image composited on black.
    """
    on_black = read_image(data, target=SIZE, background=(0, 0, 0))
    return float(on_white.mean(dtype=np.float64) - on_black.mean(dtype=np.float64)) / 255


def thumbnail_difference(
    thumbnail: bytes, small: NDArray[np.uint8], orientation: int, aspect: float
) -> float:
    """Return the difference between a photograph and its EXIF thumbnail.

    Parameters
    ----------
    thumbnail : bytes
        The thumbnail, a JPEG.
    small : uint8 array (32, 32)
        The photograph, upright, small and grey.
    orientation : int
        EXIF orientation, which applies to both.
    aspect : float
        Height / width of the upright photograph.

    Returns
    -------
    float
        1 - correlation at 32 x 32 pixels, 0 to 2; NaN if the thumbnail is unreadable.
    """
    try:
        upright = apply_orientation(read_image(thumbnail, max_pixels=MAX_THUMBNAIL), orientation)
    except ImageError:
        return math.nan
    grey = np.asarray(cv2.cvtColor(upright, cv2.COLOR_RGB2GRAY), np.uint8)
    # Cameras pad a thumbnail with black if its aspect ratio differs from the image's.
    whole, inner = small_grey(grey), small_grey(_centre_crop(grey, aspect))
    return min(_distance(whole, small), _distance(inner, small))


def _centre_crop(grey: NDArray[np.uint8], aspect: float) -> NDArray[np.uint8]:
    """Return the largest centre crop of an aspect ratio (height / width)."""
    height, width = grey.shape
    high, wide = min(height, round(width * aspect)), min(width, round(height / aspect))
    top, left = (height - high) // 2, (width - wide) // 2
    return grey[top : top + max(1, high), left : left + max(1, wide)]


def _distance(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Return 1 - correlation of two images of one size; 1 if either has no contrast."""
    one, other = first.astype(np.float64), second.astype(np.float64)
    one, other = one - one.mean(), other - other.mean()
    size = math.sqrt(float((one * one).sum()) * float((other * other).sum()))
    return 1 - float((one * other).sum()) / size if size > 0 else 1.0
