"""Draw groups of images at random, each with the same chance, in the wanted numbers of images.

This is balanced sampling by the cube method (Deville & Tillé 2004, *Efficient balanced sampling:
the cube method*, Biometrika 91). Every group starts with its chance to be drawn. A step changes the
chances of some undecided groups so that the expected number of images of each class stays the same,
up or down at random, until one of them is drawn (1) or not (0). No step changes a group's chance on
average, whatever its size. Groups are decided from the largest to the smallest: first by steps
among groups of similar size. The last groups of a size are decided by steps that change all smaller
groups and single images.
"""

from __future__ import annotations

import hashlib
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

__all__ = ["draw_groups"]

MAX_BALANCED = 24
"""Classes that are balanced while groups are drawn, the largest ones. Limits the run time."""

MAX_SHARED_STEPS = 16
"""Steps in which one group is decided against all smaller ones. Limits the run time."""

_DECIDED = 1e-9  # a chance this close to 0 or 1 is decided
_ZERO = 1e-9  # a pivot this small is 0


def draw_groups(
    keys: list[bytes],
    counts: NDArray[np.int64],
    singles: NDArray[np.int64],
    wanted: NDArray[np.int64],
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return which groups are drawn, and how many single images of each class complete them.

    Groups with more images of a class than wanted, by two or more, are not drawn.

    - `keys`: a random key of each of the n groups, at least one; the result is a function of these
      and the numbers.
    - `counts`: images of each class in each group, (n, classes).
    - `singles`: images of each class without a group, (classes,).
    - `wanted`: images wanted of each class, (classes,).

    Returns
    -------
    drawn : bool array (n,)
    completing : int64 array (classes,)
        From 0 to `singles`. With the images of the drawn groups these are the wanted numbers,
        unless groups are too large or single images too few.
    """
    chance, single_chance = _chances(counts, singles, wanted)
    balanced = np.sort(np.argsort(-counts.sum(axis=0), kind="stable")[:MAX_BALANCED])
    sizes = counts[:, balanced].sum(axis=1).tolist()
    order = sorted(range(len(keys)), key=lambda i: (-sizes[i], keys[i]))
    pools = balanced[singles[balanced] > 0]
    drawing = _Drawing(
        np.concatenate([chance[order], single_chance[pools]]),
        np.concatenate([counts[order], np.diag(singles)[pools]])[:, balanced].T.astype(np.float64),
        [keys[i] for i in order],
    )
    drawing.run()
    drawn = np.zeros(len(keys), np.bool_)
    drawn[order] = drawing.chance[: len(keys)] > 0.5
    single_chance[pools] = drawing.chance[len(keys) :]
    completing = np.floor(single_chance * singles + drawing.uniform()).astype(np.int64)
    return drawn, np.minimum(completing, singles)


def _chances(
    counts: NDArray[np.int64], singles: NDArray[np.int64], wanted: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the chance of each group, and of each class's single images, to be drawn."""
    able = (counts <= wanted + 1).all(axis=1)
    there = counts[able].sum(axis=0) + singles
    fraction = np.minimum(1.0, wanted / np.maximum(there, 1))
    chance = np.where(able, (counts * fraction).sum(axis=1) / counts.sum(axis=1), 0.0)
    rest = (wanted - (chance[:, None] * counts).sum(axis=0)) / np.maximum(singles, 1)
    return chance, np.clip(rest, 0.0, 1.0)


class _Drawing:
    """The chances of groups, from the largest to the smallest, and of single images.

    - `chance`: of n groups; then of the single images of classes, which may stay between 0 and 1.
    - `images`: of each class in each of these, (classes, n + classes with single images).
    - `keys`: of the groups.
    """

    def __init__(
        self, chance: NDArray[np.float64], images: NDArray[np.float64], keys: list[bytes]
    ) -> None:
        self.chance, self.images, self.keys = chance, images, keys
        self.sizes = images.sum(axis=0)
        self.key, self.number = keys[0], 0  # of the next random number

    def undecided(self, units: list[int]) -> list[int]:
        return [i for i in units if _DECIDED < self.chance[i] < 1 - _DECIDED]

    def run(self) -> None:
        """Decide all groups."""
        n = len(self.keys)
        left: list[int] = []
        groups = self.undecided(list(range(n)))
        for _, some in groupby(groups, key=lambda i: int(self.sizes[i]).bit_length()):
            tier = list(some)
            left = self.decide_among(left, self.undecided(tier))
            rest = list(range(tier[-1] + 1, len(self.chance)))
            for unit in left:
                self.decide_against(unit, rest)
            left = self.undecided(left)
        while left:
            # No step preserves the numbers of all classes: give up the class with the fewest
            # images.
            rows = np.argsort(-self.images[:, left].sum(axis=1), kind="stable")[: len(left) - 1]
            self.step(left, _null_vector(self.images[:, left][rows]))
            left = self.undecided(left)

    def decide_among(self, active: list[int], waiting: list[int]) -> list[int]:
        """Decide groups, in order, and return those that are left, at most one for each class."""
        rows = len(self.images)
        for unit in waiting:
            active = [*active, unit]
            self.key, self.number = self.keys[unit], 0
            if len(active) > rows:
                self.step(active, _null_vector(self.images[:, active]))
                active = self.undecided(active)
        return active

    def decide_against(self, unit: int, rest: list[int]) -> None:
        """Decide a group by changing the chances of all others equally, as far as possible."""
        for _ in range(MAX_SHARED_STEPS):
            rest = self.undecided(rest)
            if not rest or not self.undecided([unit]):
                return
            part = self.images[:, rest]
            there = part.any(axis=1)
            if self.images[~there, unit].any():
                return  # images of a class that no other group has
            share = part / np.maximum(self.sizes[rest], 1)
            whole = np.concatenate([(part @ share.T)[:, there], self.images[:, [unit]]], axis=1)
            change = _null_vector(whole[there])
            if change[-1] == 0.0:
                return
            others = (share[there] * change[:-1, None]).sum(axis=0)
            self.step([*rest, unit], np.append(others, change[-1]))

    def step(self, units: list[int], change: NDArray[np.float64]) -> None:
        """Change chances up or down, with probabilities that leave each the same on average."""
        now = self.chance[units]
        up, down = _room(now, change), _room(now, -change)
        moved = now + (up if self.uniform() * (up + down) < down else -down) * change
        moved[np.abs(change) <= _ZERO] = now[np.abs(change) <= _ZERO]
        # At least one is decided, whatever the rounding error.
        ends = np.minimum(moved, 1 - moved)
        bound = max(_DECIDED, float(ends[np.abs(change) > _ZERO].min()))
        moved[moved <= bound] = 0.0
        moved[moved >= 1 - bound] = 1.0
        self.chance[units] = moved

    def uniform(self) -> float:
        """Return the next random number in [0, 1), from the key of the group decided last."""
        data = self.key + self.number.to_bytes(4, "little")
        self.number += 1
        return int.from_bytes(hashlib.blake2b(data, digest_size=7).digest(), "little") / 2.0**56


def _null_vector(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a vector x with ``matrix @ x == 0`` that is not 0, for more columns than rows.

    By elimination; the first columns that suffice have values, the others 0.
    """
    rows, columns = matrix.shape
    work = matrix.copy()
    pivots: list[int] = []
    for column in range(columns):
        row = len(pivots)
        free = row == rows
        if not free:
            best = row + int(np.abs(work[row:, column]).argmax())
            free = abs(work[best, column]) <= _ZERO
        if free:
            result = np.zeros(columns)
            result[pivots] = -work[: len(pivots), column]
            result[column] = 1.0
            return result
        work[[row, best]] = work[[best, row]]
        work[row] /= work[row, column]
        others = np.arange(rows) != row
        work[others] -= np.outer(work[others, column], work[row])
        pivots.append(column)
    raise AssertionError("a matrix with more columns than rows has a null vector")


def _room(chance: NDArray[np.float64], change: NDArray[np.float64]) -> float:
    """Return how far `chance` can move by multiples of `change` within 0 and 1."""
    with np.errstate(divide="ignore"):
        limits = np.where(change > 0, (1.0 - chance) / change, -chance / change)
    return float(limits[np.abs(change) > _ZERO].min())
