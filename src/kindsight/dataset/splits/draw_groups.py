"""Draw groups of images at random, each with the same probability, to given numbers of images.

This is balanced sampling by the cube method (Deville & Tillé 2004, *Efficient balanced sampling:
the cube method*, Biometrika 91). Every group starts with its inclusion probability. A step moves
the probabilities of some undecided groups, up or down at random, so that the expected number of
images of each class stays the same, until one of them is drawn (1) or not (0). On average, no step
changes a group's probability, whatever its size. Groups are decided from the largest to the
smallest: first by steps among groups of similar size. The last groups of a size are decided by
steps that change all smaller groups and single images.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.splits.group_counts import GroupCounts

__all__ = ["draw_groups"]

MAX_BALANCED = 24
"""Maximum number of classes that are balanced while groups are drawn: the largest ones. Limits the
run time."""

MAX_SHARED_STEPS = 16
"""Maximum number of steps in which one group is decided against all smaller ones. Limits the run
time."""

_DECIDED = 1e-9  # a probability this close to 0 or 1 is decided
_ZERO = 1e-9  # a pivot this small is 0, relative to the largest number of its column above 1
_BLOCK = 1 << 16  # groups whose products are computed at once


def draw_groups(
    keys: NDArray[np.uint8],
    counts: GroupCounts,
    singles: NDArray[np.int64],
    wanted: NDArray[np.int64],
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return which groups are drawn, and the numbers of single images that complete them.

    Groups with more images of a class than wanted, by two or more, are not drawn.

    - `keys`: a random key of each of the n groups, at least one, uint8 (n, 16), ascending; the
      result depends on nothing but the arguments.
    - `counts`: images of each class in each group.
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
    total, _ = counts.sums(np.ones(counts.n, np.bool_), len(singles))
    balanced = np.sort(np.argsort(-total, kind="stable")[:MAX_BALANCED])
    some = counts.take(np.arange(counts.n), balanced)
    sizes = some.group_sums(some.images)
    order = np.argsort(-sizes, kind="stable")  # groups of equal size: in the order of their keys
    some = some.take(order, np.arange(len(balanced)))
    pools = np.flatnonzero(singles[balanced])
    largest = max(some.images.max(initial=0), singles.max())
    images = np.zeros((len(balanced), counts.n + len(pools)), np.min_scalar_type(largest))
    images[some.classes, some.groups] = some.images
    images[pools, counts.n + np.arange(len(pools))] = singles[balanced[pools]]
    pools = balanced[pools]
    drawing = _Drawing(np.concatenate([chance[order], single_chance[pools]]), images, keys[order])
    drawing.run()
    drawn = np.zeros(counts.n, np.bool_)
    drawn[order] = drawing.chance[: counts.n] > 0.5
    single_chance[pools] = drawing.chance[counts.n :]
    completing = np.floor(single_chance * singles + drawing.uniform()).astype(np.int64)
    return drawn, np.minimum(completing, singles)


def _chances(
    counts: GroupCounts, singles: NDArray[np.int64], wanted: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the inclusion probability of each group, and of each class's single images."""
    too_many = counts.images > wanted[counts.classes] + 1
    able = counts.group_sums(too_many) == 0
    there = counts.sums(able, len(singles))[0] + singles
    fraction = np.minimum(1.0, wanted / np.maximum(there, 1))
    chance = counts.group_sums(counts.images * fraction[counts.classes])
    chance = np.where(able, chance / counts.group_sums(counts.images), 0.0)
    expected = np.bincount(
        counts.classes, chance[counts.groups] * counts.images, minlength=len(singles)
    )
    return chance, np.clip((wanted - expected) / np.maximum(singles, 1), 0.0, 1.0)


class _Rest(NamedTuple):
    """Groups and single images whose probabilities change together."""

    units: NDArray[np.int64]
    products: NDArray[np.float64]  # of image counts per pair of classes, relative to sizes
    present: NDArray[np.int64]  # number of them with images of each class


