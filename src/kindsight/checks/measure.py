"""What is measured of one image, from one reading of its file.

The image is decoded once, a large JPEG at reduced size (nowhere below 224 x 224, the size that
networks see: the same decoding that features are made from). Nothing that is measured needs more:
size, orientation and frames are the file's own words; brightness, contrast and the hash are means
over areas; and blur that does not show at this size does not show to a network either. The whole
file is decompressed in any case, so damage anywhere in it is met.
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
    "difference",
    "measure_image",
    "transparency",
]

# SECTION: What a file holds beside the image that is seen: transparency, and a small one in EXIF
# data.

MAX_THUMBNAIL = 1_000_000
"""Pixels that the small image in EXIF data may have; the standard says 160 x 120."""


def transparency(data: bytes, on_white: NDArray[np.uint8]) -> float:
    """Return how transparent an image is on average, 0 to 1: laid on black it is that darker.

    Parameters
    ----------
    data : bytes
        Its file.
    on_white : uint8 array (height, width, 3)
        The image, as it is read otherwise.
    """
    on_black = read_image(data, target=SIZE, background=(0, 0, 0))
    return float(on_white.mean(dtype=np.float64) - on_black.mean(dtype=np.float64)) / 255


def difference(
    thumbnail: bytes, small: NDArray[np.uint8], orientation: int, proportion: float
) -> float:
    """Return how a photograph differs from the small image in its EXIF data.

    Parameters
    ----------
    thumbnail : bytes
        The small image: a JPEG.
    small : uint8 array (32, 32)
        The photograph in small and grey, turned upright.
    orientation : int
        EXIF's, which holds for both.
    proportion : float
        Height / width of the photograph, turned upright.

    Returns
    -------
    float
        One minus the correlation of both at 32 x 32 pixels, 0 to 2; NaN where it cannot be told.
    """
    try:
        shown = apply_orientation(read_image(thumbnail, max_pixels=MAX_THUMBNAIL), orientation)
    except ImageError:
        return math.nan
    grey = np.asarray(cv2.cvtColor(shown, cv2.COLOR_RGB2GRAY), np.uint8)
    # Cameras fill the rest of a thumbnail with black where its proportions are not the image's.
    whole = small_grey(grey)
    inner = small_grey(_cropped(grey, proportion))
    return min(_distance(whole, small), _distance(inner, small))


def _cropped(grey: NDArray[np.uint8], proportion: float) -> NDArray[np.uint8]:
    """Return the middle of an image, as large as can be, of a proportion (height / width)."""
    height, width = grey.shape
    high, wide = min(height, round(width * proportion)), min(width, round(height / proportion))
    top, left = (height - high) // 2, (width - wide) // 2
    return grey[top : top + max(1, high), left : left + max(1, wide)]


def _distance(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """One minus the correlation of two images of one size; 1 where one has no contrast."""
    one, other = first.astype(np.float64), second.astype(np.float64)
    one, other = one - one.mean(), other - other.mean()
    size = math.sqrt(float((one * one).sum()) * float((other * other).sum()))
    return 1 - float((one * other).sum()) / size if size > 0 else 1.0


SMALL = (64, 64)
"""Height and width of the small grey version that is kept, for comparing images closely."""

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
        ("thumbnail", np.float32),
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
        ("plain", np.float32),
        ("sharpness", np.float32),
        ("softness", np.float32),
        ("smear", np.float32),
        ("colourfulness", np.float32),
        ("chroma", np.float32),
        ("hash", np.uint64, (4,)),
    ]
)
"""The numbers, by name; see :class:`kindsight.checks.Measurements`."""

TEXT = ("format", "mode", "subsampling", "encoder", "camera", "software", "code", "reason")
"""The texts, by name."""

_NOTHING: dict[str, Any] = {
    name: math.nan if NUMERIC[name].kind == "f" else (0,) * 4 if name == "hash" else 0
    for name in NUMERIC.names or ()
}
"""The numbers of an image that cannot be read."""


@dataclass(frozen=True)
class MeasuredImage:
    """What was measured of one image.

    Parameters
    ----------
    digest : str
        Of its content.
    numbers : array
        One record of :data:`NUMERIC`; NaN, or 0 for integers, where the image cannot be read.
    words : dict
        By the names of :data:`TEXT`.
    small : uint8 array (64, 64)
        The image in small and grey; zeros where it cannot be read.
    """

    digest: str
    numbers: NDArray[np.void]
    words: dict[str, str]
    small: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(SMALL, np.uint8))

    @property
    def readable(self) -> bool:
        """Whether it is an image that can be read."""
        return not self.words["code"]


def measure_image(data: bytes | NDArray[np.uint8], digest: str | None = None) -> MeasuredImage:
    """Read and measure one image.

    Parameters
    ----------
    data : bytes or uint8 array (height, width, 3)
        The content of a file, or an image in memory.
    digest : str, optional
        Its content digest, if that is known.

    Returns
    -------
    MeasuredImage
        Also for a file that cannot be read: what is wrong is then in its words.
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
    """Return what can be said of a file that cannot be read."""
    words = dict.fromkeys(TEXT, "") | {"code": error.code, "reason": error.reason}
    with contextlib.suppress(ImageError):
        words["format"] = detect_format(data)
    numbers = _record({"bytes": len(data)})
    return MeasuredImage(digest, numbers, words)


def measure_decoded(
    digest: str,
    data: bytes | NDArray[np.uint8],
    image: NDArray[np.uint8],
    facts: ImageMetadata,
) -> MeasuredImage:
    """Measure an image that is decoded already: at :data:`SIZE` or more, turned upright."""
    stored = (facts.height, facts.width)
    height, width = stored[::-1] if facts.orientation >= 5 else stored
    from_pixels, grey = measure_pixels(image)
    numbers = from_pixels | {
        "bytes": data.nbytes if isinstance(data, np.ndarray) else len(data),
        "height": height, "width": width, "stored_height": stored[0], "stored_width": stored[1],
        "orientation": facts.orientation, "frames": facts.frames, "quality": facts.quality,
        "progressive": facts.progressive, "taken": facts.exif.taken,
        "hash": tuple(perceptual_hash(small_grey(grey.astype(np.float32))).tolist()),
    }  # fmt: skip
    if facts.mode.split(";")[0] in ALPHA_MODES and isinstance(data, bytes):
        numbers["transparency"] = transparency(data, image)
    if facts.exif.thumbnail:
        numbers["thumbnail"] = difference(
            facts.exif.thumbnail,
            small_grey(grey),
            facts.orientation,
            image.shape[0] / image.shape[1],
        )
    words = {
        "format": facts.format, "mode": facts.mode, "subsampling": facts.subsampling,
        "encoder": facts.encoder, "camera": facts.exif.camera, "software": facts.exif.software,
        "code": "", "reason": "",
    }  # fmt: skip
    return MeasuredImage(digest, _record(numbers), words, small_grey(grey, SMALL[0]))


def _record(numbers: dict[str, Any]) -> NDArray[np.void]:
    """Return numbers by name as a record of :data:`NUMERIC`; what is not named does not apply."""
    return np.array(tuple((_NOTHING | numbers).values()), NUMERIC)
