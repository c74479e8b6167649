"""Learning curves: accuracy by number of training images, and the gain of more images.

The held-out images are the same for every number of training images, so their noise moves the
whole curve up or down and hardly changes its slope. The covariance of the errors says so to the
fit of the power law.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import UsageError
from kindsight.evaluation.power_law import PowerLawFit, fit_power_law

__all__ = ["LEVEL", "ClassCurve", "CurveErrors", "Gain", "LearningCurve", "fit_learning_curve"]

Floats = NDArray[np.float64]

LEVEL = 0.9
"""Probability of the intervals."""

FEWEST_IMAGES = 10
"""Minimum number of held-out images of a class whose gain is estimated."""

DRIFT = 0.15
"""Standard deviation by which the exponent of a learning curve changes within a doubling.

Chosen on splits with seeds from 100; ``benchmarks/learning_curve.py`` measures on others."""

SHOWN_SIZES = 40
"""Points of the fitted curve in the output."""

FURTHEST = 4.0
"""The end of the fitted curve, in multiples of the present number of training images."""

LITTLE = 0.002
"""Gain, as a fraction, below which more images are said to hardly help."""

SHRINKAGE = 0.98
"""Factor of the correlations of the errors at two sizes, so that their matrix can be inverted."""

UNKNOWN_CORRELATION = 0.5
"""The correlation where no image, or every image, was misclassified."""


@dataclass(frozen=True, eq=False)
class CurveErrors:
    """Which held-out images were misclassified, by number of training images.

    Parameters
    ----------
    sizes : int64 array (sizes,)
        Numbers of training images, increasing.
    wrong : float32 array (sizes, repeats, images)
        1 for a wrong prediction, 0 for a right one, NaN where a repeat was not run.
    targets : int64 array (images,)
        Class indices.
    folds : int64 array (images,)
        Images that were held out together.
    groups : int64 array (images,)
        Images that are not independent of each other.
    class_sizes : float64 array (sizes, classes)
        Mean number of training images of each class.
    """

    sizes: NDArray[np.int64]
    wrong: NDArray[np.float32]
    targets: NDArray[np.int64]
    folds: NDArray[np.int64]
    groups: NDArray[np.int64]
    class_sizes: Floats

    def of_class(self, index: int) -> CurveErrors:
        """Return the errors on the images of one class."""
        rows = self.targets == index
        return CurveErrors(
            self.sizes, self.wrong[:, :, rows], self.targets[rows], self.folds[rows],
            self.groups[rows], self.class_sizes,
        )  # fmt: skip

    @cached_property
    def by_image(self) -> Floats:
        """Mean error of each image over the repeats, float64 (sizes, images)."""
        return np.asarray(np.nanmean(self.wrong, axis=1, dtype=np.float64))

    @cached_property
    def means(self) -> Floats:
        """Mean error at each size, 0-1, float64 (sizes,)."""
        return np.asarray(self.by_image.mean(axis=1))

    @cached_property
    def smooth_means(self) -> Floats:
        """The mean errors, never exactly 0 or 1, for variances."""
        n = self.wrong.shape[2]
        return np.asarray((self.means * n + 0.5) / (n + 1))

    @cached_property
    def training_set_variance(self) -> Floats:
        """Variance of the error between training sets of one size, float64 (sizes,).

        Where only one repeat was run, the variance at the next smaller size is scaled by the number
        of training images.
        """
        found = np.zeros(len(self.sizes))
        for number in range(len(self.sizes)):
            runs = ~np.isnan(self.wrong[number]).all(axis=1)
            if runs.sum() > 1:
                parts = [
                    self.wrong[number, runs][:, self.folds == fold].mean(axis=1, dtype=np.float64)
                    for fold in np.unique(self.folds)
                ]
                found[number] = np.mean([part.var(ddof=1) for part in parts])
            elif number:
                found[number] = found[number - 1] * self.sizes[number - 1] / self.sizes[number]
        return found

    def covariance(self) -> Floats:
        """Return the covariance of the mean errors, stabilised as for :func:`.fit_power_law`."""
        n = self.wrong.shape[2]
        centred = self.by_image - self.means[:, None]
        count = int(self.groups.max()) + 1
        sums = np.stack([np.bincount(self.groups, row, count) for row in centred])
        independent = len(np.unique(self.groups))
        raw = sums @ sums.T / n**2 * independent / max(independent - 1, 1)
        spread = np.sqrt(np.diag(raw))
        known = spread > 0
        correlation = np.full(raw.shape, UNKNOWN_CORRELATION)
        pairs = np.outer(known, known)
        outer = np.outer(spread, spread)
        correlation[pairs] = SHRINKAGE * raw[pairs] / outer[pairs]
        np.fill_diagonal(correlation, 1.0)
        variance = self.smooth_means * (1 - self.smooth_means)
        # Of independent images judged once it is 1; of groups of copies more.
        effect = np.where(known, np.clip(np.diag(raw) * n / variance, 0.3, 20.0), 1.0)
        result = correlation * np.sqrt(np.outer(effect, effect)) / (4 * n)
        runs = (~np.isnan(self.wrong).all(axis=2)).sum(axis=1) * len(np.unique(self.folds))
        drawn = self.training_set_variance / runs / (4 * variance)
        return np.asarray(result + np.diag(drawn))

    def fit(self, sizes: Floats) -> PowerLawFit:
        """Fit a power law in numbers of training images, float64 (sizes,)."""
        return fit_power_law(sizes, self.means, self.covariance(), DRIFT)


@dataclass(frozen=True)
class Gain:
    """The gain of more images.

    Parameters
    ----------
    images : int
        Number of training images.
    accuracy : float
        Expected accuracy with them, 0-1.
    gain, low, high : float
        By how much it is higher than now, and the interval, as fractions.
    """

    images: int
    accuracy: float
    gain: float
    low: float
    high: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {name: _rounded(value) for name, value in vars(self).items()}


@dataclass(frozen=True, eq=False)
class ClassCurve:
    """The learning curve of one class: its recall by number of its training images.

    Parameters
    ----------
    name : str
    images : int
        Training images of the class now.
    held_out : int
        Images of the class on which it was measured.
    points, fit : tuple of dict
        As in :meth:`LearningCurve.to_dict`.
    double : Gain or None
        What twice as many images of every class would bring to this one; None where too few images
        are held out.
    """

    name: str
    images: int
    held_out: int
    points: tuple[dict[str, Any], ...]
    fit: tuple[dict[str, Any], ...]
    double: Gain | None

    def sentence(self) -> str:
        """Return a sentence on the gain of twice as many images."""
        if self.double is None:
            return (
                f"{self.name}: {self.held_out} held-out images are too few to predict the "
                "gain of more images."
            )
        return (
            f"Twice as many images of {self.name} (and of the other classes) would raise its "
            f"recall by {_gain_text(self.double)}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of ``classes`` for JSON."""
        double = self.double
        return {
            "name": self.name,
            "images": self.images,
            "held_out": self.held_out,
            "sentence": self.sentence(),
            "gain": None if double is None else _rounded(double.gain),
            "low": None if double is None else _rounded(double.low),
            "high": None if double is None else _rounded(double.high),
            "points": list(self.points),
            "fit": list(self.fit),
        }


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """Accuracy by number of training images, measured and extrapolated.

    Parameters
    ----------
    errors : CurveErrors
        The measurements.
    law : PowerLawFit
        Fitted to them.
    images : int
        Training images now.
    classes : tuple of ClassCurve
        The class with the largest gain first.
    facts : mapping
        ``model``: what was fitted, in words; ``held_out``: on which images, in words.
    """

    errors: CurveErrors
    law: PowerLawFit
    images: int
    classes: tuple[ClassCurve, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)

    def accuracy(self, images: float, held_out: int | None = None) -> tuple[float, float, float]:
        """Return the expected accuracy with a number of training images, and its 90% interval.

        Parameters
        ----------
        images : float
            Training images, of all classes in the present proportions.
        held_out : int, optional
            If given, the interval is for the accuracy measured on this number of other images,
            whose sampling noise it then includes.
        """
        low, high = self.law.interval(images, LEVEL, held_out, self._drawn(images))
        return 1 - float(self.law.median(images)[0]), 1 - float(high[0]), 1 - float(low[0])

    def _drawn(self, images: float) -> float:
        """Return the standard deviation of the accuracy between training sets of a size."""
        last = self.errors.training_set_variance[-1] * self.errors.sizes[-1] / images
        return float(np.sqrt(last))

    @property
    def double(self) -> Gain:
        """Gain of twice as many images."""
        return _gain(self.law, self.images)

    @property
    def sentence(self) -> str:
        """Gain of twice as many images, as a sentence."""
        double = self.double
        if double.high < LITTLE:
            return (
                f"More images would hardly help: twice as many ({double.images:,}) would add "
                f"{_gain_text(double)} of accuracy."
            )
        return (
            f"Twice as many images ({double.images:,} instead of {self.images:,}) would add "
            f"{_gain_text(double)} of accuracy, for a total of about {_percent(double.accuracy)}."
        )

    def _repr_html_(self) -> str:
        from kindsight.notebook.values import learning_curve_html

        return learning_curve_html(self)

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON: ``learning_curve.json``."""
        a, b, c = self.law.best
        sizes = self.errors.sizes.astype(np.float64)
        return {
            "format": 1,
            "model": self.facts.get("model", ""),
            "held_out": {
                "images": len(self.errors.targets), "how": self.facts.get("held_out", "")
            },
            "level": LEVEL,
            "images": self.images,
            "points": list(_points(self.errors, sizes)),
            "fit": list(_fitted(self.law, sizes[0], FURTHEST * self.images)),
            "power_law": {"a": _rounded(a), "b": _rounded(b), "c": _rounded(c)},
            "double": self.double.to_dict(),
            "sentence": self.sentence,
            "classes": [curve.to_dict() for curve in self.classes],
        }  # fmt: skip


def fit_learning_curve(
    errors: CurveErrors,
    images: int,
    classes: Sequence[str],
    facts: Mapping[str, str] | None = None,
) -> LearningCurve:
    """Fit power laws to measured errors, overall and for each class.

    Parameters
    ----------
    errors : CurveErrors
        At two or more sizes.
    images : int
        Training images now, with which "twice as many" is compared.
    classes : sequence of str
        Class names.
    facts : mapping, optional
        As for :class:`LearningCurve`.

    Raises
    ------
    UsageError
        If there are fewer than two sizes or no held-out image.
    """
    if len(errors.sizes) < 2 or not len(errors.targets):
        raise UsageError(
            "A learning curve needs held-out images and two or more numbers of training images; "
            f"got {len(errors.targets)} and {len(errors.sizes)}."
        )
    law = errors.fit(errors.sizes.astype(np.float64))
    share = images / errors.sizes[-1]
    curves = [
        _class_curve(errors.of_class(k), name, errors.class_sizes[:, k], share)
        for k, name in enumerate(classes)
        if (errors.targets == k).any()
    ]
    curves.sort(key=lambda curve: np.inf if curve.double is None else -curve.double.gain)
    return LearningCurve(errors, law, images, tuple(curves), dict(facts or {}))


def _class_curve(errors: CurveErrors, name: str, sizes: Floats, share: float) -> ClassCurve:
    now, held_out = max(1, round(sizes[-1] * share)), len(errors.targets)
    # A class in one group may have as many images in every subset.
    grows = np.concatenate([[True], np.diff(np.maximum.accumulate(sizes)) > 0.01 * sizes[1:]])
    if held_out < FEWEST_IMAGES or grows.sum() < 2:
        return ClassCurve(name, now, held_out, tuple(_points(errors, sizes)), (), None)
    kept = CurveErrors(
        errors.sizes[grows], errors.wrong[grows], errors.targets, errors.folds, errors.groups,
        errors.class_sizes[grows],
    )  # fmt: skip
    law = kept.fit(sizes[grows])
    fitted = tuple(_fitted(law, float(sizes[0]), FURTHEST * now))
    return ClassCurve(name, now, held_out, tuple(_points(errors, sizes)), fitted, _gain(law, now))


def _gain(law: PowerLawFit, images: int) -> Gain:
    accuracy = 1 - float(law.median(2 * images)[0])
    return Gain(2 * images, accuracy, *law.gain(images, 2 * images, LEVEL))


def _points(errors: CurveErrors, sizes: Floats) -> list[dict[str, Any]]:
    """Return the measured accuracies with their intervals."""
    spread = 1.645 * np.sqrt(np.diag(errors.covariance()))
    centre = np.arcsin(np.sqrt(errors.smooth_means))
    low = np.sin(np.clip(centre - spread, 0, np.pi / 2)) ** 2
    high = np.sin(np.clip(centre + spread, 0, np.pi / 2)) ** 2
    low, high = np.minimum(low, errors.means), np.maximum(high, errors.means)
    return [
        _point(float(size), 1 - mean, 1 - above, 1 - below)
        for size, mean, below, above in zip(sizes, errors.means, low, high, strict=True)
    ]


def _fitted(law: PowerLawFit, first: float, last: float) -> list[dict[str, Any]]:
    """Return the fitted accuracies at evenly spaced ratios of images."""
    sizes = np.geomspace(max(first, 1.0), max(last, first + 1), SHOWN_SIZES)
    low, high = law.interval(sizes, LEVEL)
    return [
        _point(size, 1 - middle, 1 - above, 1 - below)
        for size, middle, below, above in zip(sizes, law.median(sizes), low, high, strict=True)
    ]


def _point(images: float, accuracy: float, low: float, high: float) -> dict[str, Any]:
    return {
        "images": round(images), "accuracy": _rounded(accuracy), "low": _rounded(low),
        "high": _rounded(high),
    }  # fmt: skip


def _rounded(value: float) -> float:
    return int(value) if isinstance(value, int) else float(f"{value:.5g}")


def _gain_text(gain: Gain) -> str:
    """Return a gain in percentage points: ``about 2 points (1 to 3)``."""
    digits = 0 if min(100 * gain.gain, 100 * (gain.high - gain.low)) >= 1.5 else 1
    middle, low, high = (
        f"{round(100 * value, digits) + 0.0:g}" for value in (gain.gain, gain.low, gain.high)
    )
    return f"about {middle} point{'' if middle == '1' else 's'} ({low} to {high})"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}%"
