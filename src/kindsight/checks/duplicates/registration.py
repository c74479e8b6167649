"""Register pairs of small images: align one with the other and compare their fine structure.

Two photographs of a burst, or an image and a crop of it, differ by a small shift, rotation and
scale. One image is aligned with the other, then their high-pass filtered versions (image minus
blurred image) are correlated. Brightness and large shapes, which images of one class have in
common, do not count.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FINE", "Registration", "Shifts", "align_crop", "best_shifts", "correlation", "high_pass",
    "high_pass_all", "register", "warp_onto",
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
    products = np.conj(spectra[pairs[:, 0]]) * spectra[pairs[:, 1]]
    correlation = math.sqrt(size[0] * size[1]) * np.fft.irfft2(products, s=size, norm="ortho")
    near = np.roll(correlation, (limit, limit), (1, 2))[:, : 2 * limit + 1, : 2 * limit + 1]
    flat = near.reshape(len(near), -1)
    best = flat.argmax(axis=1)
    down, right = np.divmod(best, 2 * limit + 1)
    value = np.take_along_axis(flat, best[:, None], 1)[:, 0].astype(np.float32)
    return Shifts(value, 2 * (down - limit), 2 * (right - limit))


def _spectra(images: Small) -> NDArray[np.complexfloating]:
    count, side = len(images), images.shape[2]
    halved = _halve(images.reshape(-1, side)).reshape(count, -1, side // 2)
    fine = high_pass_all(halved, SHIFT)
    fine = fine - fine.mean((1, 2), keepdims=True)
    fine /= np.sqrt(np.square(fine).sum((1, 2), keepdims=True)) + 1e-6
    # With norm="ortho", forward transforms of single precision take a third of the time.
    return np.fft.rfft2(fine, norm="ortho")


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
    coarse, transform = _align(half, high_pass(half, COARSE), _halve(second), start, COARSE)
    if coarse < MIN_COARSE:
        return Registration(coarse, transform)
    transform[:, 2] *= 2
    fine = high_pass(first, FINE)
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


def align_crop(crop: Small, whole: Small, start: NDArray[np.float32]) -> float:
    """Return the correlation of a crop with an image that contains it, after alignment.

    - `crop`, `whole`: uint8 arrays (64, 64).
    - `start`: affine map from positions in the crop to positions in the whole image.
    """
    fine = high_pass(crop, FINE)
    return max(
        _correlate(crop, fine, whole, start, FINE), _align(crop, fine, whole, start, FINE)[0]
    )


def high_pass(image: NDArray[Any], sigma: float) -> NDArray[np.float32]:
    """Return an image minus the blurred image, float32."""
    wide = image.astype(np.float32)
    return np.asarray(wide - cv2.GaussianBlur(wide, (0, 0), sigma), np.float32)


def high_pass_all(images: NDArray[Any], sigma: float) -> NDArray[np.float32]:
    """Return :func:`high_pass` of many images of one size, float32 (n, height, width)."""
    # The images are stacked in one tall image, because one OpenCV call per small image is slow. The
    # padding in between is what the blur sees beyond the border of a single image.
    margin = round(4 * sigma)
    tall = np.pad(images, ((0, 0), (margin, margin), (0, 0)), mode="reflect")
    return high_pass(tall.reshape(-1, images.shape[2]), sigma).reshape(tall.shape)[
        :, margin:-margin
    ]


def _align(
    first: Small, fine: NDArray[np.float32], second: Small, start: NDArray[np.float32], sigma: float
) -> tuple[float, NDArray[np.float32]]:
    """Return correlation and transform of the second image aligned with the first by ECC."""
    try:
        _, transform = cv2.findTransformECC(
            fine, high_pass(second, sigma), start.copy(), cv2.MOTION_AFFINE, ECC_CRITERIA
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
    return correlation(fine[inside], high_pass(warped, sigma)[inside])


def _halve(image: Small) -> Small:
    return np.asarray(
        cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8
    )
