"""Fit a power law to a learning curve: error = a + b n^-c for n training images.

The form is that of Hestness et al. 2017, *Deep learning scaling is predictable, empirically*. What
a few noisy points leave open is kept: the fit is a set of draws from the posterior distribution of
(a, b, c), computed by adaptive importance sampling (Cappé et al. 2004, *Population Monte Carlo*)
with counter-based random numbers, so the same points give the same fit.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kindsight import random_stream
from kindsight.errors import UsageError

__all__ = ["PowerLawFit", "fit_power_law", "stabilize"]

Floats = NDArray[np.float64]

DRAWS = 4000
"""Draws that a fit keeps."""

ROUNDS, SAMPLES = 6, 4000
"""Rounds of importance sampling, and samples in each."""

PRIOR_MEAN = np.array([-1.5, np.log(0.6)])
PRIOR_SPREAD = np.array([1.6, 0.6])
"""Normal prior of logit(a / error at the most images) and of log c.

Exponents of published learning curves are mostly between 0.3 and 1; the asymptote is left open.
"""

LOWEST = np.array([1e-4, -12.0, np.log(0.02)])
HIGHEST = np.array([np.pi / 2, 12.0, np.log(3.0)])
"""Bounds of the stabilised error at the most images, of logit(a / that error) and of log c."""

HEAVY_TAILS = 5
"""Degrees of freedom of the proposals, Student's t."""


@dataclass(frozen=True, eq=False)
class PowerLawFit:
    """The posterior distribution of a power law.

    Parameters
    ----------
    draws : float64 array (draws, 3)
        Equally probable values of (a, b, c), with 0 <= a, 0 <= b and 0 < c.
    best : tuple of float
        The most probable (a, b, c).
    last : float
        The largest number of images that was measured.
    drift : float
        How far the error leaves the law beyond, as in :func:`fit_power_law`.
    """

    draws: Floats
    best: tuple[float, float, float]
    last: float
    drift: float = 0.0

    def error(self, images: ArrayLike) -> Floats:
        """Return the error of each draw, float64 (draws, sizes), for numbers of images.

        More images than were measured never raise it.
        """
        sizes = np.atleast_1d(np.asarray(images, np.float64))
        a, b, c = (self.draws[:, [column]] for column in range(3))
        found = a + b * sizes**-c
        if self.drift:
            doublings = np.maximum(np.log2(sizes / self.last), 0.0)
            spread = self.drift * np.sqrt(doublings**3 / 3)
            found *= np.exp(spread * _normals("drift", (len(a), 1)))
            found[:, sizes > self.last] = np.minimum(
                found[:, sizes > self.last], a + b * self.last**-c
            )
            order = np.argsort(sizes)
            found[:, order] = np.minimum.accumulate(found[:, order], axis=1)
        return np.minimum(found, 1.0)

    def median(self, images: ArrayLike) -> Floats:
        """Return the median error, 0-1, float64 (sizes,)."""
        return np.asarray(np.median(self.error(images), axis=0), np.float64)

    def interval(
        self,
        images: ArrayLike,
        level: float = 0.9,
        held_out: int | None = None,
        drawn: float = 0.0,
    ) -> tuple[Floats, Floats]:
        """Return the ends of the error's interval, float64 (sizes,) each.

        Parameters
        ----------
        images : array of numbers
            Training images.
        level : float
            Probability of the interval.
        held_out : int, optional
            If given, the interval is for the error measured on this number of images, which adds
            their sampling noise; otherwise for the error on infinitely many.
        drawn : float
            Standard deviation of the error between training sets of the same size, for the
            interval of a single one.
        """
        found = self.error(images)
        if drawn:
            found = np.clip(found + drawn * _normals("drawn images", found.shape), 0.0, 1.0)
        if held_out is not None:
            noise = _normals("measured error", found.shape)
            spread = np.sqrt(np.maximum(found * (1 - found), 1e-9) / held_out)
            found = np.clip(found + spread * noise, 0.0, 1.0)
        low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return low, high

    def gain(self, before: float, after: float, level: float = 0.9) -> tuple[float, float, float]:
        """Return by how much the error falls from one number of images to another.

        Returns
        -------
        tuple of float
            The median and the ends of the interval, as fractions.
        """
        errors = self.error([before, after])
        fall = errors[:, 0] - errors[:, 1]
        ends = np.quantile(fall, [0.5, (1 - level) / 2, (1 + level) / 2])
        return float(ends[0]), float(ends[1]), float(ends[2])


def stabilize(error: ArrayLike) -> Floats:
    """Return asin(sqrt(error)): of n images, its variance is about 1 / 4n whatever the error."""
    return np.arcsin(np.sqrt(np.clip(np.asarray(error, np.float64), 0.0, 1.0)))


