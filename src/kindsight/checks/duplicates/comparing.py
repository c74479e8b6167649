"""Compare pairs of images in blocks, without the background that all images share.

Images of solar cells, chips or leaves on one board, or frames of one camera, share a background:
any two of them correlate strongly, so correlation alone does not identify duplicates. Such a
dataset is recognised by the neighbours of its images. Duplicates are similar to each other and to
nothing else, but images with a shared background have many neighbours that are *almost* as similar.
For these, the principal components of the dataset are projected out, and the residuals must
correlate, too.

Small images are fetched a block of pairs at a time, on the calling thread; blocks are compared on
all cores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.checks.duplicates.linking import Compared
from kindsight.checks.duplicates.registration import best_shifts, correlation, register, warp_onto
from kindsight.threads import count_cores, map_ordered

__all__ = [
    "Orientation", "PairComparison", "SharedBackground", "correlations", "orient_images",
    "undo_orientation",
]  # fmt: skip

SAMPLE = 1_024
"""Images that represent the dataset."""

AT_LEAST = 64
"""Minimum number of images: of fewer, a shared background cannot be distinguished from
duplicates."""

# Correlations at 32 x 32 pixels: as similar as duplicates, and almost as similar.
SIMILAR, ALMOST_SIMILAR = 0.9, 0.7

# Images that must be almost as similar: at least this number, and this fraction of the dataset.
MIN_NEIGHBOURS, MIN_NEIGHBOUR_FRACTION = 8, 0.01

# If more than this fraction is as similar as duplicates, all images have a shared background.
MAX_SIMILAR_FRACTION = 0.3

# Correlation of nearly all images with re-encoded copies of themselves, and of hardly any others.
REENCODED = 0.99

# One component per 16 images, so that a group of duplicates does not define a component.
IMAGES_PER_COMPONENT, MAX_COMPONENTS = 16, 64

MIN_RESIDUAL = 0.65
"""Minimum correlation of the residuals of re-encoded copies. Copies of JPEG quality 30 or a third
of the size reach 0.70 in elpv, 0.64 in sign-digits, 0.88 in cats-dogs; different cells of elpv that
correlate like copies have a median of 0.05."""

MIN_ROTATED_RESIDUAL = 0.8
"""The same for rotated or mirrored copies. It is higher: a symmetric background leaves many weak
similarities."""

MIN_ALIGNED_RESIDUAL = 0.85
"""The same for aligned images: bursts and crops reach 0.92 in sign-digits and cats-dogs, and have a
median of 0.7 to 0.9 in elpv; different cells of elpv have a median of 0.51. Adjacent cells of one
ingot have the same crystals, and some of these are above the threshold."""

PAIRS_PER_TASK = 16
"""Pairs given to a thread at once; each takes half a millisecond."""

Images = NDArray[Any]
Vectors = NDArray[np.float32]
Orientation = tuple[bool, bool, bool]


class SharedBackground:
    """The shared background of a dataset.

    Parameters
    ----------
    small_images : callable
        Returns the small grey images, uint8 (m, 64, 64), of rows, int64 (m,).
    rows : int64 array (n,)
        Rows of all images that are not blank.
    """

    def __init__(
        self,
        small_images: Callable[[NDArray[np.int64]], NDArray[np.uint8]],
        rows: NDArray[np.int64],
    ) -> None:
        self._small_images = small_images
        chosen = np.linspace(0, len(rows) - 1, min(len(rows), SAMPLE)).round().astype(np.int64)
        self._rows = rows[np.unique(chosen)] if len(rows) else rows
        self._ambiguous = np.full(1 + int(rows.max(initial=-1)), -1, np.int8)  # -1: unknown

    def ambiguous(self, pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return whether an image of each pair, int64 (m, 2), has many similar neighbours."""
        if not len(pairs) or len(self._rows) < AT_LEAST or len(self._images) < AT_LEAST:
            return np.zeros(len(pairs), np.bool_)
        different = np.unique(pairs)
        new = different[self._ambiguous[different] < 0]
        for at in range(0, len(new), SAMPLE):
            rows = new[at : at + SAMPLE]
            values = _half_size_vectors(self._small_images(rows)) @ self._vectors.T
            near = ((values >= ALMOST_SIMILAR) & (values < SIMILAR)).sum(axis=1)
            same = (values >= SIMILAR).sum(axis=1)
            fraction = MIN_NEIGHBOUR_FRACTION * len(self._images)
            many = near >= np.maximum(np.maximum(same, fraction), MIN_NEIGHBOURS)
            many |= same >= MAX_SIMILAR_FRACTION * len(self._images)
            self._ambiguous[rows] = many
        return np.asarray((self._ambiguous[pairs] > 0).any(axis=1), np.bool_)

    def residuals(self, images: Images) -> NDArray[np.float32]:
        """Return images, (m, 64, 64), without the shared background; float32, unit length."""
        vectors = _unit(images.astype(np.float32))
        vectors -= (vectors @ self._components.T) @ self._components
        return vectors.reshape(images.shape)

    @cached_property
    def _images(self) -> NDArray[np.uint8]:
        """Sampled images without re-encoded copies, which would distort the components."""
        images = self._small_images(self._rows)
        vectors = _half_size_vectors(images)
        same = vectors @ vectors.T >= REENCODED
        known, first = np.zeros(len(images), np.bool_), []
        for index in range(len(images)):
            if not known[index]:
                first.append(index)
                known |= same[index]
        return images[first]

    @cached_property
    def _vectors(self) -> Vectors:
        return _half_size_vectors(self._images)

    @cached_property
    def _components(self) -> Vectors:
        """Orthonormal basis of the mean image and the principal components, float32 (k, 4096)."""
        vectors = _unit(self._images.astype(np.float32))
        count = min(MAX_COMPONENTS, len(vectors) // IMAGES_PER_COMPONENT)
        mean = vectors.mean(axis=0)
        # 1,024 images of 4,096 pixels: the eigenvectors of the smaller Gram matrix suffice.
        products = (vectors - mean) @ (vectors - mean).T
        _, eigenvectors = np.linalg.eigh(products.astype(np.float64))
        chosen = eigenvectors[:, ::-1][:, :count].astype(np.float32)
        directions = np.vstack([mean[None], chosen.T @ (vectors - mean)])
        basis, _ = np.linalg.qr(directions.T.astype(np.float64))
        return np.asarray(basis.T, np.float32)


def _half_size_vectors(images: NDArray[np.uint8]) -> Vectors:
    halved = [cv2.resize(one, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for one in images]
    return _unit(np.asarray(halved, np.float32))


def _unit(images: NDArray[np.float32]) -> Vectors:
    """Return images as vectors of mean 0 and length 1; their products are correlations."""
    vectors = images.reshape(len(images), -1)
    vectors = vectors - vectors.mean(axis=1, keepdims=True)
    length = np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))
    return np.asarray(vectors / np.maximum(length, 1e-6), np.float32)


