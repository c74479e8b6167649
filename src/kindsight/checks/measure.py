"""Measure one image: file facts, brightness, sharpness, colour, perceptual hash.

The image is decoded once, a large JPEG at reduced size but never below 224 x 224 pixels, the input
size of most networks; features are computed from the same decoding. Blur that is invisible at this
size is invisible to a network, too. The whole file is decompressed, so damage anywhere is noticed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.digest import content_digest
from kindsight.errors import ImageError
from kindsight.images.convert import ValueRange, apply_orientation
from kindsight.images.formats import detect_format
from kindsight.images.hashes import perceptual_hash, small_grey
from kindsight.images.metadata import ALPHA_MODES, ImageMetadata
from kindsight.images.read import read_image, read_with_metadata

__all__ = [
    "NUMERIC", "SIZE", "SMALL", "TEXT", "MeasuredImage", "measure_decoded", "measure_image",
    "measure_pixels", "thumbnail_difference", "transparency", "unreadable",
]  # fmt: skip

SMALL = (64, 64)
"""Height and width of the small grey image that is cached to compare images pixel by pixel."""

MAX_THUMBNAIL = 1_000_000
"""Maximum pixels of an EXIF thumbnail; the standard says 160 x 120."""

_KIND_OF = {
    "bytes": np.int64, "height": np.int32, "width": np.int32, "stored_height": np.int32,
    "stored_width": np.int32, "orientation": np.int8, "frames": np.int32, "quality": np.float32,
    "progressive": np.bool_, "taken": np.float64,
}  # fmt: skip
_FLOATS = (
    "transparency", "thumbnail_difference", "brightness", "red", "green", "blue", "p01", "p05",
    "p50", "p95", "p99", "contrast", "entropy", "uniformity", "sharpness", "softness", "blur",
    "colourfulness", "chroma",
)  # fmt: skip
NUMERIC = np.dtype(
    [*_KIND_OF.items(), *((name, np.float32) for name in _FLOATS), ("hash", np.uint64, (4,))]
)
"""Numeric columns; see :class:`kindsight.checks.Measurements`."""

TEXT = ("format", "mode", "subsampling", "encoder", "camera", "software", "code", "reason")
"""Text columns."""

_MISSING: dict[str, Any] = {
    name: math.nan if NUMERIC[name].kind == "f" else (0,) * 4 if name == "hash" else 0
    for name in NUMERIC.names or ()
}
"""Numeric values of an unreadable image."""

SIZE = (224, 224)
"""Minimum height and width to which JPEGs are decoded."""

_AREA = SIZE[0] * SIZE[1]
_LEVELS = np.arange(256)
_SQUARES = _LEVELS**2

_COLOURS = 64
"""Minimum height and width, in pixels, at which colours are measured."""

_ONE_TONE = np.ones(9)
"""Nine adjacent grey levels count as one tone: the spread of a uniform background in a JPEG."""

_SLIGHT_BLUR = np.asarray(cv2.getGaussianKernel(7, 1.0, cv2.CV_32F), np.float32)
"""Gaussian kernel with a standard deviation of one pixel."""

_FRACTIONS = np.array([0.01, 0.05, 0.5, 0.95, 0.99])
_PERCENTILES = ("p01", "p05", "p50", "p95", "p99")

Grey = NDArray[np.uint8]


@dataclass(frozen=True)
class MeasuredImage:
    """Measurements of one image."""

    digest: str  # content digest
    # one record of :data:`NUMERIC`; NaN, or 0 for integers, if the image is unreadable
    numeric: NDArray[np.void]
    text: dict[str, str]  # values of :data:`TEXT`
    # small grey image; zeros if the image is unreadable
    small: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(SMALL, np.uint8))

    @property
    def readable(self) -> bool:
        """Whether the image can be read."""
        return not self.text["code"]


def measure_image(
    data: bytes | NDArray[np.uint8],
    digest: str | None = None,
    value_range: ValueRange | None = None,
) -> MeasuredImage:
    """Decode and measure one image.

    - `data`: bytes or uint8 array (height, width, 3); content of a file, or an RGB image in memory.
    - `digest`: content digest of `data`; computed if omitted.

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
        image, facts = read_with_metadata(data, target=SIZE, value_range=value_range)
    except ImageError as error:
        return unreadable(digest, data, error)
    return measure_decoded(digest, data, image, facts, value_range)


