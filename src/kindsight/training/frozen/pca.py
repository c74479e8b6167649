"""Standardised principal components of features, and the components of an RBF kernel on these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kindsight.training.common import BLOCK_ROWS, ColumnScale, mean_and_scale

__all__ = [
    "MAX_PRODUCTS",
    "PCA",
    "NystroemMap",
    "WeightedPCA",
    "fit_nystroem",
    "fit_pca",
]

Floats = NDArray[np.float32]

MAX_PRODUCTS = 4096
"""Maximum number of images whose pairwise inner products are held in memory: 64 MB for each group
of columns (a backbone has three), and as much again for 4,000 standardised columns."""

# More rows do not improve the directions of the principal components.
BASIS_ROWS = 8192
OVERSAMPLING = 32
POWER_ITERATIONS = 1
# Kernel components with a smaller fraction of the largest eigenvalue are dropped: they, and their
# float32 rounding errors, would be multiplied by the inverse root of the eigenvalue.
MIN_EIGENVALUE = 3e-5
# Directions with a smaller fraction of the largest variance are dropped: they are float32 noise in
# the inner products, and they do not generalise (elpv at 300 px, three variants: 88.9% accuracy,
# 88.3% with directions down to a millionth).
MIN_VARIANCE = 1e-3


@dataclass(frozen=True)
class PCA:
    """features @ kernel + bias: standardised and rotated to principal components.

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


def fit_pca(
    features: Floats,
    column_weights: Floats,
    components: int,
    generator: np.random.Generator,
    layers: Sequence[slice] = (),
) -> PCA:
    """Standardise and weight columns, scale the mean square row norm to 1, and rotate.

    A randomised singular value decomposition (N. Halko, P. Martinsson, J. Tropp, "Finding
    structure with randomness", SIAM Review 53, 2011).

    Parameters
    ----------
    features : array
        float32 (images, columns).
    column_weights : array
        float32 (columns,); 0 drops a column.
    components : int
        Maximum number of principal components.
    generator : numpy.random.Generator
        Generator of the random directions.
    layers : sequence of slice
        The columns of each layer.
    """
    mean, factors = mean_and_scale(features, layers)
    factors = factors * column_weights
    rows = features
    if len(rows) > BASIS_ROWS:
        rows = rows[np.sort(generator.permutation(len(rows))[:BASIS_ROWS])]
    scaled = ((rows - mean.astype(np.float32)) * factors.astype(np.float32)).astype(np.float32)
    norm = np.sqrt(np.square(scaled).sum(1, dtype=np.float64).mean()) or 1.0
    basis = _principal_directions(scaled, min(components, *scaled.shape), generator)
    kernel = (factors[:, None] / norm) * basis
    return PCA(kernel.astype(np.float32), (-mean @ kernel).astype(np.float32))


