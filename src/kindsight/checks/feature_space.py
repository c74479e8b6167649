"""The space in which images are compared by their features: few numbers, none of them noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kindsight import random_stream as chance

__all__ = ["principal_space"]

Floats = NDArray[np.float32]

COMPONENTS = 64
OVERSAMPLED = 32
"""Random directions beyond the components that are wanted."""

SAMPLE = 4096
"""Rows that the directions are taken from; more change them little."""

BLOCK = 4096


def principal_space(
    vectors: Floats, blocks: Sequence[slice] = (), components: int = COMPONENTS, seed: int = 0
) -> Floats:
    """Bring features to their principal components, every block of them having equal say.

    Each block (the mean at the end of one stage, the maximum of another) is scaled to length 1 in
    every image, so that what counts is the pattern and not how strongly a network responds. Then
    each number is standardised, and the whole rotated to its components of most variance by a
    randomised singular value decomposition (Halko, Martinsson, Tropp 2011).

    Parameters
    ----------
    vectors : float32 array (n, width)
    blocks : sequence of slice, optional
        Which numbers belong together; all if there are none.
    components : int
        How many numbers are kept at most.
    seed : int
        Of the random directions, and of the sample.

    Returns
    -------
    float32 array (n, components or fewer)
    """
    n, width = vectors.shape
    parts = list(blocks) or [slice(0, width)]
    sample = np.sort(chance.permutation(seed, "check space", 0, n)[:SAMPLE])
    known = _scaled(vectors[sample], parts)
    mean, spread = known.mean(axis=0), known.std(axis=0)
    spread[spread < 1e-6] = np.inf  # what never changes says nothing
    known = (known - mean) / spread
    directions = _directions(known, min(components, *known.shape), seed)
    found = np.empty((n, directions.shape[1]), np.float32)
    for at in range(0, n, BLOCK):
        block = (_scaled(vectors[at : at + BLOCK], parts) - mean) / spread
        found[at : at + BLOCK] = block @ directions
    return found


def _scaled(vectors: Floats, blocks: Sequence[slice]) -> Floats:
    scaled = vectors.astype(np.float32, copy=True)
    for block in blocks:
        part = scaled[:, block]
        part /= np.linalg.norm(part, axis=1, keepdims=True) + np.float32(1e-6)
    return scaled


def _directions(rows: Floats, count: int, seed: int) -> Floats:
    """Return the first right singular vectors, float32 (width, count)."""
    width = rows.shape[1]
    draws = chance.uniforms(seed, "check directions", 0, np.arange(width), count + OVERSAMPLED)
    sample = rows @ (draws - 0.5).astype(np.float32)
    for _ in range(2):
        basis, _ = np.linalg.qr(sample)
        sample = rows @ (rows.T @ basis)
    basis, _ = np.linalg.qr(sample)
    _, _, right = np.linalg.svd(basis.T @ rows, full_matrices=False)
    return np.ascontiguousarray(right[:count].T, np.float32)
