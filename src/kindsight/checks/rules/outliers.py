"""KS404: images that are unlike all others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from kindsight import random_stream as chance
from kindsight.checks.check import Check, CheckResult
from kindsight.checks.context import CheckContext
from kindsight.checks.feature_space import principal_space

__all__ = ["FALSE_ALARMS", "Outliers", "neighbour_distances", "tail_limit"]

NEIGHBOURS = 10
"""How many images of another kind in one data set still stand out: those of fewer than ten."""

FEWEST = 200
"""With fewer images nothing can be said of how far apart they usually are."""

REFERENCE = 10_000
"""Images that each is compared with at most: the time grows in proportion to the images."""

FALSE_ALARMS = 1.0
"""Sound images of a data set that are expected beyond the limit."""

# The distances between these shares of the images say how fast they become rare further out.
# Up to 2 images in 100 can be of another kind without moving the limit.
NEAR_TAIL, FAR_TAIL = 0.90, 0.98

BLOCK = 1024

THREADED = 4000
"""On small matrices threads wait for each other longer than they work."""


class Outliers(Check):
    """Images whose nearest neighbours among all others are far away.

    The distance to the tenth neighbour (Ramaswamy, Rastogi, Shim 2000, "Efficient algorithms for
    mining outliers from large data sets") in the space of the features' principal components.
    """

    code = "KS404"
    title = "Images unlike all others"
    severity = "warning"
    cost = "full"
    advice = "Leave out what shows none of the classes."

    def run(self, context: CheckContext) -> CheckResult:
        """Look for images that stand alone."""
        features = context.features
        if features is None:
            return self.not_applicable("There are no features of these images.")
        rows = self._different(context, features.rows)
        if len(rows) < FEWEST:
            return self.not_applicable(f"There are fewer than {FEWEST} different images.")
        with threadpool_limits(1 if len(rows) < THREADED else None, user_api="blas"):
            space = principal_space(features.vectors[rows], context.feature_blocks)
            distances = neighbour_distances(space, NEIGHBOURS)
        limit, usual = tail_limit(distances, FALSE_ALARMS), float(np.median(distances))
        far = np.flatnonzero(distances > limit)
        far = far[np.argsort(-distances[far], kind="stable")]
        return self.result(
            (
                self.finding(
                    context,
                    [features.rows[rows[i]]],
                    f"The images most like it are {distances[i] / usual:.1f} times as unlike as "
                    f"usual; of {len(rows):,} sound ones about one would lie so far out.",
                    value=round(float(distances[i] / usual), 3),
                )
                for i in far
            ),
            len(rows),
        )

    def _different(self, context: CheckContext, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the places of one image of each content."""
        first: dict[object, int] = {}
        for place, row in enumerate(rows.tolist()):
            first.setdefault(context.dataset.digest[row] or row, place)
        return np.fromiter(first.values(), np.int64, len(first))


def neighbour_distances(points: NDArray[np.float32], neighbours: int) -> NDArray[np.float64]:
    """Return the distance of each point to its n-th nearest other one.

    Parameters
    ----------
    points : float32 array (n, width)
        Of more than :data:`REFERENCE`, that many are drawn to be neighbours.
    neighbours : int
        Which neighbour, from 1 on.

    Returns
    -------
    float64 array (n,)
    """
    n = len(points)
    chosen = np.sort(chance.permutation(0, "check outliers", 0, n)[:REFERENCE])
    others = points[chosen]
    squares = np.square(others).sum(axis=1)
    place = np.full(n, -1)
    place[chosen] = np.arange(len(chosen))
    found = np.empty(n)
    for at in range(0, n, BLOCK):
        block = points[at : at + BLOCK]
        apart = squares - 2 * block @ others.T + np.square(block).sum(axis=1)[:, None]
        own = place[at : at + BLOCK]
        inside = np.flatnonzero(own >= 0)
        apart[inside, own[inside]] = np.inf
        found[at : at + BLOCK] = np.partition(apart, neighbours - 1, axis=1)[:, neighbours - 1]
    return np.sqrt(np.maximum(found, 0))


def tail_limit(distances: NDArray[np.float64], expected: float) -> float:
    """Return the distance beyond which so many of the distances are expected by chance.

    Beyond the far tail, logarithms of distances are taken to become rarer exponentially, at the
    rate at which they do between the near and the far tail.

    Parameters
    ----------
    distances : float64 array (n,)
    expected : float
        How many.

    Returns
    -------
    float
        Infinite where the distances do not vary.
    """
    logs = np.log(np.maximum(distances, 1e-12))
    near, far = np.quantile(logs, [NEAR_TAIL, FAR_TAIL])
    if far <= near:
        return np.inf
    rate = np.log((1 - NEAR_TAIL) / (1 - FAR_TAIL)) / (far - near)
    beyond = np.log((1 - FAR_TAIL) * len(logs) / expected) / rate
    return float(np.exp(far + max(0.0, beyond)))
