"""Reduce features to their principal components."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kindsight import random_stream

__all__ = ["principal_components"]

Floats = NDArray[np.float32]

COMPONENTS = 64

OVERSAMPLED = 32
"""Extra random directions of the randomised decomposition."""

SAMPLE = 4096
"""Rows from which the components are computed; more rows change them little."""

BLOCK = 4096
"""Rows projected at once."""


def principal_components(
    vectors: Floats, blocks: Sequence[slice] = (), components: int = COMPONENTS, seed: int = 0
) -> Floats:
    """Project features on their principal components, with equal weight for each block.

    Each block of columns (the features of one layer) is scaled to unit length per image, then each
    column is standardised. The components come from a randomised singular value decomposition
    (Halko, Martinsson, Tropp 2011).

    Parameters
    ----------
    vectors : float32 array (n, width)
    blocks : sequence of slice, optional
        Columns that belong together. Default: one block.
    components : int
        Maximum number of components.
    seed : int
        Seed of the sample and of the random directions.

    Returns
    -------
    float32 array (n, components or fewer)
    """
    n, width = vectors.shape
    blocks = list(blocks) or [slice(0, width)]
    sample = np.sort(random_stream.permutation(seed, "check space", 0, n)[:SAMPLE])
    known = _unit_blocks(vectors[sample], blocks)
    mean, spread = known.mean(axis=0), known.std(axis=0)
    spread[spread < 1e-6] = np.inf  # constant columns carry no information
    known = (known - mean) / spread
    directions = _directions(known, min(components, *known.shape), seed)
    found = np.empty((n, directions.shape[1]), np.float32)
    for at in range(0, n, BLOCK):
        rows = (_unit_blocks(vectors[at : at + BLOCK], blocks) - mean) / spread
        found[at : at + BLOCK] = rows @ directions
    return found


def _unit_blocks(vectors: Floats, blocks: Sequence[slice]) -> Floats:
    scaled = vectors.astype(np.float32, copy=True)
    for block in blocks:
        columns = scaled[:, block]
        columns /= np.linalg.norm(columns, axis=1, keepdims=True) + np.float32(1e-6)
    return scaled


def _directions(rows: Floats, count: int, seed: int) -> Floats:
    """Return the first right singular vectors, float32 (width, count)."""
    width = rows.shape[1]
    draws = random_stream.uniforms(
        seed, "check directions", 0, np.arange(width), count + OVERSAMPLED
    )
    sample = rows @ (draws - 0.5).astype(np.float32)
    for _ in range(2):
        basis, _ = np.linalg.qr(sample)
        sample = rows @ (rows.T @ basis)
    basis, _ = np.linalg.qr(sample)
    _, _, right = np.linalg.svd(basis.T @ rows, full_matrices=False)
    return np.ascontiguousarray(right[:count].T, np.float32)
