"""Measure the pixels of one image: brightness, contrast, sharpness and colour.

On small images the overhead of each call dominates, so percentiles and moments are computed from
one histogram, and sums by OpenCV, which is ten times as fast as NumPy on a few thousand values.
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
"""Height and width that JPEGs are decoded to at least."""

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


def measure_pixels(image: NDArray[np.uint8]) -> tuple[dict[str, Any], Grey]:
    """Measure a decoded image.

    Parameters
    ----------
    image : uint8 array (height, width, 3)
        RGB, at least :data:`SIZE` if the file has that many pixels.

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
