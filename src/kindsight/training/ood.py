"""Fit the out-of-distribution score: a Gaussian for each class, with one shared covariance.

The score is the squared Mahalanobis distance to the nearest class (K. Lee et al., "A simple unified
framework for detecting out-of-distribution samples and adversarial attacks", NeurIPS 2018),
measured in random projections of the standardised features. Principal components refuse as many
foreign images, but with fewer images than features they fit the training images: their distances
are twice those of new images, and those of held-out images, with a fifth of the training images
fewer, below those of new ones, so that no threshold holds (docs/experiments.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from kindsight.models.ood import OODScore
from kindsight.threads import count_cores, map_ordered
from kindsight.training.common import ColumnScale, mean_and_scale
from kindsight.training.held_out import HeldOutPredictions

__all__ = [
    "KNOWN_KEPT", "METHOD", "PROJECTIONS", "FittedScore", "Gaussians", "fit_gaussians", "fit_score",
    "fit_score_on", "known_threshold",
]  # fmt: skip

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

METHOD = "Mahalanobis distance to the nearest class, in random projections of the features"
"""The method's name in a bundle."""

KNOWN_KEPT = 0.95
"""Default fraction of images like the training images that are not unknown. At 0.99, the classifier
of cats-dogs refuses a quarter of the images of hands, at 0.95 all (docs/experiments.md)."""

PROJECTIONS = 256
"""Random projections in which distances are measured, if there are more features."""

# Fraction of the mean variance that is added to each: directions that hardly vary among the
# training images would otherwise decide.
SHRINKAGE = 0.3
# A column's deviation is measured on few images, and a feature that none of them has would decide
# alone: to each variance, the square of this fraction of its layer's mean one is added. Chosen on
# 100 images of CIFAR-10: 97% instead of 93% of new ones are then kept (docs/experiments.md).
LAYER_SHARE = 0.3
# Margin of the threshold, relative to the score: runtimes differ by at most as much.
ROUNDING = 1e-3
# The purpose of the random projections, in addition to those of selecting a head.
_PURPOSE = 4


@dataclass(frozen=True)
class FittedScore:
    """A fitted score, and the scores of images that it was not fitted on.

    Parameters
    ----------
    score : OODScore
        1 is typical of an image like the training images.
    rows : array
        int64 (n,): rows of the held-out images in the model's dataset.
    held_out : array
        float32 (n,): their scores.
    source : str
        How they were held out, in words.
    """

    score: OODScore
    rows: Rows
    held_out: Floats
    source: str

    def to_dict(self, known_kept: float) -> dict[str, Any]:
        """Return the bundle's part ``"unknown"``, for JSON; see :func:`known_threshold`."""
        return {
            "method": METHOD,
            "threshold": known_threshold(self.held_out, known_kept),
            "known_kept": known_kept,
            "images": len(self.held_out),
            "source": self.source,
        }

    def scores(self, rows: Rows, features: Floats) -> Floats:
        """Return the scores of some rows; where they were held out, the held-out ones."""
        held_out = np.isin(rows, self.rows)
        order = np.argsort(self.rows, kind="stable")
        places = order[np.searchsorted(self.rows, rows[held_out], sorter=order)]
        if held_out.all():
            return self.held_out[places]
        with threadpool_limits(1, user_api="blas"):
            scores = np.array(self.score(features), np.float32)
        scores[held_out] = self.held_out[places]
        return scores


def fit_score(
    features: Floats,
    held_out: HeldOutPredictions,
    *,
    seed: int,
    layers: Sequence[slice] = (),
    scale: ColumnScale | None = None,
) -> FittedScore:
    """Fit the score to images; each image's own held-out score is fitted on the other folds.

    Parameters
    ----------
    features : array
        float32 (n, d).
    held_out : HeldOutPredictions
        Of these images: their classes, and the folds, two or more, in which they were held out.
    seed : int
        Of the random projections.
    layers : sequence of slice
        The features that come from one layer each.
    scale : pair of arrays, optional
        What :func:`.mean_and_scale` returns for them, if it is known.
    """
    targets, folds = held_out.targets, held_out.folds
    scale = mean_and_scale(features, layers) if scale is None else scale

    def measure(fold: int) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        held = folds == fold
        return held, fit_gaussians(values[~held], targets[~held]).nearest(values[held])

    with threadpool_limits(1, user_api="blas"):  # sums depend on the number of threads
        kernel, bias = _projection(scale, seed, layers)
        values = features @ kernel + bias
        distances = np.empty(len(values))
        for held, found in map_ordered(measure, np.unique(folds).tolist(), count_cores()):
            distances[held] = found
        unit = float(np.median(distances)) or 1.0
        score = fit_gaussians(values, targets).to_score(kernel, bias, unit)
    scores = (distances / unit).astype(np.float32)
    return FittedScore(score, held_out.rows, scores, held_out.source)


