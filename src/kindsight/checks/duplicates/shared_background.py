"""What the images of a set have in common, so that it does not count as likeness.

Solar cells, chips, leaves on one board, frames of one camera: where all images have one outline,
any two of them agree almost to the pixel, and copies cannot be told by that. Whether a set is of
this kind shows in its crowds: photographs of one burst are alike and unlike all others, but around
such an image are many that are *nearly* as alike. There the common part, the principal components
of the set's images, is taken away, and what is left must agree too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.checks.duplicates.registration import correlation, laid_upon, likeness
from kindsight.threads import count_cores, map_ordered

__all__ = [
    "LEFT",
    "LEFT_OF_BURSTS",
    "LEFT_OF_TURNED",
    "SharedBackground",
    "Turn",
    "close_looks",
    "correlations",
    "left_alike",
    "turned",
    "turned_back",
]

SAMPLE = 1_024
"""Images that stand for all: enough for the components, and for counting crowds."""

# Fewer images have nothing in common that could be told from copies among them.
AT_LEAST = 64

# Correlations at 32 x 32 pixels: as alike as copies, and nearly as alike.
ALIKE, NEARLY = 0.9, 0.7

# How many must be nearly as alike for a crowd: so many, and one in a hundred.
FEW, SHARE = 8, 0.01

# Where so large a share is as alike as copies, all look so.
MOST = 0.3

# As alike as nearly all images and themselves stored anew, and hardly any others.
TWINS = 0.99

# One component for sixteen images, so that a group of copies is not mistaken for the set's look.
EACH, COMPONENTS = 16, 64

LEFT = 0.65
"""By how much what is left of copies correlates at least: of quality 30, or a third of the size,
0.70 and more in elpv, 0.64 in sign-digits, 0.88 in cats-dogs; other cells of elpv that are as alike
as copies at first sight, 0.05 in the middle."""

LEFT_OF_TURNED = 0.8
"""The same for images that are mirrored or turned. Where the set's look is its own mirror image,
faint likenesses are many."""

LEFT_OF_BURSTS = 0.85
"""The same for images that are moved onto each other: bursts and crops 0.92 and more in
sign-digits and cats-dogs, 0.7 to 0.9 in the middle in elpv; other cells of elpv 0.51 in the middle.
Cells cut from one ingot, one after the other, have the same crystals: some of these are above it,
and are nearly the same indeed."""

Vectors = NDArray[np.float32]


class SharedBackground:
    """The look of a set of images.

    Parameters
    ----------
    small : callable
        From rows, int64 (m,), to the images small and grey, uint8 (m, 64, 64).
    rows : int64 array (n,)
        Of all images that show something.
    """

    def __init__(
        self, small: Callable[[NDArray[np.int64]], NDArray[np.uint8]], rows: NDArray[np.int64]
    ) -> None:
        self._small = small
        chosen = np.linspace(0, len(rows) - 1, min(len(rows), SAMPLE)).round().astype(np.int64)
        self._rows = rows[np.unique(chosen)] if len(rows) else rows
        self._crowded: dict[int, bool] = {}

    def doubtful(self, pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say of which pairs, int64 (m, 2), one stands in a crowd of images alike."""
        if not len(pairs) or len(self._rows) < AT_LEAST or len(self._images) < AT_LEAST:
            return np.zeros(len(pairs), np.bool_)
        new = np.array([r for r in np.unique(pairs).tolist() if r not in self._crowded], np.int64)
        for at in range(0, len(new), SAMPLE):
            rows = new[at : at + SAMPLE]
            alike = _quarters(self._small(rows)) @ self._quarters.T
            near = ((alike >= NEARLY) & (alike < ALIKE)).sum(axis=1)
            same = (alike >= ALIKE).sum(axis=1)
            crowd = near >= np.maximum(np.maximum(same, SHARE * len(self._images)), FEW)
            crowd |= same >= MOST * len(self._images)
            self._crowded.update(zip(rows.tolist(), crowd.tolist(), strict=True))
        return np.array([self._crowded[a] or self._crowded[b] for a, b in pairs.tolist()], np.bool_)

    def left(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Return what images, (m, 64, 64), have beyond the set's look; float32, alike."""
        vectors = _unit(images.astype(np.float32))
        vectors -= (vectors @ self._components.T) @ self._components
        return vectors.reshape(images.shape)

    @cached_property
    def _images(self) -> NDArray[np.uint8]:
        """Images of the set; of those as alike as a copy stored anew, the first alone.

        Otherwise what many copies have in common would be taken for what all images have.
        """
        images = self._small(self._rows)
        quarters = _quarters(images)
        alike = quarters @ quarters.T >= TWINS
        known, first = np.zeros(len(images), np.bool_), []
        for place in range(len(images)):
            if not known[place]:
                first.append(place)
                known |= alike[place]
        return images[first]

    @cached_property
    def _quarters(self) -> Vectors:
        return _quarters(self._images)

    @cached_property
    def _components(self) -> Vectors:
        """The mean image and the principal components, orthonormal: float32 (k, 4096)."""
        vectors = _unit(self._images.astype(np.float32))
        count = min(COMPONENTS, len(vectors) // EACH)
        mean = vectors.mean(axis=0)
        # The small side's eigenvectors give the large side's: 1,024 images of 4,096 pixels.
        products = (vectors - mean) @ (vectors - mean).T
        _, turned = np.linalg.eigh(products.astype(np.float64))
        chosen = turned[:, ::-1][:, :count].astype(np.float32)
        directions = np.vstack([mean[None], chosen.T @ (vectors - mean)])
        basis, _ = np.linalg.qr(directions.T.astype(np.float64))
        return np.asarray(basis.T, np.float32)


def _quarters(images: NDArray[np.uint8]) -> Vectors:
    halved = [cv2.resize(one, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for one in images]
    return _unit(np.asarray(halved, np.float32))


def _unit(images: NDArray[np.float32]) -> Vectors:
    """Return images as vectors of mean 0 and length 1, so that products are correlations."""
    vectors = images.reshape(len(images), -1)
    vectors = vectors - vectors.mean(axis=1, keepdims=True)
    length = np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))
    return np.asarray(vectors / np.maximum(length, 1e-6), np.float32)


# SECTION: Laying small images upon each other, as they are, turned or moved: how alike they are
# then.

# Pairs that a thread is handed at once: each takes half a millisecond.
TOGETHER = 16

Images = NDArray[Any]
Turn = tuple[bool, bool, bool]


def turned(images: Images, turn: Turn) -> Images:
    """Turn small images, (m, side, side): one of :data:`kindsight.images.hashes.ORIENTATIONS`."""
    transposed, mirrored, upended = turn
    if transposed:
        images = images.transpose(0, 2, 1)
    if mirrored:
        images = images[:, :, ::-1]
    return images[:, ::-1] if upended else images


def turned_back(images: Images, turn: Turn) -> Images:
    """Undo :func:`turned`."""
    transposed, mirrored, upended = turn
    back = turned(images, (False, mirrored, upended))
    return back.transpose(0, 2, 1) if transposed else back


def left_alike(look: SharedBackground, pairs: NDArray[np.uint8], turn: Turn) -> NDArray[np.float64]:
    """Compare pairs, (m, 2, 64, 64), without the set's look: as it lies, which most of a set do."""
    frames = [(pairs[:, 0], turned(pairs[:, 1], turn))]
    if any(turn):
        frames.append((turned_back(pairs[:, 0], turn), pairs[:, 1]))
    left = [(look.left(one), look.left(other)) for one, other in frames]
    alike = np.array([correlations(*both) for both in left])
    # Where less is left, the set's look was found: there the images are upright.
    much = [sum(np.square(part).sum(axis=(1, 2)) for part in both) for both in left]
    chosen = np.argmin(much, axis=0)
    return np.asarray(np.take_along_axis(alike, chosen[None], 0)[0], np.float64)


def close_looks(
    pairs: Sequence[tuple[NDArray[np.uint8], int, int, bool]], look: SharedBackground, close: float
) -> list[float]:
    """Return how alike images are when the one is moved onto the other, on all cores.

    Parameters
    ----------
    pairs : sequence of (images, down, right, doubtful)
        uint8 (2, 64, 64); the shift to begin with; whether what all images have in common is not
        to count.
    look : SharedBackground
        That.
    close : float
        From which likeness on they may be copies. What is doubtful and not alike without the set's
        look gets 0.
    """

    def compare(pair: NDArray[np.uint8], down: int, right: int, doubtful: bool) -> float:
        found = likeness(pair[0], pair[1], down, right)
        if not doubtful or found.likeness < close:
            return found.likeness
        moved, inside = laid_upon(pair[0], pair[1], found.how)
        one, other = look.left(np.stack([pair[0].astype(np.float32), moved]))
        left = correlation(one[inside], other[inside])
        return found.likeness if left >= LEFT_OF_BURSTS else 0.0

    def compare_all(some: Sequence[tuple[NDArray[np.uint8], int, int, bool]]) -> list[float]:
        return [compare(*one) for one in some]

    parts = [pairs[at : at + TOGETHER] for at in range(0, len(pairs), TOGETHER)]
    return [value for values in map_ordered(compare_all, parts, count_cores()) for value in values]


def correlations(first: Images, second: Images) -> NDArray[np.float64]:
    """Return the correlation of each pair of small images."""
    one = first.reshape(len(first), -1).astype(np.float64)
    other = second.reshape(len(second), -1).astype(np.float64)
    one -= one.mean(axis=1, keepdims=True)
    other -= other.mean(axis=1, keepdims=True)
    size = np.sqrt(np.square(one).sum(axis=1) * np.square(other).sum(axis=1))
    alike: NDArray[np.float64] = (one * other).sum(axis=1) / np.maximum(size, 1e-9)
    return alike