def fit_power_law(
    images: ArrayLike, errors: ArrayLike, covariance: ArrayLike, drift: float = 0.0
) -> PowerLawFit:
    """Fit error = a + b n^-c with a, b >= 0 and c > 0.

    Parameters
    ----------
    images : array (sizes,)
        Numbers of training images, increasing, at least two.
    errors : array (sizes,)
        Mean errors on held-out images, 0-1.
    covariance : array (sizes, sizes)
        Of the errors on the scale of :func:`stabilize`; its diagonal is 1 / 4n for errors on n
        independent images.
    drift : float
        Learning curves are no exact power laws: their exponent changes slowly. The exponent is that
        at the last size; by how much it changes within a doubling of the images has this standard
        deviation, so that distant sizes count less, and the interval widens beyond the last one.

    Returns
    -------
    PowerLawFit
        A function of the arguments alone.

    Raises
    ------
    UsageError
        For fewer than two sizes, or arrays that do not fit together.
    """
    sizes = np.asarray(images, np.float64)
    observed, noise = stabilize(errors), np.array(covariance, np.float64)
    n = len(sizes)
    if n < 2 or observed.shape != (n,) or noise.shape != (n, n) or (np.diff(sizes) <= 0).any():
        raise UsageError(
            "A power law needs two or more increasing numbers of images with one error each and "
            f"their covariance; got shapes {sizes.shape}, {observed.shape} and {noise.shape}."
        )
    if drift:
        noise = noise + _drift_covariance(sizes, np.asarray(errors, np.float64), drift)
    precision: Floats = np.linalg.inv(noise).astype(np.float64)
    model = _Model(sizes, observed, precision, float(np.sqrt(noise[-1, -1])))
    points, weights = _sample(model)
    a, b, c = model.parameters(points)
    best = int(model.log_density(points).argmax())
    # Systematic resampling: every draw has the same weight afterwards.
    places = (np.arange(DRAWS) + 0.5) / DRAWS
    chosen = np.minimum(np.searchsorted(np.cumsum(weights), places), len(weights) - 1)
    draws = np.stack([a, b, c], axis=1)
    top = float(a[best]), float(b[best]), float(c[best])
    return PowerLawFit(draws[chosen], top, float(sizes[-1]), drift)


def _drift_covariance(sizes: Floats, errors: Floats, drift: float) -> Floats:
    """Return the covariance of an integrated Brownian motion of the logarithm of the error.

    It starts at the last size, backwards in doublings; on the scale of :func:`stabilize`.
    """
    back = np.log2(sizes[-1] / sizes)
    near, far = np.minimum.outer(back, back), np.maximum.outer(back, back)
    logs = drift**2 * (near**2 * far / 2 - near**3 / 6)
    level = np.clip(errors, 1e-3, 1 - 1e-3)
    slope = 0.5 * np.sqrt(level / (1 - level))  # of asin(sqrt(error)) by log(error)
    return np.asarray(logs * np.outer(slope, slope))


@dataclass(frozen=True)
class _Model:
    """The posterior density of (stabilised last error, logit of a's fraction, log c)."""

    sizes: Floats
    observed: Floats
    precision: Floats
    spread: float  # of the last point

    def parameters(self, points: Floats) -> tuple[Floats, Floats, Floats]:
        """Return a, b and c, float64 (n,) each."""
        last, fraction = np.sin(points[:, 0]) ** 2, 1 / (1 + np.exp(-points[:, 1]))
        c = np.exp(points[:, 2])
        a: Floats = fraction * last
        return a, (last - a) * self.sizes[-1] ** c, c

    def errors(self, points: Floats) -> Floats:
        """Return the error at each size, float64 (n, sizes)."""
        a, _, c = (values[:, None] for values in self.parameters(points))
        last = np.sin(points[:, :1]) ** 2
        return np.asarray(a + (last - a) * (self.sizes / self.sizes[-1]) ** -c, np.float64)

    def log_density(self, points: Floats) -> Floats:
        """Return the logarithm of likelihood times prior, up to a constant."""
        residuals = self.observed - stabilize(self.errors(points))
        fit = np.einsum("ij,jk,ik->i", residuals, self.precision, residuals)
        prior = np.square((points[:, 1:] - PRIOR_MEAN) / PRIOR_SPREAD).sum(axis=1)
        density: Floats = -0.5 * (fit + prior)
        return density


def _sample(model: _Model) -> tuple[Floats, Floats]:
    """Return points (n, 3) and their weights, which sum to 1."""
    mean = np.array([max(model.observed[-1], model.spread), *PRIOR_MEAN])
    covariance = np.diag([2 * model.spread, *PRIOR_SPREAD]) ** 2
    points, weights = mean[None], np.ones(1)
    for number in range(ROUNDS):
        normals = _normals("power law", (SAMPLES, 4 + HEAVY_TAILS), number)
        chi = np.square(normals[:, 3 : 3 + HEAVY_TAILS]).sum(axis=1) / HEAVY_TAILS
        root = np.linalg.cholesky(covariance)
        shifts = normals[:, :3] / np.sqrt(chi)[:, None]
        points = mean + shifts @ root.T
        inside = np.clip(points, LOWEST, HIGHEST)
        proposal = -(HEAVY_TAILS + 3) / 2 * np.log1p(np.square(shifts).sum(1) / HEAVY_TAILS)
        logs = np.where((points == inside).all(axis=1), model.log_density(inside), -np.inf)
        logs -= proposal
        weights = np.exp(logs - logs.max())
        weights /= weights.sum()
        mean = weights @ points
        centred = points - mean
        # Wider than the samples, so that a narrow first round does not stay narrow.
        covariance = 1.2 * (centred * weights[:, None]).T @ centred + np.diag([1e-12, 1e-6, 1e-6])
    return inside, weights


@functools.lru_cache(maxsize=16)
def _normals(purpose: str, shape: tuple[int, ...], epoch: int = 0) -> Floats:
    """Return standard normal random numbers (Box and Muller 1958)."""
    rows = np.arange(shape[0], dtype=np.int64)
    draws = random_stream.uniforms(0, purpose, epoch, rows, 2 * shape[1])
    radius = np.sqrt(-2 * np.log1p(-draws[:, : shape[1]]))
    found: Floats = radius * np.cos(2 * np.pi * draws[:, shape[1] :])
    found.flags.writeable = False
    return found
