"""Images with similar features: the nearest training images, and a map of images.

t-SNE keeps near images near; distances between far groups mean little. For a handful of images the
first two principal components are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kindsight.models.pooled_maps import PooledMap
from kindsight.report.data import FeatureMap, MappedImage

__all__ = [
    "MAX_MAPPED", "Neighbour", "TrainingImages", "feature_vector", "grid_side", "map_images",
    "principal_components", "spread_on_grid", "t_sne", "unit_rows",
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Neighbour:
    """A training image that is near an image in feature space.

    Parameters
    ----------
    path, label : str
        As in the run's dataset.
    similarity : float
        Cosine of the two feature vectors, -1 to 1.
    jpeg : bytes
        The resized image as the cache has it; empty where it has none.
    file : str or None
        The image file; None if it is not where it was during the training.
    """

    path: str
    label: str
    similarity: float
    jpeg: bytes = b""
    file: str | None = None


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """The training images of a run with their feature vectors.

    Parameters
    ----------
    paths, labels, digests : tuple of str
        Of n images; byte-identical images once.
    vectors : array
        float32 (n, width), each of length 1; see :func:`feature_vector`.
    total : int
        Number of training images of the run, of which these are some or all.
    load : callable
        Returns the resized image of a digest as JPEG, empty if there is none.
    find : callable
        Returns the file of a path; None if it is not there.
    """

    paths: tuple[str, ...]
    labels: tuple[str, ...]
    digests: tuple[str, ...]
    vectors: NDArray[np.float32]
    total: int
    load: Callable[[str], bytes]
    find: Callable[[str], str | None]

    def nearest(
        self, vector: NDArray[np.float32], count: int, digest: str = ""
    ) -> tuple[Neighbour, ...]:
        """Return the training images with the highest cosine to a feature vector, highest first.

        The image with the content digest `digest`, the image itself, is left out.
        """
        similarities = self.vectors @ vector
        order = np.argsort(-similarities, kind="stable")
        rows = [row for row in order[: count + 1].tolist() if self.digests[row] != digest]
        return tuple(
            Neighbour(
                self.paths[row],
                self.labels[row],
                float(similarities[row]),
                self.load(self.digests[row]),
                self.find(self.paths[row]),
            )
            for row in rows[:count]
        )


def feature_vector(
    maps: Sequence[PooledMap], values: Sequence[NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Return the feature vector of an image, float32 (width,), of length 1.

    It is the mean over the image of the last feature maps of each network (of the unchanged image,
    with test-time augmentation), each network's scaled to the same length. Of the features of an
    EfficientNet-Lite0, their cosine found images of the same class most often.
    """
    parts = [
        found.mean(axis=(0, 1))
        for each, found in zip(maps, values, strict=True)
        if each.is_last and not each.flips and not each.is_cropped
    ]
    joined = np.concatenate([unit_rows(part[None]) for part in parts], axis=1)
    vector: NDArray[np.float32] = unit_rows(joined)[0]
    return vector


def unit_rows(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return vectors (n, width) scaled to length 1; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)


MAX_MAPPED = 2000
"""Maximum number of images of a map: t-SNE compares all pairs."""

FEWEST_NEIGHBOURS = 12
"""Minimum number of images for t-SNE."""

PERPLEXITY = 20.0
"""Effective number of neighbours of an image."""

COMPONENTS = 30
"""Principal components that t-SNE starts from; the others are mostly noise."""

GRID_CELLS = 1.8
"""Cells of the grid per image: the gaps between groups stay visible."""

ITERATIONS = 300
_EARLY = 75
_EXAGGERATION = 12.0
_BISECTIONS = 40

Floats = NDArray[np.float64]


def map_images(
    split: str, paths: Sequence[str], vectors: NDArray[np.floating], *, iterations: int = ITERATIONS
) -> FeatureMap | None:
    """Return a map of images, on a grid so that none covers another; None for fewer than three.

    The grid has :func:`grid_side` rows and columns.

    Parameters
    ----------
    split : str
        The split that they belong to.
    paths : sequence of str
        Of n images, at most :data:`MAX_MAPPED`.
    vectors : array (n, width)
        Their feature vectors.
    iterations : int
        Steps of t-SNE.
    """
    if len(paths) < 3:
        return None
    values = np.asarray(vectors, np.float64)
    components, explained = principal_components(values, COMPONENTS)
    if len(paths) < FEWEST_NEIGHBOURS:
        method, points, fraction = "PCA", components[:, :2], float(explained[:2].sum())
    else:
        method, points, fraction = "t-SNE", t_sne(components, iterations=iterations), None
    points = spread_on_grid(points)
    placed = (
        MappedImage(path, round(float(x), 4), round(float(y), 4))
        for path, (x, y) in zip(paths, points, strict=True)
    )
    return FeatureMap(split, method, tuple(placed), fraction)


def grid_side(count: int) -> int:
    """Return the number of rows and columns of the grid for a number of images."""
    return max(2, int(np.ceil(np.sqrt(GRID_CELLS * count))))