def unreadable(digest: str, data: bytes, error: ImageError) -> MeasuredImage:
    """Return the measurements of a file that cannot be read."""
    text = dict.fromkeys(TEXT, "") | {"code": error.code, "reason": error.reason}
    with contextlib.suppress(ImageError):
        text["format"] = detect_format(data)
    return MeasuredImage(digest, _record({"bytes": len(data)}), text)


def measure_decoded(
    digest: str, data: bytes | NDArray[np.uint8], image: NDArray[np.uint8], facts: ImageMetadata,
    value_range: ValueRange | None = None,
) -> MeasuredImage:  # fmt: skip
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
        numeric["transparency"] = transparency(data, image, value_range)
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


def transparency(
    data: bytes, on_white: NDArray[np.uint8], value_range: ValueRange | None = None
) -> float:
    """Return the mean transparency of an image, 0 to 1.

    - `data`: bytes; content of the file.
    - `on_white`: uint8 array (height, width, 3); the image composited on white; it is compared with
      the image composited on black.
    """
    on_black = read_image(data, target=SIZE, background=(0, 0, 0), value_range=value_range)
    return float(on_white.mean(dtype=np.float64) - on_black.mean(dtype=np.float64)) / 255


def thumbnail_difference(
    thumbnail: bytes, small: NDArray[np.uint8], orientation: int, aspect: float
) -> float:
    """Return the difference between a photograph and its EXIF thumbnail.

    - `thumbnail`: bytes; the thumbnail, a JPEG.
    - `small`: uint8 array (32, 32); the photograph, upright, small and grey.
    - `orientation`: EXIF orientation, which applies to both.
    - `aspect`: height / width of the upright photograph.

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


def measure_pixels(image: NDArray[np.uint8]) -> tuple[dict[str, Any], Grey]:
    """Measure a decoded image.

    - `image`: uint8 array (height, width, 3); RGB, at least :data:`SIZE` if the file has that many
      pixels.

    Returns
    -------
    numbers : dict of str to float
        By column of :data:`kindsight.checks.measure.NUMERIC`.
    grey : uint8 array
        The grey image, with at most as many pixels as :data:`SIZE`.
    """
    # Converted before resizing: one channel takes a third of the time.
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    height, width = grey.shape
    scale = math.sqrt(_AREA / (height * width))
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        grey = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)
    return _measure_levels(grey) | _measure_edges(grey) | _measure_colours(image), grey


def _record(numeric: dict[str, Any]) -> NDArray[np.void]:
    return np.array(tuple((_MISSING | numeric).values()), NUMERIC)


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


def _measure_levels(grey: Grey) -> dict[str, Any]:
    """Measure brightness, contrast, entropy, uniformity and percentiles."""
    counts = _histogram(grey)
    total = grey.size
    mean = float(counts @ _LEVELS) / total
    shares = counts[counts > 0] / total
    below = counts.cumsum()
    return {
        "brightness": mean,
        "contrast": math.sqrt(max(0.0, float(counts @ _SQUARES) / total - mean * mean)),
        "entropy": -float(shares @ np.log2(shares)),
        "uniformity": np.convolve(counts, _ONE_TONE).max() / total,
        **dict(zip(_PERCENTILES, below.searchsorted(_FRACTIONS * total).tolist(), strict=True)),
    }


def _histogram(levels: Grey) -> NDArray[np.int64]:
    """Return the number of pixels of each of the 256 levels."""
    counts = cv2.calcHist([levels], [0], None, [256], [0, 256])
    return np.asarray(counts, np.int64).ravel()


def _measure_edges(grey: Grey) -> dict[str, float]:
    """Measure sharpness, softness and blur.

    Sharpness is the variance of the Laplacian (Pech-Pacheco et al. 2000, "Diatom autofocusing in
    brightfield microscopy"), which also depends on contrast and detail. The other two compare the
    image with a slightly blurred copy, which differs much from a sharp image and little from a
    blurred one. Softness is the fraction of the Laplacian's energy that the blur leaves. Blur is
    the metric of Crete et al. 2007 ("The blur effect"), the maximum over both directions, so it
    also detects motion blur.
    """
    # Integers take half the memory of floats.
    edges = np.asarray(cv2.Laplacian(grey, cv2.CV_16S), np.int16)
    energy = cv2.norm(edges, cv2.NORM_L2SQR) / edges.size
    # Blurring the Laplacian equals the Laplacian of the blurred image.
    blurred = cv2.sepFilter2D(edges, cv2.CV_32F, _SLIGHT_BLUR, _SLIGHT_BLUR)
    left = cv2.norm(blurred, cv2.NORM_L2SQR) / edges.size
    return {
        "sharpness": energy - cv2.mean(edges)[0] ** 2,
        "softness": left / energy if energy > 0 else 1.0,
        "blur": max(_crete_blur(grey), _crete_blur(np.asarray(cv2.transpose(grey), np.uint8))),
    }


def _crete_blur(grey: Grey) -> float:
    """Return the fraction of row-to-row variation left by a blur over five rows, 0 to 1."""
    blurred = np.asarray(cv2.blur(grey, (1, 5)), np.uint8)
    change = cv2.absdiff(grey[1:], grey[:-1])
    # Saturating: where the blur increases the variation, nothing is lost.
    lost = cv2.subtract(change, cv2.absdiff(blurred[1:], blurred[:-1]))
    total = cv2.sumElems(change)[0] if len(grey) > 1 else 0.0
    return 1.0 - float(cv2.sumElems(lost)[0]) / total if total > 0 else 1.0


def _measure_colours(image: NDArray[np.uint8]) -> dict[str, float]:
    """Measure the mean colour, colourfulness and chroma.

    Colourfulness: Hasler and Suesstrunk 2003, "Measuring colorfulness in natural images".
    """
    # Area averaging is fast for integer factors. Each axis has its own factor, because a strip may
    # be a million times as long as it is wide.
    height, width = image.shape[:2]
    down, across = max(1, height // _COLOURS), max(1, width // _COLOURS)
    high, wide = height // down, width // across
    colours = image[: high * down, : wide * across]
    if down > 1 or across > 1:
        size = (wide, high)
        colours = np.asarray(cv2.resize(colours, size, interpolation=cv2.INTER_AREA), np.uint8)
    means = cv2.mean(colours)[:3]
    channels = cv2.split(colours)
    red, green, blue = channels
    most = cv2.max(cv2.max(red, green), blue)
    least = cv2.min(cv2.min(red, green), blue)
    return {
        **dict(zip(("red", "green", "blue"), means, strict=True)),
        "colourfulness": _colourfulness(channels, means),
        "chroma": _percentile(_histogram(np.asarray(cv2.subtract(most, least), np.uint8)), 0.99),
    }


def _colourfulness(channels: Sequence[Any], means: Sequence[float]) -> float:
    """Return the spread of the opponent channels r - g and (r + g) / 2 - b plus 0.3 of their mean.

    Squared norms of channel differences suffice: |2 (r + g) / 2 - 2 b|^2 = 2 |r - b|^2
    + 2 |g - b|^2 - |r - g|^2.
    """
    red, green, blue = channels
    first = cv2.norm(red, green, cv2.NORM_L2SQR)
    second = 2 * (cv2.norm(red, blue, cv2.NORM_L2SQR) + cv2.norm(green, blue, cv2.NORM_L2SQR))
    red_green, yellow_blue = means[0] - means[1], (means[0] + means[1]) / 2 - means[2]
    variance = max(0.0, first / red.size - red_green * red_green)
    variance += max(0.0, (second - first) / (4 * red.size) - yellow_blue * yellow_blue)
    return math.sqrt(variance) + 0.3 * math.hypot(red_green, yellow_blue)


def _percentile(counts: NDArray[np.int64], fraction: float) -> float:
    """Return the same as :func:`numpy.quantile` of the levels, from their histogram."""
    below = counts.cumsum()
    last = int(below[-1]) - 1
    position = fraction * last
    low = int(position)
    first, second = below.searchsorted([low, min(low + 1, last)], side="right").tolist()
    return float(first) + (position - low) * float(second - first)
