"""Standardised principal components, and the kernel components made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "MOST_PRODUCTS",
    "KernelMap",
    "Projection",
    "WeighedFeatures",
    "fit_kernel_map",
    "fit_projection",
    "orthogonal",
    "spreads_of",
]

Floats = NDArray[np.float32]

# A column that varies less than this, relative to its size, is noise of the arithmetic.
SMALLEST_SPREAD = 1e-5
# More rows than this add nothing to the directions of the principal components.
BASIS_ROWS = 8192
BLOCK_ROWS = 2048
OVERSAMPLING = 32
POWER_ITERATIONS = 1
# Kernel components with a smaller share of the largest eigenvalue are cut off: they would be
# multiplied by its inverse root, and the rounding of float32 with them.
SMALLEST_EIGENVALUE = 3e-5


@dataclass(frozen=True)
class Projection:
    """features -> features @ kernel + bias: standardised, rotated to principal components.

    Parameters
    ----------
    kernel : array
        float32 (features, components).
    bias : array
        float32 (components,).
    """

    kernel: Floats
    bias: Floats

    def apply(self, features: Floats) -> Floats:
        """Return float32 (images, components)."""
        result: Floats = features @ self.kernel + self.bias
        return result


def fit_projection(
    features: Floats, column_weights: Floats, components: int, generator: np.random.Generator
) -> Projection:
    """Standardise columns, weigh them, scale the mean square row norm to 1, rotate.

    The rotation is a randomised singular value decomposition (N. Halko, P. Martinsson, J. Tropp,
    "Finding structure with randomness", SIAM Review 53, 2011).

    Parameters
    ----------
    features : array
        float32 (images, columns).
    column_weights : array
        float32 (columns,); 0 leaves a column out.
    components : int
        How many principal components to keep at most.
    generator : numpy.random.Generator
        For the random directions.
    """
    mean, factors = spreads_of(features)
    factors = factors * column_weights
    rows = features
    if len(rows) > BASIS_ROWS:
        rows = rows[np.sort(generator.permutation(len(rows))[:BASIS_ROWS])]
    scaled = ((rows - mean.astype(np.float32)) * factors.astype(np.float32)).astype(np.float32)
    norm = np.sqrt(np.square(scaled).sum(1, dtype=np.float64).mean()) or 1.0
    basis = _principal_directions(scaled, min(components, *scaled.shape), generator)
    kernel = (factors[:, None] / norm) * basis
    return Projection(kernel.astype(np.float32), (-mean @ kernel).astype(np.float32))


def spreads_of(features: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean of each column and the inverse of its deviation, 0 where it has none."""
    mean = features.mean(0, dtype=np.float64)
    # By blocks: the deviations of all at once would take twice the room of the features.
    squares = np.zeros_like(mean)
    for start in range(0, len(features), BLOCK_ROWS):
        squares += np.square(features[start : start + BLOCK_ROWS] - mean).sum(0)
    spread = np.sqrt(squares / len(features))
    alive = spread > SMALLEST_SPREAD * (np.abs(mean) + 1e-3)
    return mean, np.where(alive, 1 / np.where(alive, spread, 1.0), 0.0)