class _Drawing:
    """The inclusion probabilities of groups, largest first, and of single images.

    - `chance`: probabilities of n groups; then of each class's single images, which may stay
      between 0 and 1.
    - `images`: images of each class in each of these, (classes, n + classes with single images).
    - `keys`: keys of the groups.
    """

    def __init__(
        self, chance: NDArray[np.float64], images: NDArray[np.integer[Any]], keys: NDArray[np.uint8]
    ) -> None:
        self.chance, self.images, self.keys = chance, images, keys
        self.sizes = images.sum(axis=0, dtype=np.int64)
        self.key, self.number = keys[0].tobytes(), 0  # give the next random number

    def undecided(self, units: NDArray[np.int64]) -> NDArray[np.int64]:
        chance = self.chance[units]
        return units[(chance > _DECIDED) & (chance < 1 - _DECIDED)]

    def run(self) -> None:
        """Decide all groups."""
        left = np.zeros(0, np.int64)
        groups = self.undecided(np.arange(len(self.keys)))
        bits = np.frexp(self.sizes[groups])[
            1
        ]  # groups of about the same size: the number of binary digits
        for tier in np.split(groups, np.flatnonzero(np.diff(bits)) + 1) if len(groups) else []:
            left = self.decide_among(left, self.undecided(tier))
            if len(left):
                rest = self.rest_of(self.undecided(np.arange(tier[-1] + 1, len(self.chance))))
                for unit in left.tolist():
                    rest = self.decide_against(unit, rest)
                left = self.undecided(left)
        while len(left):
            # No step preserves the numbers of all classes: give up the class with the fewest
            # images.
            images = self.images[:, left].astype(np.float64)
            rows = np.argsort(-images.sum(axis=1), kind="stable")[: len(left) - 1]
            self.step(left, _null_vector(images[rows]))
            left = self.undecided(left)

    def decide_among(
        self, active: NDArray[np.int64], waiting: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Decide groups, in order, and return those that are left, at most one for each class."""
        rows = len(self.images)
        for unit in waiting.tolist():
            active = np.append(active, unit)
            self.key, self.number = self.keys[unit].tobytes(), 0
            if len(active) > rows:
                self.step(active, _null_vector(self.images[:, active].astype(np.float64)))
                active = self.undecided(active)
        return active

    def rest_of(self, units: NDArray[np.int64]) -> _Rest:
        """Return groups and single images with their products."""
        rows = len(self.images)
        products, present = np.zeros((rows, rows)), np.zeros(rows, np.int64)
        for start in range(0, len(units), _BLOCK):
            some = units[start : start + _BLOCK]
            images = self.images[:, some].astype(np.float64)
            products += images @ (images / np.maximum(self.sizes[some], 1)).T
            present += np.count_nonzero(images, axis=1)
        return _Rest(units, products, present)

    def decide_against(self, unit: int, rest: _Rest) -> _Rest:
        """Decide a group by changing all other probabilities equally, as far as possible.

        Returns the others that remain undecided.
        """
        own = self.images[:, unit].astype(np.float64)
        for _ in range(MAX_SHARED_STEPS):
            there = rest.present > 0
            if not len(rest.units) or not len(self.undecided(np.array([unit]))):
                break
            if own[~there].any():
                break  # images of a class that no other group has
            change = _null_vector(
                np.column_stack([rest.products[np.ix_(there, there)], own[there]])
            )
            if change[-1] == 0.0:
                break
            factors = np.zeros(len(own))
            factors[there] = change[:-1]
            others = [
                factors @ self.images[:, some] / np.maximum(self.sizes[some], 1)
                for some in np.split(rest.units, range(_BLOCK, len(rest.units), _BLOCK))
            ]
            self.step(np.append(rest.units, unit), np.append(np.concatenate(others), change[-1]))
            left = self.undecided(rest.units)
            gone = self.rest_of(np.setdiff1d(rest.units, left, assume_unique=True))
            rest = _Rest(left, rest.products - gone.products, rest.present - gone.present)
        return rest

    def step(self, units: NDArray[np.int64], change: NDArray[np.float64]) -> None:
        """Move probabilities up or down, so that each stays the same on average."""
        used = np.abs(change) > _ZERO
        units, change = units[used], change[used]
        now = self.chance[units]
        up, down = _room(now, change), _room(now, -change)
        moved = now + (up if self.uniform() * (up + down) < down else -down) * change
        # At least one is decided, whatever the rounding error.
        bound = max(_DECIDED, float(np.minimum(moved, 1 - moved).min()))
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

    The first columns that depend on each other have values, the last of them 1; the others have 0.
    """
    rows, columns = matrix.shape
    triangle = np.asarray(np.linalg.qr(matrix, mode="r"), np.float64)
    # How far each column is independent of the previous ones.
    pivots = np.abs(np.diagonal(triangle))
    bounds = _ZERO * np.maximum(1.0, np.abs(matrix[:, :rows]).max(axis=0, initial=0.0))
    dependent = np.flatnonzero(pivots <= bounds)
    column = int(dependent[0]) if len(dependent) else rows
    result = np.zeros(columns)
    result[:column] = np.linalg.solve(triangle[:column, :column], -triangle[:column, column])
    result[column] = 1.0
    return result


def _room(chance: NDArray[np.float64], change: NDArray[np.float64]) -> float:
    """Return how far `chance` can move by multiples of `change`, not 0, within 0 and 1."""
    return float((((change > 0) - chance) / change).min())