def orient_images(images: Images, orientation: Orientation) -> Images:
    """Rotate or mirror images, (m, side, side).

    `orientation` is one of :data:`kindsight.images.hashes.ORIENTATIONS`.
    """
    transposed, mirrored, flipped = orientation
    if transposed:
        images = images.transpose(0, 2, 1)
    if mirrored:
        images = images[:, :, ::-1]
    return images[:, ::-1] if flipped else images


def undo_orientation(images: Images, orientation: Orientation) -> Images:
    """Undo :func:`orient_images`."""
    transposed, mirrored, flipped = orientation
    back = orient_images(images, (False, mirrored, flipped))
    return back.transpose(0, 2, 1) if transposed else back


def residual_correlations(
    background: SharedBackground, pairs: NDArray[np.uint8], orientation: Orientation
) -> NDArray[np.float64]:
    """Return the correlation of the residuals of pairs, uint8 (m, 2, 64, 64)."""
    frames = [(pairs[:, 0], orient_images(pairs[:, 1], orientation))]
    if any(orientation):
        frames.append((undo_orientation(pairs[:, 0], orientation), pairs[:, 1]))
    residuals = [(background.residuals(one), background.residuals(other)) for one, other in frames]
    values = np.array([correlations(*both) for both in residuals])
    # The orientation of most images removes the background best: the residual is smaller.
    energy = [sum(np.square(one).sum(axis=(1, 2)) for one in both) for both in residuals]
    chosen = np.argmin(energy, axis=0)
    return np.asarray(np.take_along_axis(values, chosen[None], 0)[0], np.float64)


def aligned_correlations(
    pairs: Sequence[tuple[NDArray[np.uint8], int, int, bool]],
    background: SharedBackground,
    minimum: float,
) -> list[float]:
    """Return the correlations of registered pairs, computed on all cores.

    - `pairs`: uint8 (2, 64, 64); initial translation in pixels; whether the shared background must
      be removed.
    - `minimum`: minimum correlation of duplicates. An ambiguous pair whose residuals differ gets 0.
    """

    def compare(pair: NDArray[np.uint8], down: int, right: int, ambiguous: bool) -> float:
        # Which duplicates are ambiguous depends on the best alignment.
        enough = math.inf if ambiguous else minimum
        found = register(pair[0], pair[1], down, right, enough)
        if not ambiguous or found.correlation < minimum:
            return found.correlation
        warped, inside = warp_onto(pair[0], pair[1], found.transform)
        one, other = background.residuals(np.stack([pair[0].astype(np.float32), warped]))
        residual = correlation(one[inside], other[inside])
        return found.correlation if residual >= MIN_ALIGNED_RESIDUAL else 0.0

    def compare_all(some: Sequence[tuple[NDArray[np.uint8], int, int, bool]]) -> list[float]:
        return [compare(*one) for one in some]

    tasks = [pairs[at : at + PAIRS_PER_TASK] for at in range(0, len(pairs), PAIRS_PER_TASK)]
    return [value for values in map_ordered(compare_all, tasks, count_cores()) for value in values]