def fit_score_on(
    features: Floats, targets: Rows, known: Floats, held_out: HeldOutPredictions, *, seed: int
) -> FittedScore:
    """Fit the score to training images; the held-out images, with features `known`, are others.

    Parameters
    ----------
    features, known : array
        float32 (n, d) and (m, d).
    targets : array
        int64 (n,): class indices of the training images.
    held_out : HeldOutPredictions
        Of the m other images.
    seed : int
        Of the random projections.
    """
    with threadpool_limits(1, user_api="blas"):
        kernel, bias = _projection(mean_and_scale(features, ()), seed, ())
        gaussians = fit_gaussians(features @ kernel + bias, targets)
        unit = float(np.median(gaussians.nearest(known @ kernel + bias))) or 1.0
        score = gaussians.to_score(kernel, bias, unit)
        return FittedScore(score, held_out.rows, score(known), held_out.source)


def _projection(scale: ColumnScale, seed: int, layers: Sequence[slice]) -> tuple[Floats, Floats]:
    """Return kernel and bias from features to projections of a mean squared length of about 1."""
    mean, factors = scale
    variance = np.zeros_like(mean)
    np.divide(1, np.square(factors), out=variance, where=factors > 0)
    for columns in layers or [slice(None)]:
        variance[columns] += LAYER_SHARE**2 * variance[columns].mean()
    factors = np.where(variance > 0, 1 / np.sqrt(np.where(variance > 0, variance, 1.0)), 0.0)
    width = len(mean)
    if width > PROJECTIONS:
        generator = np.random.Generator(np.random.Philox(key=[seed, _PURPOSE]))
        directions = generator.standard_normal((width, PROJECTIONS), np.float32)
        kernel = factors[:, None] * (directions / math.sqrt(width * PROJECTIONS))
    else:
        kernel = np.diag(factors / math.sqrt(width))
    return kernel.astype(np.float32), (-mean @ kernel).astype(np.float32)


@dataclass(frozen=True)
class Gaussians:
    """Squared distances to the classes, in whitened projections.

    Parameters
    ----------
    whitening : array
        float64 (p, p).
    mean : array
        float64 (p,): of all images.
    centers : array
        float64 (classes, p): the classes' means, whitened.
    """

    whitening: NDArray[np.float64]
    mean: NDArray[np.float64]
    centers: NDArray[np.float64]

    def nearest(self, values: Floats) -> NDArray[np.float64]:
        """Return the squared distance to the nearest class, float64 (n,), of values (n, p)."""
        points = (values - self.mean) @ self.whitening
        closest = (np.square(self.centers).sum(1) - 2 * points @ self.centers.T).min(1)
        found: NDArray[np.float64] = np.maximum(closest + np.square(points).sum(1), 0)
        return found

    def to_score(self, kernel: Floats, bias: Floats, unit: float = 1.0) -> OODScore:
        """Return the score of features whose values are features @ kernel + bias, over `unit`."""
        scale = 1 / math.sqrt(unit)
        whitening = self.whitening * scale
        return OODScore(
            (kernel @ whitening).astype(np.float32),
            ((bias - self.mean) @ whitening).astype(np.float32),
            (self.centers * scale).astype(np.float32),
        )


def fit_gaussians(values: Floats, targets: Rows) -> Gaussians:
    """Fit the mean of each class that has images, and the covariance within classes.

    Parameters
    ----------
    values : array
        float32 (n, p).
    targets : array
        int64 (n,): class indices.
    """
    mean = values.mean(0, dtype=np.float64)
    points = values - mean
    present, indices = np.unique(targets, return_inverse=True)
    members = (indices == np.arange(len(present))[:, None]).astype(np.float64)
    means = members @ points / members.sum(1, keepdims=True)
    residuals = points - means[indices]
    if not np.square(residuals).sum() > 0:  # one image, or equal ones, of each class
        residuals = points
    covariance = residuals.T @ residuals / len(residuals)
    width = len(mean)
    # All images may be equal: any unit will do.
    floor = SHRINKAGE * float(np.trace(covariance)) / width or 1.0
    root = np.linalg.cholesky(covariance + floor * np.eye(width))
    whitening = np.linalg.inv(root).T
    return Gaussians(whitening, mean, means @ whitening)


def known_threshold(scores: NDArray[np.floating], known_kept: float) -> float:
    """Return the score above which an image is unknown, so that `known_kept` of known ones are not.

    The quantile is corrected for the number of held-out images, as in conformal prediction: of new
    images like them, at least this fraction is kept on average. With too few images for that, it is
    their largest score.

    Parameters
    ----------
    scores : array
        float (n,), n >= 1: of known images that the score was not fitted on.
    known_kept : float
        Above 0, below 1.
    """
    rank = math.ceil((len(scores) + 1) * known_kept)
    ordered = np.sort(np.asarray(scores, np.float64))
    score = float(ordered[min(rank, len(ordered)) - 1])
    return score + ROUNDING * abs(score)
