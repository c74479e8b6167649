"""Compare pairs of images in blocks: copies by their correlation, near-duplicates by registration.

Small images are fetched a block of pairs at a time, on the calling thread; blocks are compared on
all cores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.checks.duplicates.linking import Compared
from kindsight.checks.duplicates.registration import best_shifts
from kindsight.checks.duplicates.shared_background import (
    MIN_RESIDUAL,
    MIN_ROTATED_RESIDUAL,
    Orientation,
    SharedBackground,
    aligned_correlations,
    correlations,
    orient_images,
    residual_correlations,
)
from kindsight.threads import count_cores, map_ordered

__all__ = ["PairComparison"]

# Minimum correlation of the small images. Re-encoded images reach 0.95, also at a third of the
# size.
MIN_CORRELATION = 0.9

# Minimum correlation of the best translation at 32 x 32 pixels. Bursts and crops reach 0.49; three
# in four other candidates are below.
MIN_SHIFT_CORRELATION = 0.48

# Minimum correlation after registration. Bursts and small crops reach 0.91; other images reach at
# most 0.55 in cats-dogs and 0.89 in sign-digits, where all hands have one background.
MIN_ALIGNED_CORRELATION = 0.9

# Maximum pairs that are registered, per image and in total at least.
REGISTERED_PER_IMAGE, REGISTERED_AT_LEAST = 4, 10_000

BLOCK = 512
"""Pairs compared at once: up to 4 MB of small images."""

AHEAD = 2
"""Blocks of each thread that wait: small images are large."""

Pairs = NDArray[np.int64]
SmallImages = Callable[[NDArray[np.int64]], NDArray[np.uint8]]


class PairComparison:
    """Compares pairs of images of a dataset.

    Parameters
    ----------
    small_images : callable
        From rows, int64 (m,), to small grey images, uint8 (m, 64, 64).
    background : SharedBackground
        Of the dataset.
    images : int
        Number of images, which limits the number of registered pairs.
    """

    def __init__(
        self, small_images: SmallImages, background: SharedBackground, images: int
    ) -> None:
        self._small_images, self._background = small_images, background
        self._registrations = max(REGISTERED_AT_LEAST, REGISTERED_PER_IMAGE * images)
        self.complete = True
        """False if more pairs than the limit had to be registered; the others were left out."""

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
            self.complete = False
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