def correlations(first: Images, second: Images) -> NDArray[np.float64]:
    """Return the correlation of each pair of images, (m, side, side)."""
    one = first.reshape(len(first), -1).astype(np.float64)
    other = second.reshape(len(second), -1).astype(np.float64)
    one -= one.mean(axis=1, keepdims=True)
    other -= other.mean(axis=1, keepdims=True)
    size = np.sqrt(np.square(one).sum(axis=1) * np.square(other).sum(axis=1))
    values: NDArray[np.float64] = (one * other).sum(axis=1) / np.maximum(size, 1e-9)
    return values


# Minimum correlation of the small images. Re-encoded images reach 0.95, also at a third of the
# size.
MIN_CORRELATION = 0.9

# Minimum correlation of the best translation at 32 x 32 pixels. Bursts and crops reach 0.49; three
# in four other candidates are below.
MIN_SHIFT_CORRELATION = 0.48

# Minimum correlation after registration. Bursts and small crops reach 0.91; other images reach at
# most 0.55 in cats-dogs and 0.89 in sign-digits, where all hands have one background.
MIN_ALIGNED_CORRELATION = 0.9

# Maximum number of registered pairs: per image, and the minimum of the total.
REGISTERED_PER_IMAGE, REGISTERED_AT_LEAST = 4, 10_000

BLOCK = 512
"""Pairs compared at once: up to 4 MB of small images."""

AHEAD = 2
"""Blocks that wait for each thread; few, because each takes megabytes."""

Pairs = NDArray[np.int64]
SmallImages = Callable[[NDArray[np.int64]], NDArray[np.uint8]]


class PairComparison:
    """Compares pairs of images of a dataset.

    Parameters
    ----------
    small_images : callable
        Returns the small grey images, uint8 (m, 64, 64), of rows, int64 (m,).
    background : SharedBackground
        The dataset's background.
    images : int
        Number of images; the number of registered pairs is limited in proportion.
    """

    def __init__(
        self, small_images: SmallImages, background: SharedBackground, images: int
    ) -> None:
        self._small_images, self._background = small_images, background
        self._registrations = max(REGISTERED_AT_LEAST, REGISTERED_PER_IMAGE * images)
        self.left_out = 0
        """Pairs beyond the limit, which were not registered."""

    def copies(self, pairs: Pairs, orientation: Orientation) -> Compared:
        """Compare small images, the second of each pair in an orientation."""

        def correlate(small: NDArray[np.uint8], index: Pairs) -> NDArray[np.float64]:
            return correlations(small[index[:, 0]], orient_images(small[index[:, 1]], orientation))

        def residual(small: NDArray[np.uint8], index: Pairs) -> NDArray[np.float64]:
            return residual_correlations(self._background, small[index], orientation)

        values = np.concatenate([np.empty(0), *self._blocks(pairs, correlate)])
        confirmed = values >= MIN_CORRELATION
        ambiguous = np.flatnonzero(confirmed)[self._background.ambiguous(pairs[confirmed])]
        if len(ambiguous):
            minimum = MIN_ROTATED_RESIDUAL if any(orientation) else MIN_RESIDUAL
            found = np.concatenate([*self._blocks(pairs[ambiguous], residual)])
            confirmed[ambiguous] = found >= minimum
        return Compared(confirmed, values)

    def near(self, pairs: Pairs) -> Compared:
        """Compare pairs after registration."""
        blocks = list(self._blocks(pairs, best_shifts))
        correlation, down, right = map(np.concatenate, zip(*blocks, strict=True))
        likely = np.flatnonzero(correlation >= MIN_SHIFT_CORRELATION)
        if len(likely) > self._registrations:
            self.left_out += len(likely) - self._registrations
            best = np.argsort(-correlation[likely], kind="stable")[: self._registrations]
            likely = likely[np.sort(best)]
        self._registrations -= len(likely)
        ambiguous = self._background.ambiguous(pairs[likely])
        values = np.zeros(len(pairs))
        for at in range(0, len(likely), BLOCK):
            some = likely[at : at + BLOCK]
            small, index = self._fetch(pairs[some])
            starts = zip(
                small[index], down[some].tolist(), right[some].tolist(),
                ambiguous[at : at + BLOCK].tolist(), strict=True,
            )  # fmt: skip
            values[some] = aligned_correlations(
                list(starts), self._background, MIN_ALIGNED_CORRELATION
            )
        return Compared(values >= MIN_ALIGNED_CORRELATION, values)

    def _blocks(
        self, pairs: Pairs, compare: Callable[[NDArray[np.uint8], Pairs], Any]
    ) -> Iterator[Any]:
        """Yield the result of each block: small images, and pairs of indices into them."""
        starts = range(0, len(pairs), BLOCK)
        blocks = (self._fetch(pairs[at : at + BLOCK]) for at in starts)
        return map_ordered(lambda block: compare(*block), blocks, count_cores(), AHEAD)

    def _fetch(self, pairs: Pairs) -> tuple[NDArray[np.uint8], Pairs]:
        """Return the small images of some pairs, each once, and their indices (m, 2)."""
        rows, index = np.unique(pairs, return_inverse=True)
        return self._small_images(rows), index.reshape(-1, 2)
