"""Laying small pictures upon each other, as they are, turned or moved: how alike they are then."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.catalog.checks.duplicates.registration import correlation, laid_upon
from kindsight.catalog.checks.duplicates.shared_look import SharedLook

__all__ = ["Turn", "correlations", "left_alike", "left_alike_moved", "turned", "turned_back"]

Pictures = NDArray[Any]
Turn = tuple[bool, bool, bool]


def turned(pictures: Pictures, turn: Turn) -> Pictures:
    """Turn small pictures, (m, side, side): one of :data:`kindsight.pictures.perceptual.TURNS`."""
    transposed, mirrored, upended = turn
    if transposed:
        pictures = pictures.transpose(0, 2, 1)
    if mirrored:
        pictures = pictures[:, :, ::-1]
    return pictures[:, ::-1] if upended else pictures


def turned_back(pictures: Pictures, turn: Turn) -> Pictures:
    """Undo :func:`turned`."""
    transposed, mirrored, upended = turn
    back = turned(pictures, (False, mirrored, upended))
    return back.transpose(0, 2, 1) if transposed else back


def left_alike(look: SharedLook, pairs: NDArray[np.uint8], turn: Turn) -> NDArray[np.float64]:
    """Compare pairs, (m, 2, 64, 64), without the set's look: as it lies, which most of a set do."""
    frames = [(pairs[:, 0], turned(pairs[:, 1], turn))]
    if any(turn):
        frames.append((turned_back(pairs[:, 0], turn), pairs[:, 1]))
    left = [(look.left(one), look.left(other)) for one, other in frames]
    alike = np.array([correlations(*both) for both in left])
    # Where less is left, the set's look was found: there the pictures are upright.
    much = [sum(np.square(part).sum(axis=(1, 2)) for part in both) for both in left]
    chosen = np.argmin(much, axis=0)
    return np.asarray(np.take_along_axis(alike, chosen[None], 0)[0], np.float64)


def left_alike_moved(
    look: SharedLook,
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
    how: NDArray[np.float32],
) -> float:
    """Compare two pictures, (64, 64), without the set's look, the second moved onto the first."""
    moved, inside = laid_upon(first, second, how)
    one, other = look.left(np.stack([first.astype(np.float32), moved]))
    return correlation(one[inside], other[inside])


def correlations(first: Pictures, second: Pictures) -> NDArray[np.float64]:
    """Return the correlation of each pair of small pictures."""
    one = first.reshape(len(first), -1).astype(np.float64)
    other = second.reshape(len(second), -1).astype(np.float64)
    one -= one.mean(axis=1, keepdims=True)
    other -= other.mean(axis=1, keepdims=True)
    size = np.sqrt(np.square(one).sum(axis=1) * np.square(other).sum(axis=1))
    alike: NDArray[np.float64] = (one * other).sum(axis=1) / np.maximum(size, 1e-9)
    return alike
