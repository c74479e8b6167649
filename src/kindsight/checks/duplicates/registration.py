"""Laying one small image upon another, to see whether they show the same.

Two photographs of a burst, or an image and a part of it, differ by a little shift, turn and
scale. So the one is moved until it fits the other best, and then their fine structure is compared.
What is compared is the image minus its blurred self: brightness and large shapes, which images
of one kind have in common, do not count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Fit",
    "best_shifts",
    "correlation",
    "laid_upon",
    "likeness",
    "likeness_of_part",
]

# The reach of the blur that is taken away, in pixels: at 64 x 64, at 32 x 32, at the first look.
FINE, COARSE, QUICK = 3.0, 2.0, 1.5

# At 32 x 32 pixels bursts and crops give 0.82 and more; other images of sign-digits that come as
# far as this are below in four of five cases.
ROUGH = 0.8

# Evangelidis and Psarakis 2008: "Parametric image alignment using enhanced correlation
# coefficient maximization". Its steps, and when it stops.
STEPS = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 15, 1e-3)

# How much of the image must lie upon the other one.
OVERLAP = 0.6

# The sides of a part, against the largest that fits: 0.68 leaves 46% of the area. Fewer do for a
# first look, at 32 x 32 pixels: parts give 0.61 and more there, other images of sign-digits are
# below in four of five cases, of cats-dogs nearly all.
SCALES = (1.0, 0.96, 0.92, 0.88, 0.84, 0.8, 0.76, 0.72, 0.68)
FIRST_SCALES, FIRST = (1.0, 0.9, 0.8, 0.7), 0.58

Small = NDArray[np.uint8]


class Shift(NamedTuple):
    """Where images fit each other best when they are only shifted.

    Attributes
    ----------
    likeness : float32 array (m,)
        The correlation there, at 32 x 32 pixels.
    down, right : int64 array (m,)
        By how many pixels of 64 the second lies further down and to the right.
    """

    likeness: NDArray[np.float32]
    down: NDArray[np.int64]
    right: NDArray[np.int64]


class Fit(NamedTuple):
    """How well one image lies upon another.

    Attributes
    ----------
    likeness : float
        The correlation of their fine structure, up to 1.
    how : float32 array (2, 3)
        The affine map from places in the first to places in the second; of images that are not
        alike at half the size, of those.
    """

    likeness: float
    how: NDArray[np.float32]


def best_shifts(images: Small, pairs: NDArray[np.int64], most: int = 3) -> Shift:
    """Compare many pairs at once, with shifts of a few pixels: a quick look before the close one.

    Parameters
    ----------
    images : uint8 array (n, 64, 64)
        Each that is in a pair, once.
    pairs : int64 array (m, 2)
        Places in `images`.
    most : int
        The largest shift, in pixels of 32.
    """
    spectra = _spectrum(images)
    size = (images.shape[1] // 2, images.shape[2] // 2)
    correlation = np.fft.irfft2(np.conj(spectra[pairs[:, 0]]) * spectra[pairs[:, 1]], s=size)
    near = np.roll(correlation, (most, most), (1, 2))[:, : 2 * most + 1, : 2 * most + 1]
    flat = near.reshape(len(near), -1)
    best = flat.argmax(axis=1)
    down, right = np.divmod(best, 2 * most + 1)
    likeness = np.take_along_axis(flat, best[:, None], 1)[:, 0].astype(np.float32)
    return Shift(likeness, 2 * (down - most), 2 * (right - most))


def _spectrum(images: Small) -> NDArray[np.complex128]:
    # All below each other are halved and blurred at once: they are too small for a call each. Two
    # rows of one image give one row, and between images stands what the blur sees beyond an
    # edge, so that each is blurred as it would be alone.
    count, side = len(images), images.shape[2]
    halved = _halved(images.reshape(-1, side)).reshape(count, -1, side // 2)
    margin = round(4 * QUICK)
    tall = np.pad(halved, ((0, 0), (margin, margin), (0, 0)), mode="reflect")
    fine = _fine(tall.reshape(-1, side // 2), QUICK).reshape(tall.shape)[:, margin:-margin]
    fine = fine - fine.mean((1, 2), keepdims=True)
    fine /= np.sqrt(np.square(fine).sum((1, 2), keepdims=True)) + 1e-6
    return np.fft.rfft2(fine)


def likeness(first: Small, second: Small, down: int = 0, right: int = 0) -> Fit:
    """Say how alike two images are when the one is laid upon the other as it fits best.

    Parameters
    ----------
    first, second : uint8 arrays (64, 64)
    down, right : int
        Where to begin: by how many pixels the second lies further down and to the right.

    Returns
    -------
    Fit
        For images that are not alike at half the size the likeness is no more than 0.8; it is 0
        where they do not lie upon each other.
    """
    start = np.array([[1, 0, right / 2], [0, 1, down / 2]], np.float32)
    half = _halved(first)
    rough, found = _fitted(half, _fine(half, COARSE), _halved(second), start, COARSE)
    if rough < ROUGH:
        return Fit(rough, found)
    found[:, 2] *= 2
    ground = _fine(first, FINE)
    before = Fit(_correlation(first, ground, second, found, FINE), found)
    after = Fit(*_fitted(first, ground, second, found, FINE))
    return after if after.likeness > before.likeness else before


def laid_upon(
    first: NDArray[Any], second: Small, how: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Move the second image onto the first.

    Parameters
    ----------
    first, second : uint8 arrays (side, side)
    how : float32 array (2, 3)
        As in :class:`Fit`.

    Returns
    -------
    moved : float32 array (side, side)
        The second; where it does not reach, the first, so that no blur sees an edge there.
    inside : bool array (side, side)
        Where it reaches.
    """
    height, width = first.shape
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(
        second.astype(np.float32), how, (width, height), flags=flags,
        borderMode=cv2.BORDER_CONSTANT, borderValue=-1e4,
    )  # fmt: skip
    inside = np.asarray(moved) >= 0
    return np.where(inside, moved, first.astype(np.float32)).astype(np.float32), inside


def correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the correlation of two vectors; 0 where one of them does not vary."""
    if not one.size:
        return 0.0
    one, other = one - one.mean(), other - other.mean()
    size = math.sqrt(float(one @ one) * float(other @ other))
    return float(one @ other) / size if size > 0 else 0.0


def likeness_of_part(
    whole: Small, part: Small, whole_size: tuple[int, int], part_size: tuple[int, int]
) -> float:
    """Say how alike an image and a part of another one are, wherever the part was taken from.

    Parameters
    ----------
    whole, part : uint8 arrays (64, 64)
    whole_size, part_size : (height, width)
        Of the images themselves, which says what proportions a pixel of the small ones has.

    Returns
    -------
    float
        As :func:`likeness`; no more than 0.58 where nothing of the kind is seen at half the size.
    """
    high, wide = part_size[0] / whole_size[0], part_size[1] / whole_size[1]
    sides = (high / max(high, wide), wide / max(high, wide))
    first, _ = _placed(_halved(whole), _halved(part), sides, FIRST_SCALES, COARSE)
    if first < FIRST:
        return first
    _, start = _placed(whole, part, sides, SCALES, FINE)
    ground = _fine(part, FINE)
    return max(
        _correlation(part, ground, whole, start, FINE),
        _fitted(part, ground, whole, start, FINE)[0],
    )


def _placed(
    whole: Small, part: Small, sides: tuple[float, float], scales: Sequence[float], reach: float
) -> tuple[float, NDArray[np.float32]]:
    """Lay a part where it fits best; return the correlation there, 0 for none, and how.

    Parameters
    ----------
    whole, part : uint8 arrays (side, side)
    sides : (float, float)
        Height and width of the largest part that fits, as shares of the whole's.
    scales : sequence of float
        Shares of that.
    reach : float
        Of the blur that is taken away, in pixels.
    """
    ground, side = _fine(whole, reach), whole.shape[0]
    best, how = 0.0, np.eye(2, 3, dtype=np.float32)
    for scale in scales:
        height, width = (max(8, min(side, round(side * scale * share))) for share in sides)
        piece = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
        found = cv2.matchTemplate(ground, _fine(np.asarray(piece), reach), cv2.TM_CCOEFF_NORMED)
        at = int(found.argmax())
        if math.isfinite(found.flat[at]) and found.flat[at] > best:
            best = float(found.flat[at])
            top, left = divmod(at, found.shape[1])
            how = np.array([[width / side, 0, left], [0, height / side, top]], np.float32)
    return best, how


def _fitted(
    first: Small,
    ground: NDArray[np.float32],
    second: Small,
    start: NDArray[np.float32],
    reach: float,
) -> tuple[float, NDArray[np.float32]]:
    """Move the second image, from a start, until it fits the first; return likeness and how.

    `ground` is the first without what a blur leaves.
    """
    try:
        _, moved = cv2.findTransformECC(
            ground, _fine(second, reach), start.copy(), cv2.MOTION_AFFINE, STEPS
        )
    except cv2.error:  # it did not come to an end: they are not alike
        return 0.0, start
    found = np.array(moved, np.float32)
    return _correlation(first, ground, second, found, reach), found


def _correlation(
    first: Small,
    ground: NDArray[np.float32],
    second: Small,
    how: NDArray[np.float32],
    reach: float,
) -> float:
    """Return the correlation of the first with the second moved onto it."""
    moved, inside = laid_upon(first, second, how)
    if np.count_nonzero(inside) < OVERLAP * inside.size:
        return 0.0
    return correlation(ground[inside], _fine(moved, reach)[inside])


def _halved(image: Small) -> Small:
    return np.asarray(
        cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8
    )


def _fine(image: NDArray[Any], reach: float) -> NDArray[np.float32]:
    """Return what a blur would take away."""
    wide = image.astype(np.float32)
    return np.asarray(wide - cv2.GaussianBlur(wide, (0, 0), reach), np.float32)
