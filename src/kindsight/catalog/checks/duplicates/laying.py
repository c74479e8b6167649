"""Laying small pictures upon each other, as they are, turned or moved: how alike they are then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.catalog.checks.duplicates.registration import correlation, laid_upon, likeness
from kindsight.catalog.checks.duplicates.shared_look import LEFT_OF_BURSTS, SharedLook
from kindsight.threads import count_cores, map_ordered

__all__ = ["Turn", "close_looks", "correlations", "left_alike", "turned", "turned_back"]

# Pairs that a thread is handed at once: each takes half a millisecond.
TOGETHER = 16

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


def close_looks(
    pairs: Sequence[tuple[NDArray[np.uint8], int, int, bool]], look: SharedLook, close: float
) -> list[float]:
    """Return how alike pictures are when the one is moved onto the other, on all cores.

    Parameters
    ----------
    pairs : sequence of (pictures, down, right, doubtful)
        uint8 (2, 64, 64); the shift to begin with; whether what all pictures have in common is not
        to count.
    look : SharedLook
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


def correlations(first: Pictures, second: Pictures) -> NDArray[np.float64]:
    """Return the correlation of each pair of small pictures."""
    one = first.reshape(len(first), -1).astype(np.float64)
    other = second.reshape(len(second), -1).astype(np.float64)
    one -= one.mean(axis=1, keepdims=True)
    other -= other.mean(axis=1, keepdims=True)
    size = np.sqrt(np.square(one).sum(axis=1) * np.square(other).sum(axis=1))
    alike: NDArray[np.float64] = (one * other).sum(axis=1) / np.maximum(size, 1e-9)
    return alike