def spread_on_grid(points: Floats) -> Floats:
    """Return positions (n, 2), 0-1, each at the centre of a different cell, near where it was.

    Points from the middle outwards take the nearest free cell.
    """
    side = grid_side(len(points))
    low, high = points.min(axis=0), points.max(axis=0)
    wanted = (points - low) / np.where(high > low, high - low, 1) * (side - 1)
    rows, columns = np.divmod(np.arange(side * side), side)
    cells = np.stack([columns, rows], axis=1).astype(np.float64)
    distances = np.square(wanted - wanted.mean(axis=0)).sum(axis=1)
    placed = np.empty_like(wanted)
    for row in np.argsort(distances, kind="stable"):
        nearest = np.square(cells - wanted[row]).sum(axis=1).argmin()
        placed[row] = cells[nearest]
        cells[nearest] = np.inf  # taken
    centres: Floats = (placed + 0.5) / side
    return centres


def principal_components(values: Floats, count: int) -> tuple[Floats, Floats]:
    """Return the first principal components (n, count), and the fraction of variance of each.

    Signs are fixed: the largest entry of each axis is positive. With fewer axes than `count`, the
    rest are zeros.
    """
    centred = values - values.mean(axis=0)
    # Through the inner products of images: there are fewer images than features, mostly.
    eigenvalues, left = np.linalg.eigh(centred @ centred.T)
    order = np.argsort(-eigenvalues)[:count]
    eigenvalues = np.maximum(eigenvalues[order], 0)
    left = left[:, order]
    largest = np.abs(left).argmax(axis=0)
    left = left * np.where(left[largest, np.arange(left.shape[1])] < 0, -1.0, 1.0)
    total = float(np.square(centred).sum())
    found = np.zeros((len(values), count))
    found[:, : left.shape[1]] = left * np.sqrt(eigenvalues)
    fractions = np.zeros(count)
    fractions[: len(eigenvalues)] = eigenvalues / total if total > 0 else 0
    return found, fractions


def t_sne(
    values: Floats, *, perplexity: float = PERPLEXITY, iterations: int = ITERATIONS
) -> Floats:
    """Return positions (n, 2) by exact t-SNE, starting from the first two columns.

    Parameters
    ----------
    values : array (n, d)
        Points, such as principal components; the first two columns are the start.
    perplexity : float
        Effective number of neighbours, at most a third of the points.
    iterations : int
        Steps of gradient descent with momentum.

    References
    ----------
    L. van der Maaten, G. Hinton, "Visualizing data using t-SNE", JMLR 9 (2008). Initialised by
    principal components: D. Kobak, P. Berens, "The art of using t-SNE for single-cell
    transcriptomics", Nature Communications 10 (2019).
    """
    count = len(values)
    wanted = (_similarities(values, min(perplexity, (count - 1) / 3))).astype(np.float32)
    start = values[:, :2] / max(float(values[:, 0].std()), 1e-12)
    points = (1e-2 * start).astype(np.float32)
    velocity, gains = np.zeros_like(points), np.ones_like(points)
    rate = max(count / _EXAGGERATION, 50.0)
    exaggerated = (_EXAGGERATION * wanted).astype(np.float32)
    kernel, forces = np.empty_like(wanted), np.empty_like(wanted)
    for step in range(iterations):
        early = step < _EARLY
        # In place: new arrays of this size would take as long as the sums.
        _squared_distances(points, kernel)
        kernel += 1
        np.divide(1, kernel, out=kernel)
        np.fill_diagonal(kernel, 0)
        np.divide(kernel, kernel.sum(), out=forces)
        np.subtract(exaggerated if early else wanted, forces, out=forces)
        forces *= kernel
        gradient = 4 * (forces.sum(axis=1)[:, None] * points - forces @ points)
        same = (gradient > 0) == (velocity > 0)
        gains = np.maximum(np.where(same, 0.8 * gains, gains + 0.2), 0.01).astype(np.float32)
        velocity = (0.5 if early else 0.8) * velocity - rate * gains * gradient
        points = points + velocity
        points -= points.mean(axis=0)
    return points.astype(np.float64)


def _similarities(values: Floats, perplexity: float) -> Floats:
    """Return the symmetric probabilities (n, n) of neighbours, with sum 1."""
    squares = _squared_distances(values)
    count, target = len(values), np.log(perplexity)
    low, high = np.zeros(count), np.full(count, np.inf)
    others = ~np.eye(count, dtype=np.bool_)
    scale = np.median(squares[others]) or 1.0
    precision = np.full(count, 1 / scale)
    nearest = np.where(others, squares, np.inf).min(axis=1)
    # Relative to the nearest image, so that the exponential never underflows for all.
    shifted = np.where(others, squares - nearest[:, None], np.inf)
    for _ in range(_BISECTIONS):
        weights = np.exp(-shifted * precision[:, None])
        total = weights.sum(axis=1)
        mean = (np.where(others, shifted, 0) * weights).sum(axis=1) / total
        entropy = np.log(total) + precision * mean
        too_wide = entropy > target
        low, high = np.where(too_wide, precision, low), np.where(too_wide, high, precision)
        with np.errstate(invalid="ignore"):
            middle = (low + high) / 2
        precision = np.where(np.isinf(high), 2 * precision, middle)
    weights = np.exp(-shifted * precision[:, None])
    weights /= weights.sum(axis=1, keepdims=True)
    joint: Floats = (weights + weights.T) / (2 * count)
    return joint


def _squared_distances(
    points: NDArray[np.floating], out: NDArray[np.floating] | None = None
) -> NDArray[np.floating]:
    squares = np.square(points).sum(axis=1)
    found: NDArray[np.floating] = np.add(squares[:, None], squares[None], out=out)
    found -= 2 * (points @ points.T)
    np.maximum(found, 0, out=found)
    return found
