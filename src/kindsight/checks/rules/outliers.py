"""KS404: outliers in feature space."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from kindsight import random_stream
from kindsight.checks.check import Check, CheckResult
from kindsight.checks.context import CheckContext, principal_components

__all__ = ["FALSE_ALARMS", "Outliers", "neighbour_distances", "tail_limit"]

NEIGHBOURS = 10
"""Rank of the neighbour whose distance counts: groups of up to 10 similar outliers are found."""

FEWEST = 200
"""Images needed to estimate the distribution of distances."""

REFERENCE = 10_000
"""Maximum number of images with which each is compared, so that the time is proportional to n."""

FALSE_ALARMS = 1.0
"""Expected number of normal images of a dataset that are reported."""

# Quantiles of the distances from which the exponential tail is estimated. Up to 2% outliers leave
# the limit unchanged.
NEAR_TAIL, FAR_TAIL = 0.90, 0.98

BLOCK = 1024

THREADED = 4000
"""On fewer images, BLAS threads spend more time waiting than computing."""


class Outliers(Check):
    """Images that are far from their nearest neighbours in feature space.

    The distance to the tenth neighbour (Ramaswamy, Rastogi, Shim 2000, "Efficient algorithms for
    mining outliers from large data sets") in the principal components of the features.
    """

    code = "KS404"
    title = "Outliers"
    severity = "warning"
    cost = "full"
    advice = "Remove the images that show none of the classes."

    def run(self, context: CheckContext) -> CheckResult:
        """Report images with a large neighbour distance."""
        features = context.features
        if features is None:
            return self.not_applicable("There are no features of these images.")
        indices = self._distinct(context, features.rows)
        if len(indices) < FEWEST:
            return self.not_applicable(f"There are fewer than {FEWEST} distinct images.")
        progress = context.late_progress
        with threadpool_limits(1 if len(indices) < THREADED else None, user_api="blas"):
            n = len(indices)
            # Reading the features takes about as long as the comparisons.
            space = principal_components(
                features.vectors, context.feature_blocks, rows=indices,
                progress=lambda done: progress("outliers", done // 2, n),
            )  # fmt: skip
            distances = neighbour_distances(
                space, NEIGHBOURS, lambda done: progress("outliers", (n + done) // 2, n)
            )
        limit, median = tail_limit(distances, FALSE_ALARMS), float(np.median(distances))
        far = np.flatnonzero(distances > limit)
        return self.result(
            (
                self.finding(
                    context,
                    [features.rows[indices[i]]],
                    f"Its neighbour distance is {_times(distances[i], median)} the median; "
                    f"about one of {len(indices):,} normal images would exceed the limit.",
                    value=round(float(distances[i] / median), 3) if median > 0 else None,
                )
                for i in far[np.argsort(-distances[far], kind="stable")]
            ),
            len(indices),
        )

    def _distinct(self, context: CheckContext, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the index of one image of each content."""
        first: dict[object, int] = {}
        for index, row in enumerate(rows.tolist()):
            first.setdefault(context.dataset.digest[row] or row, index)
        return np.fromiter(first.values(), np.int64, len(first))


def _times(distance: float, median: float) -> str:
    # Most images can have the same features; their distances are then 0.
    return f"{distance / median:.1f} times" if median > 0 else "above"


def neighbour_distances(
    points: NDArray[np.float32],
    neighbours: int,
    progress: Callable[[int], None] = lambda done: None,
) -> NDArray[np.float64]:
    """Return the Euclidean distance of each point to its n-th nearest neighbour.

    - `points`: float32 array (n, width); of more than :data:`REFERENCE`, a random sample serves as
      neighbours.
    - `neighbours`: rank of the neighbour, from 1.
    - `progress`: called with the number of points that are done.

    Returns
    -------
    float64 array (n,)
    """
    n = len(points)
    chosen = np.sort(random_stream.permutation(0, "check outliers", 0, n)[:REFERENCE])
    others = points[chosen]
    squares = np.square(others).sum(axis=1)
    column = np.full(n, -1)
    column[chosen] = np.arange(len(chosen))
    found = np.empty(n)
    for at in range(0, n, BLOCK):
        block = points[at : at + BLOCK]
        squared = squares - 2 * block @ others.T + np.square(block).sum(axis=1)[:, None]
        own = column[at : at + BLOCK]
        inside = np.flatnonzero(own >= 0)
        squared[inside, own[inside]] = np.inf
        found[at : at + BLOCK] = np.partition(squared, neighbours - 1, axis=1)[:, neighbours - 1]
        progress(min(n, at + BLOCK))
    return np.sqrt(np.maximum(found, 0))


def tail_limit(distances: NDArray[np.float64], expected: float) -> float:
    """Return the distance that an expected number of normal images exceed.

    The logarithms of the distances are modelled by an exponential tail, whose rate is estimated
    between the quantiles :data:`NEAR_TAIL` and :data:`FAR_TAIL`.

    - `distances`: float64 array (n,).
    - `expected`: expected number of images beyond the limit.

    Returns
    -------
    float
        Infinite if the distances do not vary.
    """
    logs = np.log(np.maximum(distances, 1e-12))
    near, far = np.quantile(logs, [NEAR_TAIL, FAR_TAIL])
    if far <= near:
        return np.inf
    rate = np.log((1 - NEAR_TAIL) / (1 - FAR_TAIL)) / (far - near)
    beyond = np.log((1 - FAR_TAIL) * len(logs) / expected) / rate
    return float(np.exp(far + max(0.0, beyond)))
