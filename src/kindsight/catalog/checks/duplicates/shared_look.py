"""What the pictures of a set have in common, so that it does not count as likeness.

Solar cells, chips, leaves on one board, frames of one camera: where all pictures have one outline,
any two of them agree almost to the pixel, and copies cannot be told by that. Whether a set is of
this kind shows in its crowds: photographs of one burst are alike and unlike all others, but around
such a picture are many that are *nearly* as alike. There the common part, the principal components
of the set's pictures, is taken away, and what is left must agree too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["LEFT", "LEFT_OF_BURSTS", "LEFT_OF_TURNED", "SharedLook"]

SAMPLE = 1_024
"""Pictures that stand for all: enough for the components, and for counting crowds."""

# Fewer pictures have nothing in common that could be told from copies among them.
AT_LEAST = 64

# Correlations at 32 x 32 pixels: as alike as copies, and nearly as alike.
ALIKE, NEARLY = 0.9, 0.7

# How many must be nearly as alike for a crowd: so many, and one in a hundred.
FEW, SHARE = 8, 0.01

# Where so large a share is as alike as copies, all look so.
MOST = 0.3

# As alike as nearly all pictures and themselves stored anew, and hardly any others.
TWINS = 0.99

# One component for sixteen pictures, so that a group of copies is not mistaken for the set's look.
EACH, COMPONENTS = 16, 64

LEFT = 0.65
"""By how much what is left of copies correlates at least: of quality 30, or a third of the size,
0.70 and more in elpv, 0.64 in sign-digits, 0.88 in cats-dogs; other cells of elpv that are as alike
as copies at first sight, 0.05 in the middle."""

LEFT_OF_TURNED = 0.8
"""The same for pictures that are mirrored or turned. Where the set's look is its own mirror image,
faint likenesses are many."""

LEFT_OF_BURSTS = 0.85
"""The same for pictures that are moved onto each other: bursts and crops 0.92 and more in
sign-digits and cats-dogs, 0.7 to 0.9 in the middle in elpv; other cells of elpv 0.51 in the middle.
Cells cut from one ingot, one after the other, have the same crystals: some of these are above it,
and are nearly the same indeed."""

Vectors = NDArray[np.float32]


class SharedLook:
    """The look of a set of pictures.

    Parameters
    ----------
    small : callable
        From rows, int64 (m,), to the pictures small and grey, uint8 (m, 64, 64).
    rows : int64 array (n,)
        Of all pictures that show something.
    """

    def __init__(
        self, small: Callable[[NDArray[np.int64]], NDArray[np.uint8]], rows: NDArray[np.int64]
    ) -> None:
        self._small = small
        chosen = np.linspace(0, len(rows) - 1, min(len(rows), SAMPLE)).round().astype(np.int64)
        self._rows = rows[np.unique(chosen)] if len(rows) else rows
        self._crowded: dict[int, bool] = {}

    def doubtful(self, pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say of which pairs, int64 (m, 2), one stands in a crowd of pictures alike."""
        if not len(pairs) or len(self._rows) < AT_LEAST or len(self._pictures) < AT_LEAST:
            return np.zeros(len(pairs), np.bool_)
        new = np.array([r for r in np.unique(pairs).tolist() if r not in self._crowded], np.int64)
        for at in range(0, len(new), SAMPLE):
            rows = new[at : at + SAMPLE]
            alike = _quarters(self._small(rows)) @ self._quarters.T
            near = ((alike >= NEARLY) & (alike < ALIKE)).sum(axis=1)
            same = (alike >= ALIKE).sum(axis=1)
            crowd = near >= np.maximum(np.maximum(same, SHARE * len(self._pictures)), FEW)
            crowd |= same >= MOST * len(self._pictures)
            self._crowded.update(zip(rows.tolist(), crowd.tolist(), strict=True))
        return np.array([self._crowded[a] or self._crowded[b] for a, b in pairs.tolist()], np.bool_)

    def left(self, pictures: NDArray[Any]) -> NDArray[np.float32]:
        """Return what pictures, (m, 64, 64), have beyond the set's look; float32, alike."""
        vectors = _unit(pictures.astype(np.float32))
        vectors -= (vectors @ self._components.T) @ self._components
        return vectors.reshape(pictures.shape)

    @cached_property
    def _pictures(self) -> NDArray[np.uint8]:
        """Pictures of the set; of those as alike as a copy stored anew, the first alone.

        Otherwise what many copies have in common would be taken for what all pictures have.
        """
        pictures = self._small(self._rows)
        quarters = _quarters(pictures)
        alike = quarters @ quarters.T >= TWINS
        known, first = np.zeros(len(pictures), np.bool_), []
        for place in range(len(pictures)):
            if not known[place]:
                first.append(place)
                known |= alike[place]
        return pictures[first]

    @cached_property
    def _quarters(self) -> Vectors:
        return _quarters(self._pictures)

    @cached_property
    def _components(self) -> Vectors:
        """The mean picture and the principal components, orthonormal: float32 (k, 4096)."""
        vectors = _unit(self._pictures.astype(np.float32))
        count = min(COMPONENTS, len(vectors) // EACH)
        mean = vectors.mean(axis=0)
        # The small side's eigenvectors give the large side's: 1,024 pictures of 4,096 pixels.
        products = (vectors - mean) @ (vectors - mean).T
        _, turned = np.linalg.eigh(products.astype(np.float64))
        chosen = turned[:, ::-1][:, :count].astype(np.float32)
        directions = np.vstack([mean[None], chosen.T @ (vectors - mean)])
        basis, _ = np.linalg.qr(directions.T.astype(np.float64))
        return np.asarray(basis.T, np.float32)


def _quarters(pictures: NDArray[np.uint8]) -> Vectors:
    halved = [
        cv2.resize(one, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for one in pictures
    ]
    return _unit(np.asarray(halved, np.float32))


def _unit(pictures: NDArray[np.float32]) -> Vectors:
    """Return pictures as vectors of mean 0 and length 1, so that products are correlations."""
    vectors = pictures.reshape(len(pictures), -1)
    vectors = vectors - vectors.mean(axis=1, keepdims=True)
    length = np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))
    return np.asarray(vectors / np.maximum(length, 1e-6), np.float32)