def _principal_directions(
    rows: Floats, count: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Return the first right singular vectors of `rows`, float64 (columns, count)."""
    width = min(count + OVERSAMPLING, *rows.shape)
    sample = rows @ generator.standard_normal((rows.shape[1], width), np.float32)
    if not sample.any():  # all images equal: any direction will do
        return np.eye(rows.shape[1], 1)
    for _ in range(POWER_ITERATIONS):
        sample = rows @ (rows.T @ (sample / np.sqrt(np.square(sample).mean())))
    small = _orthonormal_basis(sample).T @ rows
    values, vectors = np.linalg.eigh(_gram(small.T))
    used = np.flatnonzero(values > 1e-9 * values[-1])[::-1][:count]
    directions: NDArray[np.float64] = small.T @ (vectors[:, used] / np.sqrt(values[used]))
    return directions


def _gram(columns: Floats) -> NDArray[np.float64]:
    wide = columns.astype(np.float64)
    result: NDArray[np.float64] = wide.T @ wide
    return result


def _orthonormal_basis(columns: Floats) -> Floats:
    """Return an orthonormal basis of the column space, from its small Gram matrix.

    LAPACK's QR takes several times as long on tall matrices.
    """
    values, vectors = np.linalg.eigh(_gram(columns))
    used = values > 1e-12 * values[-1]
    basis: Floats = columns @ (vectors[:, used] / np.sqrt(values[used])).astype(np.float32)
    return basis


@dataclass(frozen=True)
class NystroemMap:
    """components -> exp(-gamma · squared distance to each landmark) @ whitening - mean.

    Parameters
    ----------
    landmarks : array
        float32 (landmarks, components).
    gamma : float
        Inverse squared width of the kernel.
    whitening : array
        float32 (landmarks, kernel components): eigenvectors over the roots of eigenvalues.
    mean : array
        float32 (kernel components,): centres the columns.
    """

    landmarks: Floats
    gamma: float
    whitening: Floats
    mean: Floats

    def kernel(self, components: Floats) -> Floats:
        """Return the kernel values, float32 (images, landmarks), each 0 to 1."""
        squares = np.square(components).sum(1)[:, None] + np.square(self.landmarks).sum(1)
        distances = squares - 2 * components @ self.landmarks.T
        np.maximum(distances, 0, out=distances)
        distances *= -np.float32(self.gamma)
        result: Floats = np.exp(distances, out=distances)
        return result

    def apply(self, components: Floats) -> Floats:
        """Return float32 (images, kernel components)."""
        result: Floats = self.kernel(components) @ self.whitening - self.mean
        return result


def fit_nystroem(
    components: Floats, landmarks: int, gamma: float, generator: np.random.Generator
) -> NystroemMap:
    """Approximate the RBF kernel with randomly drawn images as landmarks.

    C. Williams and M. Seeger, "Using the Nyström method to speed up kernel machines", NIPS 2000.

    Parameters
    ----------
    components : array
        float32 (images, components), as :meth:`PCA.apply` returns them.
    landmarks : int
        Maximum number of landmarks.
    gamma : float
        Factor in exp(-gamma · squared distance).
    generator : numpy.random.Generator
        Draws the landmarks.
    """
    # Landmarks stay in random order: in the order of classes the terms of a logit, which nearly
    # cancel, would first add up to a large sum, and float32 would lose its last digits.
    chosen = generator.permutation(len(components))[:landmarks]
    points = np.ascontiguousarray(components[chosen])
    bare = NystroemMap(
        points, gamma, np.eye(len(points), dtype=np.float32), np.float32(0) * points[0]
    )
    matrix = bare.kernel(points)
    values, vectors = np.linalg.eigh(matrix.astype(np.float64))
    used = values > MIN_EIGENVALUE * values[-1]
    whitening = (vectors[:, used] / np.sqrt(values[used])).astype(np.float32)
    return NystroemMap(points, gamma, whitening, (matrix @ whitening).mean(0))


class WeightedPCA:
    """Principal components of the same features under several weightings of their columns.

    With fewer images than columns, the components need only the inner products of the images. They
    are computed once for each group of columns with equal weights and summed for every weighting,
    so that the features are read once.

    Parameters
    ----------
    features : array
        float32 (images, columns).
    weightings : sequence of array
        float32 (columns,): 0 drops a column.
    components : int
        Maximum number of principal components.
    make_generator : callable
        Returns the generator of random directions, the same each time.
    layers : sequence of slice
        The columns of each layer.
    overwrite : bool
        Whether `features` may be overwritten, which saves the memory of a copy.
    """

    def __init__(
        self,
        features: Floats,
        weightings: Sequence[Floats],
        components: int,
        make_generator: Callable[[], np.random.Generator],
        layers: Sequence[slice] = (),
        *,
        overwrite: bool = False,
    ) -> None:
        self._features, self._weightings, self._layers = features, weightings, layers
        self._count, self._make_generator = components, make_generator
        self._small = len(features) <= min(MAX_PRODUCTS, features.shape[1])
        self._projections: dict[int, PCA] = {}
        self._components: dict[int, Floats] = {}
        self._eigenvectors: dict[int, tuple[Floats, Floats]] = {}
        if self._small:
            self._prepare(overwrite)

    def _prepare(self, overwrite: bool) -> None:
        self._mean, self._factors = mean_and_scale(self._features, self._layers)
        center, out = self._mean.astype(np.float32), self._features if overwrite else None
        self._features = self._rows = np.subtract(self._features, center, out=out)
        self._rows *= self._factors.astype(np.float32)
        _, group = np.unique(np.stack(self._weightings), axis=1, return_inverse=True)
        self._groups: list[tuple[int, Floats]] = []
        for number in range(int(group.max()) + 1):
            columns = np.flatnonzero(group == number)
            first, last = int(columns[0]), int(columns[-1]) + 1
            if last - first == len(columns):  # usually contiguous, which needs no copy
                block = self._rows[:, first:last]
            else:
                block = np.ascontiguousarray(self._rows[:, columns])
            self._groups.append((first, block @ block.T))
        self._traces = [
            (first, np.trace(products, dtype=np.float64)) for first, products in self._groups
        ]

    def forget_products(self) -> None:
        """Free the inner products once the components of every weighting are computed."""
        self._groups = []

    @property
    def scale(self) -> ColumnScale | None:
        """Mean and inverse standard deviation of the columns; None if they were not needed."""
        return (self._mean, self._factors) if self._small else None

    def components(self, number: int) -> Floats:
        """Return the images' components under one weighting, float32 (images, components)."""
        if number not in self._components:
            if self._small:
                products = self._products(number)
                vectors, roots = self._eigen(number, products)
                self._components[number] = products @ (vectors / roots)
            else:
                self._components[number] = self.projection(number).apply(self._features)
        return self._components[number]

    def projection(self, number: int) -> PCA:
        """Return the map from features to these components."""
        if number not in self._projections:
            weights = self._weightings[number]
            self._projections[number] = (
                self._fold(number, weights)
                if self._small
                else fit_pca(
                    self._features, weights, self._count, self._make_generator(), self._layers
                )
            )
        return self._projections[number]

    def _fold(self, number: int, weights: Floats) -> PCA:
        vectors, roots = self._eigen(number, None)
        factors = self._factors * weights
        scale = self._norm(number)
        basis = (self._rows.T @ (vectors / roots)).astype(np.float64) * (weights / scale)[:, None]
        kernel = (factors[:, None] / scale) * basis
        return PCA(kernel.astype(np.float32), (-self._mean @ kernel).astype(np.float32))

    def _norm(self, number: int) -> float:
        """Return the root of the weighted rows' mean square norm."""
        weights = self._weightings[number]
        squares = sum(float(weights[first]) ** 2 * trace for first, trace in self._traces)
        return float(np.sqrt(squares / len(self._rows))) or 1.0

    def _products(self, number: int) -> Floats:
        weights, scale = self._weightings[number], self._norm(number)
        total = np.zeros((len(self._rows),) * 2, np.float32)
        for first, products in self._groups:
            if weights[first]:
                factor = np.float32((weights[first] / scale) ** 2)
                for at in range(0, len(total), BLOCK_ROWS):  # instead of a second matrix
                    total[at : at + BLOCK_ROWS] += factor * products[at : at + BLOCK_ROWS]
        return total

    def _eigen(self, number: int, products: Floats | None) -> tuple[Floats, Floats]:
        """Return the first eigenvectors of the products, and the roots of their eigenvalues."""
        if number in self._eigenvectors:
            return self._eigenvectors[number]
        products = self._products(number) if products is None else products
        width = min(self._count + OVERSAMPLING, len(products))
        generator = self._make_generator()
        sample = products @ generator.standard_normal((len(products), width), np.float32)
        if not sample.any():  # all images equal: any direction will do
            found = np.eye(len(products), 1, dtype=np.float32), np.ones(1, np.float32)
        else:
            sample = products @ (sample / np.sqrt(np.square(sample).mean()))
            basis = _orthonormal_basis(sample)
            small = (basis.T @ (products @ basis)).astype(np.float64)
            values, vectors = np.linalg.eigh((small + small.T) / 2)
            used = np.flatnonzero(values > MIN_VARIANCE * values[-1])[::-1][: self._count]
            found = (
                basis @ vectors[:, used].astype(np.float32),
                np.sqrt(values[used]).astype(np.float32),
            )
        self._eigenvectors[number] = found
        return found
