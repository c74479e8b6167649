"""Principal components of the same features under several weights of their columns.

Where there are fewer pictures than some thousand, all that the components need are the products of
the pictures with each other. These are taken once for each group of columns that is always weighed
alike, and added up anew for every weighting: the features themselves, of which each picture has
thousands, are walked through once instead of four times a weighting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from kindsight.training.projection import (
    OVERSAMPLING,
    Projection,
    fit_projection,
    orthogonal,
    spreads_of,
)

__all__ = ["MOST_PRODUCTS", "WeighedFeatures"]

Floats = NDArray[np.float32]

# The products of so many pictures take 64 MB for each group of columns, of which one backbone has
# three; and as much again are the standardised features, of 4,000 columns.
MOST_PRODUCTS = 4096
# Directions with a smaller share of the largest variance are left out. Below it products of
# products are noise of float32; and what varies so little tells nothing of other pictures (elpv at
# 300 px over three views: 88.9% right, and 88.3% with directions down to a millionth).
SMALLEST_SHARE = 1e-3


class WeighedFeatures:
    """Features, standardised, whose columns can be weighed in several ways.

    Parameters
    ----------
    features : array
        float32 (pictures, columns).
    weightings : sequence of array
        float32 (columns,): 0 leaves a column out.
    components : int
        How many principal components to keep at most.
    make_generator : callable
        Gives the source of the random directions, the same each time.
    """

    def __init__(
        self,
        features: Floats,
        weightings: Sequence[Floats],
        components: int,
        make_generator: Callable[[], np.random.Generator],
    ) -> None:
        self._features, self._weightings = features, weightings
        self._count, self._make_generator = components, make_generator
        self._small = len(features) <= min(MOST_PRODUCTS, features.shape[1])
        self._projections: dict[int, Projection] = {}
        self._components: dict[int, Floats] = {}
        self._directions: dict[int, tuple[Floats, Floats]] = {}
        if self._small:
            self._prepare()

    def _prepare(self) -> None:
        self._mean, self._factors = spreads_of(self._features)
        self._rows = (self._features - self._mean.astype(np.float32)) * self._factors.astype(
            np.float32
        )
        # Columns that every weighting treats alike are one group.
        _, group = np.unique(np.stack(self._weightings), axis=1, return_inverse=True)
        self._groups: list[tuple[int, Floats]] = []
        for number in range(int(group.max()) + 1):
            columns = np.flatnonzero(group == number)
            first, last = int(columns[0]), int(columns[-1]) + 1
            # Mostly they are neighbours, and need no copy.
            part = self._rows[:, first:last] if last - first == len(columns) else None
            part = np.ascontiguousarray(self._rows[:, columns]) if part is None else part
            self._groups.append((first, part @ part.T))

    def components(self, number: int) -> Floats:
        """Return the components of the pictures under one weighting, float32 (pictures, count)."""
        if number not in self._components:
            if self._small:
                products = self._products(number)
                vectors, roots = self._vectors(number, products)
                self._components[number] = products @ (vectors / roots)
            else:
                self._components[number] = self.projection(number).apply(self._features)
        return self._components[number]

    def projection(self, number: int) -> Projection:
        """Return what makes these components of features."""
        if number not in self._projections:
            weights = self._weightings[number]
            self._projections[number] = (
                self._fold(number, weights)
                if self._small
                else fit_projection(self._features, weights, self._count, self._make_generator())
            )
        return self._projections[number]

    def _fold(self, number: int, weights: Floats) -> Projection:
        vectors, roots = self._vectors(number, None)
        factors = self._factors * weights
        scale = self._norm(number)
        basis = (self._rows.T @ (vectors / roots)).astype(np.float64) * (weights / scale)[:, None]
        kernel = (factors[:, None] / scale) * basis
        return Projection(kernel.astype(np.float32), (-self._mean @ kernel).astype(np.float32))

    def _norm(self, number: int) -> float:
        """Return the root of the mean square norm of the weighed rows."""
        weights = self._weightings[number]
        squares = sum(
            float(weights[first]) ** 2 * np.trace(part, dtype=np.float64)
            for first, part in self._groups
        )
        return float(np.sqrt(squares / len(self._rows))) or 1.0

    def _products(self, number: int) -> Floats:
        weights, scale = self._weightings[number], self._norm(number)
        total = np.zeros((len(self._rows),) * 2, np.float32)
        for first, part in self._groups:
            if weights[first]:
                total += np.float32((weights[first] / scale) ** 2) * part
        return total

    def _vectors(self, number: int, products: Floats | None) -> tuple[Floats, Floats]:
        """Return the first eigenvectors of the products, and the roots of their eigenvalues."""
        if number in self._directions:
            return self._directions[number]
        products = self._products(number) if products is None else products
        width = min(self._count + OVERSAMPLING, len(products))
        generator = self._make_generator()
        sample = products @ generator.standard_normal((len(products), width), np.float32)
        if not sample.any():  # all pictures alike: any direction will do
            found = np.eye(len(products), 1, dtype=np.float32), np.ones(1, np.float32)
        else:
            sample = products @ (sample / np.sqrt(np.square(sample).mean()))
            basis = orthogonal(sample)
            small = (basis.T @ (products @ basis)).astype(np.float64)
            values, turned = np.linalg.eigh((small + small.T) / 2)
            kept = np.flatnonzero(values > SMALLEST_SHARE * values[-1])[::-1]
            kept = kept[: self._count]
            found = (
                basis @ turned[:, kept].astype(np.float32),
                np.sqrt(values[kept]).astype(np.float32),
            )
        self._directions[number] = found
        return found
