"""What the pixels of one image tell: how bright, sharp and colourful it is.

A small image takes as long as the calls that are made for it: what can be told from a table of
how many pixels have which level is told from that, and sums are OpenCV's, which of a few thousand
numbers take a tenth of the time that NumPy's take.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["SIZE", "measure_pixels"]

SIZE = (224, 224)
"""Height and width below which no JPEG is decoded."""

_AREA = SIZE[0] * SIZE[1]
_LEVELS = np.arange(256)
_SQUARES = _LEVELS**2

_COLOURS = 64
"""Pixels of each side, at least where there are so many, on which colours are measured."""

_ONE_TONE = np.ones(9)
"""Grey levels side by side that count as one tone: what JPEG makes of a plain ground."""

_LITTLE_BLUR = np.asarray(cv2.getGaussianKernel(7, 1.0, cv2.CV_32F), np.float32)
"""A Gaussian's, with a deviation of one pixel."""

_SHARES = np.array([0.01, 0.05, 0.5, 0.95, 0.99])
_PERCENTILES = ("p01", "p05", "p50", "p95", "p99")

Grey = NDArray[np.uint8]


def measure_pixels(image: NDArray[np.uint8]) -> tuple[dict[str, Any], Grey]:
    """Measure a decoded image.

    Parameters
    ----------
    image : uint8 array (height, width, 3)
        RGB, at :data:`SIZE` or more where the file has so many pixels.

    Returns
    -------
    numbers : dict of str to float
        By their names in :data:`kindsight.checks.measure.NUMERIC`: brightness, contrast,
        percentiles, entropy and plainness; sharpness, softness and smear; colours.
    grey : uint8 array
        The image in grey, with no more pixels than :data:`SIZE` has.
    """
    # Grey first: one channel takes a third of the time to resize.
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    height, width = grey.shape
    scale = math.sqrt(_AREA / (height * width))
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        grey = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)
    return _measure_levels(grey) | _measure_edges(grey) | _measure_colours(image), grey


def _measure_levels(grey: Grey) -> dict[str, Any]:
    """Measure how bright it is, and how its grey levels are spread."""
    counts = _histogram(grey)
    total = grey.size
    mean = float(counts @ _LEVELS) / total
    shares = counts[counts > 0] / total
    below = counts.cumsum()
    return {
        "brightness": mean,
        "contrast": math.sqrt(max(0.0, float(counts @ _SQUARES) / total - mean * mean)),
        "entropy": -float(shares @ np.log2(shares)),
        "plain": np.convolve(counts, _ONE_TONE).max() / total,
        **dict(zip(_PERCENTILES, below.searchsorted(_SHARES * total).tolist(), strict=True)),
    }


def _histogram(levels: Grey) -> NDArray[np.int64]:
    """Count how many pixels have which of 256 levels."""
    counts = cv2.calcHist([levels], [0], None, [256], [0, 256])
    return np.asarray(counts, np.int64).ravel()


def _measure_edges(grey: Grey) -> dict[str, float]:
    """Measure how sharp it is, in three ways.

    The variance of the Laplacian (Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield
    microscopy") is what is usually taken, but it is as much a measure of contrast and of how much
    there is to see. The other two compare the image with itself after a little blur, which
    changes a sharp image much and a blurred one hardly. `softness` is the share of the
    Laplacian's energy that is left. `smear` is the blur metric of Crete et al. 2007 ("The blur
    effect"), the larger of both directions: it also sees blur in one direction only, as motion
    makes it.
    """
    # Whole numbers, which take half the memory that floats take.
    edges = np.asarray(cv2.Laplacian(grey, cv2.CV_16S), np.int16)
    energy = cv2.norm(edges, cv2.NORM_L2SQR) / edges.size
    # A blur of the Laplacian is the Laplacian of the blurred image.
    blurred = cv2.sepFilter2D(edges, cv2.CV_32F, _LITTLE_BLUR, _LITTLE_BLUR)
    left = cv2.norm(blurred, cv2.NORM_L2SQR) / edges.size
    return {
        "sharpness": energy - cv2.mean(edges)[0] ** 2,
        "softness": left / energy if energy > 0 else 1.0,
        "smear": max(_smear(grey), _smear(np.asarray(cv2.transpose(grey), np.uint8))),
    }


def _smear(grey: Grey) -> float:
    """Return how much of the change from row to row is left after a blur over five rows: 0 to 1."""
    blurred = np.asarray(cv2.blur(grey, (1, 5)), np.uint8)
    change = cv2.absdiff(grey[1:], grey[:-1])
    # Saturated: where the blur makes the change larger, nothing is lost.
    lost = cv2.subtract(change, cv2.absdiff(blurred[1:], blurred[:-1]))
    total = cv2.sumElems(change)[0] if len(grey) > 1 else 0.0
    return 1.0 - float(cv2.sumElems(lost)[0]) / total if total > 0 else 1.0


def _measure_colours(image: NDArray[np.uint8]) -> dict[str, float]:
    """Measure the mean colour and how much colour there is.

    Hasler and Suesstrunk 2003, "Measuring colorfulness in natural images".
    """
    # Whole factors are what the area's mean is fast for; one for each side, so that little is left
    # of an image of any shape: a strip may be a million times as long as it is wide.
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
    """Return the spread of red against green and of yellow against blue, and 0.3 of their mean.

    With r, g and b the channels, the latter is (r + g) / 2 - b; the sum of the squares of its
    double, (r - b) + (g - b), is twice that of r - b and of g - b without that of r - g.
    """
    red, green, blue = channels
    first = cv2.norm(red, green, cv2.NORM_L2SQR)
    second = 2 * (cv2.norm(red, blue, cv2.NORM_L2SQR) + cv2.norm(green, blue, cv2.NORM_L2SQR))
    one, other = means[0] - means[1], (means[0] + means[1]) / 2 - means[2]
    here = first / red.size - one * one
    there = (second - first) / (4 * red.size) - other * other
    return math.sqrt(max(0.0, here) + max(0.0, there)) + 0.3 * math.hypot(one, other)


def _percentile(counts: NDArray[np.int64], share: float) -> float:
    """Return what `numpy.quantile` gives of levels, by its default method, from their counts."""
    below = counts.cumsum()
    last = int(below[-1]) - 1
    place = share * last
    low = int(place)
    # The level in a place is the first of which, with all below it, there are more than that.
    first, second = below.searchsorted([low, min(low + 1, last)], side="right").tolist()
    return float(first) + (place - low) * float(second - first)