def _principal_directions(
    rows: Floats, count: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Return the first right singular vectors of `rows`, float64 (columns, count)."""
    width = min(count + OVERSAMPLING, *rows.shape)
    sample = rows @ generator.standard_normal((rows.shape[1], width), np.float32)
    if not sample.any():  # all images alike: any direction will do
        return np.eye(rows.shape[1], 1)
    for _ in range(POWER_ITERATIONS):
        sample = rows @ (rows.T @ (sample / np.sqrt(np.square(sample).mean())))
    basis = orthogonal(sample)
    small = basis.T @ rows
    values, vectors = np.linalg.eigh(_gram(small.T))
    kept = np.flatnonzero(values > 1e-9 * values[-1])[::-1][:count]
    directions: NDArray[np.float64] = small.T @ (vectors[:, kept] / np.sqrt(values[kept]))
    return directions


def _gram(columns: Floats) -> NDArray[np.float64]:
    wide = columns.astype(np.float64)
    result: NDArray[np.float64] = wide.T @ wide
    return result


def orthogonal(columns: Floats) -> Floats:
    """Return an orthonormal basis of what `columns` span, from their small Gram matrix.

    LAPACK's QR gives the same and takes several times as long on tall matrices.
    """
    values, vectors = np.linalg.eigh(_gram(columns))
    kept = values > 1e-12 * values[-1]
    basis: Floats = columns @ (vectors[:, kept] / np.sqrt(values[kept])).astype(np.float32)
    return basis


@dataclass(frozen=True)
class KernelMap:
    """Principal components -> exp(-gamma · squared distance to each landmark) @ whitening.

    Parameters
    ----------
    landmarks : array
        float32 (landmarks, components).
    gamma : float
        Inverse squared width of the kernel.
    whitening : array
        float32 (landmarks, kernel components): eigenvectors over the roots of eigenvalues.
    mean : array
        float32 (kernel components,): subtracted, so that the columns are centred.
    """

    landmarks: Floats
    gamma: float
    whitening: Floats
    mean: Floats

    def kernel(self, components: Floats) -> Floats:
        """Return the kernel values, float32 (images, landmarks), each 0 to 1."""
        squares = np.square(components).sum(1)[:, None] + np.square(self.landmarks).sum(1)
        distances = squares - 2 * components @ self.landmarks.T
        result: Floats = np.exp(-np.float32(self.gamma) * np.maximum(distances, 0))
        return result

    def apply(self, components: Floats) -> Floats:
        """Return float32 (images, kernel components)."""
        result: Floats = self.kernel(components) @ self.whitening - self.mean
        return result


def fit_kernel_map(
    components: Floats, landmarks: int, gamma: float, generator: np.random.Generator
) -> KernelMap:
    """Approximate the RBF kernel from some images as landmarks.

    Nyström's method: C. Williams and M. Seeger, "Using the Nyström method to speed up kernel
    machines", NIPS 2000.

    Parameters
    ----------
    components : array
        float32 (images, components), as :meth:`Projection.apply` returns them.
    landmarks : int
        How many images to take as landmarks at most.
    gamma : float
        In exp(-gamma · squared distance).
    generator : numpy.random.Generator
        Draws the landmarks.
    """
    # In the order drawn: images come class by class, and so the terms of a logit, which nearly
    # cancel, would add up to a large sum on the way and lose its last digits.
    chosen = generator.permutation(len(components))[:landmarks]
    points = np.ascontiguousarray(components[chosen])
    bare = KernelMap(
        points, gamma, np.eye(len(points), dtype=np.float32), np.float32(0) * points[0]
    )
    matrix = bare.kernel(points)
    values, vectors = np.linalg.eigh(matrix.astype(np.float64))
    kept = values > SMALLEST_EIGENVALUE * values[-1]
    whitening = (vectors[:, kept] / np.sqrt(values[kept])).astype(np.float32)
    return KernelMap(points, gamma, whitening, (matrix @ whitening).mean(0))


# SECTION: Principal components of the same features under several weights of their columns.
#
# Where there are fewer images than some thousand, all that the components need are the products of
# the images with each other. These are taken once for each group of columns that is always weighed
# alike, and added up anew for every weighting: the features themselves, of which each image has
# thousands, are walked through once instead of four times a weighting.


# The products of so many images take 64 MB for each group of columns, of which one backbone has
# three; and as much again are the standardised features, of 4,000 columns.
MOST_PRODUCTS = 4096
# Directions with a smaller share of the largest variance are left out. Below it products of
# products are noise of float32; and what varies so little tells nothing of other images (elpv at
# 300 px over three views: 88.9% right, and 88.3% with directions down to a millionth).
SMALLEST_SHARE = 1e-3


class WeighedFeatures:
    """Features, standardised, whose columns can be weighed in several ways.

    Parameters
    ----------
    features : array
        float32 (images, columns).
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
        """Return the components of the images under one weighting, float32 (images, count)."""
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
        if not sample.any():  # all images alike: any direction will do
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
