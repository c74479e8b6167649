"""Register pairs of small images: align one with the other and compare their fine structure.

Two photographs of a burst, or an image and a crop of it, differ by a small shift, rotation and
scale. One image is aligned with the other, then their high-pass filtered versions (image minus
blurred image) are correlated. Brightness and large shapes, which images of one class have in
common, do not count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Registration", "Shifts", "best_shifts", "correlation", "crop_similarity", "register",
    "warp_onto",
]  # fmt: skip

# Standard deviation in pixels of the blur that is subtracted: at 64 x 64, at 32 x 32, and in the
# search for shifts.
FINE, COARSE, SHIFT = 3.0, 2.0, 1.5

# Minimum correlation at 32 x 32 pixels. Bursts and crops reach 0.82; four in five other images of
# sign-digits that get this far are below.
MIN_COARSE = 0.8

# Stopping criteria of the ECC alignment (Evangelidis and Psarakis 2008, "Parametric image alignment
# using enhanced correlation coefficient maximization").
ECC_CRITERIA = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 15, 1e-3)

# Minimum fraction of the image that the aligned image covers.
OVERLAP = 0.6

# Side lengths of a crop relative to the largest that fits; 0.68 is 46% of the area.
CROP_SCALES = (1.0, 0.96, 0.92, 0.88, 0.84, 0.8, 0.76, 0.72, 0.68)

# Side lengths and minimum correlation at 32 x 32 pixels. Crops reach 0.61; four in five other
# images of sign-digits and nearly all of cats-dogs are below.
COARSE_CROP_SCALES, MIN_COARSE_CROP = (1.0, 0.9, 0.8, 0.7), 0.58

Small = NDArray[np.uint8]


class Shifts(NamedTuple):
    """The best translation of each pair."""

    correlation: NDArray[np.float32]  # correlation at that translation, at 32 x 32 pixels
    # translation of the second image in pixels of 64
    down: NDArray[np.int64]
    right: NDArray[np.int64]


class Registration(NamedTuple):
    """The alignment of one image with another."""

    correlation: float  # correlation of the fine structure, at most 1
    # affine map from positions in the first image to positions in the second
    transform: NDArray[np.float32]


def best_shifts(images: Small, pairs: NDArray[np.int64], limit: int = 3) -> Shifts:
    """Return the best translation of many pairs, a fast filter before :func:`register`.

    - `images`: uint8 array (n, 64, 64).
    - `pairs`: int64 array (m, 2); indices into `images`.
    - `limit`: largest translation, in pixels of 32.
    """
    spectra = _spectra(images)
    size = (images.shape[1] // 2, images.shape[2] // 2)
    correlation = np.fft.irfft2(np.conj(spectra[pairs[:, 0]]) * spectra[pairs[:, 1]], s=size)
    near = np.roll(correlation, (limit, limit), (1, 2))[:, : 2 * limit + 1, : 2 * limit + 1]
    flat = near.reshape(len(near), -1)
    best = flat.argmax(axis=1)
    down, right = np.divmod(best, 2 * limit + 1)
    value = np.take_along_axis(flat, best[:, None], 1)[:, 0].astype(np.float32)
    return Shifts(value, 2 * (down - limit), 2 * (right - limit))


def _spectra(images: Small) -> NDArray[np.complex128]:
    # The images are stacked in one tall image, because one OpenCV call per small image is slow. The
    # padding in between is what the blur sees beyond the border of a single image.
    count, side = len(images), images.shape[2]
    halved = _halve(images.reshape(-1, side)).reshape(count, -1, side // 2)
    margin = round(4 * SHIFT)
    tall = np.pad(halved, ((0, 0), (margin, margin), (0, 0)), mode="reflect")
    fine = _high_pass(tall.reshape(-1, side // 2), SHIFT).reshape(tall.shape)[:, margin:-margin]
    fine = fine - fine.mean((1, 2), keepdims=True)
    fine /= np.sqrt(np.square(fine).sum((1, 2), keepdims=True)) + 1e-6
    return np.fft.rfft2(fine)


def register(
    first: Small, second: Small, down: int = 0, right: int = 0, enough: float = math.inf
) -> Registration:
    """Align the second image with the first and return their correlation.

    - `first`, `second`: uint8 arrays (64, 64).
    - `down`, `right`: initial translation of the second image, in pixels.
    - `enough`: correlation that is not improved further.

    Returns
    -------
    Registration
        The correlation is at most 0.8 for images that differ at half the size, and 0 for images
        that do not overlap.
    """
    start = np.array([[1, 0, right / 2], [0, 1, down / 2]], np.float32)
    half = _halve(first)
    coarse, transform = _align(half, _high_pass(half, COARSE), _halve(second), start, COARSE)
    if coarse < MIN_COARSE:
        return Registration(coarse, transform)
    transform[:, 2] *= 2
    fine = _high_pass(first, FINE)
    before = Registration(_correlate(first, fine, second, transform, FINE), transform)
    if before.correlation >= enough:
        return before
    after = Registration(*_align(first, fine, second, transform, FINE))
    return after if after.correlation > before.correlation else before


def warp_onto(
    first: NDArray[Any], second: Small, transform: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Warp the second image onto the first.

    - `first`, `second`: uint8 arrays (side, side).
    - `transform`: float32 array (2, 3); as in :class:`Registration`.

    Returns
    -------
    warped : float32 array (side, side)
        The second image; outside of it the first, so that a blur sees no edge.
    inside : bool array (side, side)
        Pixels that the second image covers.
    """
    height, width = first.shape
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(
        second.astype(np.float32), transform, (width, height), flags=flags,
        borderMode=cv2.BORDER_CONSTANT, borderValue=-1e4,
    )  # fmt: skip
    inside = np.asarray(warped) >= 0
    return np.where(inside, warped, first.astype(np.float32)).astype(np.float32), inside


def correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the correlation of two vectors; 0 if either is constant."""
    if not one.size:
        return 0.0
    one, other = one - one.mean(), other - other.mean()
    size = math.sqrt(float(one @ one) * float(other @ other))
    return float(one @ other) / size if size > 0 else 0.0


def crop_similarity(
    whole: Small, crop: Small, whole_size: tuple[int, int], crop_size: tuple[int, int]
) -> float:
    """Return the best correlation of an image with another that may be a crop of it.

    - `whole`, `crop`: uint8 arrays (64, 64).
    - `whole_size`, `crop_size`: (height, width); sizes of the original images in pixels.

    Returns
    -------
    float
        At most 1; at most 0.58 for images that differ at half the size.
    """
    high, wide = crop_size[0] / whole_size[0], crop_size[1] / whole_size[1]
    sides = (high / max(high, wide), wide / max(high, wide))
    coarse, _ = _locate(_halve(whole), _halve(crop), sides, COARSE_CROP_SCALES, COARSE)
    if coarse < MIN_COARSE_CROP:
        return coarse
    _, start = _locate(whole, crop, sides, CROP_SCALES, FINE)
    fine = _high_pass(crop, FINE)
    return max(
        _correlate(crop, fine, whole, start, FINE), _align(crop, fine, whole, start, FINE)[0]
    )


def _locate(
    whole: Small, crop: Small, sides: tuple[float, float], scales: Sequence[float], sigma: float
) -> tuple[float, NDArray[np.float32]]:
    """Return the best correlation (at least 0) and the transform of a crop by template matching.

    `sides` is the height and width of the largest crop, relative to the whole image.
    """
    fine, side = _high_pass(whole, sigma), whole.shape[0]
    best, transform = 0.0, np.eye(2, 3, dtype=np.float32)
    for scale in scales:
        height, width = (max(8, min(side, round(side * scale * length))) for length in sides)
        piece = cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA)
        found = cv2.matchTemplate(fine, _high_pass(np.asarray(piece), sigma), cv2.TM_CCOEFF_NORMED)
        at = int(found.argmax())
        if math.isfinite(found.flat[at]) and found.flat[at] > best:
            best = float(found.flat[at])
            top, left = divmod(at, found.shape[1])
            transform = np.array([[width / side, 0, left], [0, height / side, top]], np.float32)
    return best, transform


def _align(
    first: Small, fine: NDArray[np.float32], second: Small, start: NDArray[np.float32], sigma: float
) -> tuple[float, NDArray[np.float32]]:
    """Return correlation and transform of the second image aligned with the first by ECC."""
    try:
        _, transform = cv2.findTransformECC(
            fine, _high_pass(second, sigma), start.copy(), cv2.MOTION_AFFINE, ECC_CRITERIA
        )
    except cv2.error:  # no convergence: the images differ
        return 0.0, start
    found = np.array(transform, np.float32)
    return _correlate(first, fine, second, found, sigma), found


def _correlate(
    first: Small,
    fine: NDArray[np.float32],
    second: Small,
    transform: NDArray[np.float32],
    sigma: float,
) -> float:
    """Return the correlation of the first image with the second warped onto it."""
    warped, inside = warp_onto(first, second, transform)
    if np.count_nonzero(inside) < OVERLAP * inside.size:
        return 0.0
    return correlation(fine[inside], _high_pass(warped, sigma)[inside])


def _halve(image: Small) -> Small:
    return np.asarray(
        cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8
    )


def _high_pass(image: NDArray[Any], sigma: float) -> NDArray[np.float32]:
    wide = image.astype(np.float32)
    return np.asarray(wide - cv2.GaussianBlur(wide, (0, 0), sigma), np.float32)
