"""What is measured of one picture, from one reading of its file.

The picture is decoded once, a large JPEG at reduced size (nowhere below 224 x 224, the size that
networks see: the same decoding that features are made from). Nothing that is measured needs more:
size, orientation and frames are the file's own words; brightness, contrast and the hash are means
over areas; and blur that does not show at this size does not show to a network either. The whole
file is decompressed in any case, so damage anywhere in it is met.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.errors import PictureError
from kindsight.pictures import content_digest
from kindsight.pictures._convert import turn
from kindsight.pictures._formats import detect_format
from kindsight.pictures.facts import ALPHA_MODES, PictureFacts
from kindsight.pictures.perceptual import perceptual_hash, small_grey
from kindsight.pictures.read import read_picture, read_with_facts

__all__ = ["NUMBERS", "SIZE", "SMALL", "WORDS", "MeasuredPicture", "measure_picture"]

SIZE = (224, 224)
"""Height and width below which no JPEG is decoded."""

SMALL = (64, 64)
"""Height and width of the small grey version that is kept, for comparing pictures closely."""

NUMBERS = np.dtype(
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
"""The numbers, by name; see :class:`kindsight.catalog.checks.Measurements`."""

WORDS = ("format", "mode", "subsampling", "encoder", "camera", "software", "code", "reason")
"""The texts, by name."""

_AREA = SIZE[0] * SIZE[1]
_LEVELS = np.arange(256)

_COLOURS = 64
"""Pixels of each side, at least where there are so many, on which colours are measured."""

_ONE_TONE = 9
"""Grey levels side by side that count as one tone: what JPEG makes of a plain ground."""

MAX_THUMBNAIL = 1_000_000
"""Pixels that the small picture in EXIF data may have; the standard says 160 x 120."""


@dataclass(frozen=True)
class MeasuredPicture:
    """What was measured of one picture.

    Parameters
    ----------
    digest : str
        Of its content.
    numbers : array
        One record of :data:`NUMBERS`; NaN, or 0 for integers, where the picture cannot be read.
    words : dict
        By the names of :data:`WORDS`.
    small : uint8 array (64, 64)
        The picture in small and grey; zeros where it cannot be read.
    """

    digest: str
    numbers: NDArray[np.void]
    words: dict[str, str]
    small: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(SMALL, np.uint8))

    @property
    def readable(self) -> bool:
        """Whether it is a picture that can be read."""
        return not self.words["code"]


def measure_picture(data: bytes | NDArray[np.uint8], digest: str | None = None) -> MeasuredPicture:
    """Read and measure one picture.

    Parameters
    ----------
    data : bytes or uint8 array (height, width, 3)
        The content of a file, or a picture in memory.
    digest : str, optional
        Its content digest, if that is known.

    Returns
    -------
    MeasuredPicture
        Also for a file that cannot be read: what is wrong is then in its words.
    """
    digest = digest or content_digest(data)
    if isinstance(data, np.ndarray):
        facts = PictureFacts("", "array", data.shape[0], data.shape[1])
        return measure_decoded(digest, data, data, facts)
    try:
        picture, facts = read_with_facts(data, target=SIZE)
    except PictureError as error:
        return unreadable(digest, data, error)
    return measure_decoded(digest, data, picture, facts)


def unreadable(digest: str, data: bytes, error: PictureError) -> MeasuredPicture:
    """Return what can be said of a file that cannot be read."""
    words = dict.fromkeys(WORDS, "") | {"code": error.code, "reason": error.reason}
    with contextlib.suppress(PictureError):
        words["format"] = detect_format(data)
    numbers = _no_numbers()
    numbers["bytes"] = len(data)
    return MeasuredPicture(digest, numbers, words)


def measure_decoded(
    digest: str,
    data: bytes | NDArray[np.uint8],
    picture: NDArray[np.uint8],
    facts: PictureFacts,
) -> MeasuredPicture:
    """Measure a picture that is decoded already: at :data:`SIZE` or more, turned upright."""
    numbers = _no_numbers()
    upright = (facts.height, facts.width)
    numbers["height"], numbers["width"] = upright[::-1] if facts.orientation >= 5 else upright
    numbers["stored_height"], numbers["stored_width"] = upright
    numbers["bytes"] = data.nbytes if isinstance(data, np.ndarray) else len(data)
    for name in ("orientation", "frames", "quality", "progressive"):
        numbers[name] = getattr(facts, name)
    numbers["taken"] = facts.exif.taken
    grey = _measure_pixels(numbers, picture)
    numbers["hash"] = perceptual_hash(small_grey(grey.astype(np.float32)))
    if facts.mode.split(";")[0] in ALPHA_MODES and isinstance(data, bytes):
        numbers["transparency"] = _transparency(data, picture)
    if facts.exif.thumbnail:
        proportion = picture.shape[0] / picture.shape[1]
        numbers["thumbnail"] = _difference(
            facts.exif.thumbnail, small_grey(grey), facts.orientation, proportion
        )
    words = {
        "format": facts.format, "mode": facts.mode, "subsampling": facts.subsampling,
        "encoder": facts.encoder, "camera": facts.exif.camera, "software": facts.exif.software,
        "code": "", "reason": "",
    }  # fmt: skip
    return MeasuredPicture(digest, numbers, words, small_grey(grey, SMALL[0]))


def _no_numbers() -> NDArray[np.void]:
    numbers = np.zeros((), NUMBERS)
    for name in NUMBERS.names or ():
        if NUMBERS[name].kind == "f":
            numbers[name] = np.nan
    return numbers


def _measure_pixels(numbers: NDArray[np.void], picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Fill in what pixels tell; return the grey picture at the working size."""
    # Grey first: one channel takes a third of the time to resize.
    grey = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)
    height, width = grey.shape
    scale = math.sqrt(_AREA / (height * width))
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        grey = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)
    counts = np.asarray(cv2.calcHist([grey], [0], None, [256], [0, 256])).ravel()
    counts = counts.astype(np.int64)
    total = grey.size
    mean = float(counts @ _LEVELS) / total
    shares = counts[counts > 0] / total
    numbers["brightness"] = mean
    numbers["contrast"] = math.sqrt(max(0.0, float(counts @ _LEVELS**2) / total - mean * mean))
    numbers["entropy"] = -float(shares @ np.log2(shares))
    numbers["plain"] = np.convolve(counts, np.ones(_ONE_TONE)).max() / total
    below = np.cumsum(counts)
    for name, share in (("p01", 0.01), ("p05", 0.05), ("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        numbers[name] = np.searchsorted(below, share * total)
    _measure_edges(numbers, grey)
    _measure_colours(numbers, picture)
    return grey


def _measure_edges(numbers: NDArray[np.void], grey: NDArray[np.uint8]) -> None:
    """Fill in how sharp it is, in three ways.

    The variance of the Laplacian (Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield
    microscopy") is what is usually taken, but it is as much a measure of contrast and of how much
    there is to see. The other two compare the picture with itself after a little blur, which
    changes a sharp picture much and a blurred one hardly. `softness` is the share of the
    Laplacian's energy that is left. `smear` is the blur metric of Crete et al. 2007 ("The blur
    effect"), the larger of both directions: it also sees blur in one direction only, as motion
    makes it.
    """
    edges = np.asarray(cv2.Laplacian(grey, cv2.CV_32F), np.float32)
    energy = cv2.norm(edges, cv2.NORM_L2SQR) / edges.size
    numbers["sharpness"] = energy - cv2.mean(edges)[0] ** 2
    # A blur of the Laplacian is the Laplacian of the blurred picture.
    left = cv2.norm(cv2.GaussianBlur(edges, (7, 7), 1.0), cv2.NORM_L2SQR) / edges.size
    numbers["softness"] = left / energy if energy > 0 else 1.0
    numbers["smear"] = max(_smear(grey), _smear(np.ascontiguousarray(grey.T)))


def _smear(grey: NDArray[np.uint8]) -> float:
    """Return how much of the change from row to row is left after a blur over five rows: 0 to 1."""
    blurred = np.asarray(cv2.blur(grey, (1, 5)), np.uint8)
    change = cv2.absdiff(grey[1:], grey[:-1])
    # Saturated: where the blur makes the change larger, nothing is lost.
    lost = cv2.subtract(change, cv2.absdiff(blurred[1:], blurred[:-1]))
    total = cv2.sumElems(change)[0] if len(grey) > 1 else 0.0
    return 1.0 - float(cv2.sumElems(lost)[0]) / total if total > 0 else 1.0


def _measure_colours(numbers: NDArray[np.void], picture: NDArray[np.uint8]) -> None:
    """Fill in the mean colour and how much colour there is.

    Hasler and Suesstrunk 2003, "Measuring colorfulness in natural images".
    """
    # Whole factors are what the area's mean is fast for; one for each side, so that little is left
    # of a picture of any shape: a strip may be a million times as long as it is wide.
    height, width = picture.shape[:2]
    down, across = max(1, height // _COLOURS), max(1, width // _COLOURS)
    high, wide = height // down, width // across
    inside = picture[: high * down, : wide * across]
    colours = np.asarray(cv2.resize(inside, (wide, high), interpolation=cv2.INTER_AREA), np.uint8)
    red, green, blue = cv2.split(colours.astype(np.float32))
    numbers["red"], numbers["green"], numbers["blue"], _ = cv2.mean(colours)
    # Of a few thousand numbers OpenCV's sums take a tenth of the time that NumPy's take.
    middle, spread = cv2.meanStdDev(cv2.merge((red - green, (red + green) / 2 - blue)))
    offset = math.hypot(middle[0, 0], middle[1, 0])
    numbers["colourfulness"] = math.hypot(spread[0, 0], spread[1, 0]) + 0.3 * offset
    most = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    numbers["chroma"] = _percentile(most.ravel(), 0.99)


def _percentile(values: NDArray[np.float32], share: float) -> float:
    """Return what `numpy.quantile` does for its default method, at a third of its time."""
    place = share * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(values) - 1)
    found = np.partition(values, (low, high))
    return float(found[low]) + (place - low) * float(found[high] - found[low])


def _transparency(data: bytes, on_white: NDArray[np.uint8]) -> float:
    """Return how transparent a picture is on average, 0 to 1: laid on black it is that darker."""
    on_black = read_picture(data, target=SIZE, background=(0, 0, 0))
    return float(on_white.mean(dtype=np.float64) - on_black.mean(dtype=np.float64)) / 255


def _difference(
    thumbnail: bytes, small: NDArray[np.uint8], orientation: int, proportion: float
) -> float:
    """Return how a photograph differs from the small picture in its EXIF data.

    One minus the correlation of both at 32 x 32 pixels, 0 to 2; NaN where it cannot be told.
    """
    try:
        shown = turn(read_picture(thumbnail, max_pixels=MAX_THUMBNAIL), orientation)
    except PictureError:
        return math.nan
    grey = np.asarray(cv2.cvtColor(shown, cv2.COLOR_RGB2GRAY), np.uint8)
    # Cameras fill the rest of a thumbnail with black where its proportions are not the picture's.
    whole = small_grey(grey)
    inner = small_grey(_cropped(grey, proportion))
    return min(_distance(whole, small), _distance(inner, small))


def _cropped(grey: NDArray[np.uint8], proportion: float) -> NDArray[np.uint8]:
    """Return the middle of a picture, as large as can be, of a proportion (height / width)."""
    height, width = grey.shape
    high, wide = min(height, round(width * proportion)), min(width, round(height / proportion))
    top, left = (height - high) // 2, (width - wide) // 2
    return grey[top : top + max(1, high), left : left + max(1, wide)]


def _distance(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """One minus the correlation of two pictures of one size; 1 where one has no contrast."""
    one, other = first.astype(np.float64), second.astype(np.float64)
    one, other = one - one.mean(), other - other.mean()
    size = math.sqrt(float((one * one).sum()) * float((other * other).sum()))
    return 1 - float((one * other).sum()) / size if size > 0 else 1.0
