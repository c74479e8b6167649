"""KS504 and KS505: parts, and classes, that come from different sources.

Where all images of one class were taken by one camera, cut to one size or saved by one program, a
network learns the camera, the size or the program. So it went with chest X-rays, whose hospital
could be told from the image and told the disease (Zech et al. 2018, "Variable generalization
performance of a deep learning model to detect pneumonia in chest radiographs").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from kindsight import random_stream as chance
from kindsight.checks.check import Check, CheckResult
from kindsight.checks.context import CheckContext
from kindsight.checks.rules.splits import NO_PARTS, stated_parts
from kindsight.dataset.names import shown
from kindsight.dataset.splits.folds import fold_indices
from kindsight.dataset.splits.groups import connected_components

__all__ = [
    "ClassesOfDifferentSources",
    "PartsOfDifferentSources",
    "Telling",
    "binned",
    "difference",
    "predict_source",
]

# SECTION: A small classifier on measurements alone, which may tell parts or classes apart.
#
# Each measurement is cut into bins, and a regularised least-squares fit on the bins (an additive
# model, solved in closed form) answers with one of the kinds. Cross-validation says how often it is
# right, every kind counting alike; where it is right much more often than by guessing, the kinds
# differ in something that is not what the images show.

FOLDS = 5
BINS = 8
WORDS = 15
"""Different texts of a column that are told apart; rarer ones count as one."""

RIDGE = 1.0
CONFIDENCE = 1.96


@dataclass(frozen=True)
class Telling:
    """How well kinds are told apart.

    Parameters
    ----------
    accuracy : float
        Balanced: the mean share of each kind that is answered right, 0 to 1.
    low, high : float
        Its 95% interval, by the normal approximation.
    chance : float
        What guessing gives.
    """

    accuracy: float
    low: float
    high: float
    chance: float

    @property
    def skill(self) -> float:
        """How far the interval's lower end is from guessing (0) to always being right (1)."""
        return (self.low - self.chance) / (1 - self.chance)


def predict_source(
    columns: Mapping[str, NDArray[Any]],
    kinds: NDArray[np.int64],
    units: NDArray[np.int64],
    seed: int = 0,
) -> Telling:
    """Cross-validate a classifier of kinds on some columns.

    Parameters
    ----------
    columns : mapping of str to array (n,)
        Numbers (NaN where there is none) or texts.
    kinds : int64 array (n,)
        0 to k - 1, at least two of each and k at least 2.
    units : int64 array (n,)
        Rows of one unit (copies, images of one patient) are held out together.
    seed : int
        Of the folds.
    """
    count = int(kinds.max()) + 1
    bins = np.concatenate([binned(column) for column in columns.values()], axis=1)
    sizes = np.bincount(kinds, minlength=count)
    folds = max(2, min(FOLDS, int(sizes.min()), len(np.unique(units))))
    fold = fold_indices(kinds, units, folds, seed)
    right = np.empty(len(kinds), np.bool_)
    for held in range(folds):
        out = fold == held
        kernel = _fit(bins[~out], kinds[~out], count)
        right[out] = (bins[out] @ kernel).argmax(axis=1) == kinds[out]
    shares = np.bincount(kinds, weights=right, minlength=count) / sizes
    # One right and one wrong more in each kind, so that no interval is of no width.
    smoothed = (shares * sizes + 1) / (sizes + 2)
    spread = CONFIDENCE * float(np.sqrt((smoothed * (1 - smoothed) / sizes).sum())) / count
    accuracy = float(shares.mean())
    low, high = max(0.0, accuracy - spread), min(1.0, accuracy + spread)
    return Telling(accuracy, low, high, 1 / count)


def binned(column: NDArray[Any]) -> NDArray[np.float32]:
    """Cut a column into bins, each a column of zeros and ones.

    Parameters
    ----------
    column : array (n,)
        Numbers are cut at their quantiles, what is not a number being a bin of its own; of texts
        the commonest :data:`WORDS` have a bin each.

    Returns
    -------
    float32 array (n, bins)
    """
    if column.dtype.kind in "OU":
        names, counts = np.unique(column.astype(str), return_counts=True)
        known = names[np.argsort(-counts, kind="stable")[:WORDS]]
        place = np.full(len(column), len(known))
        for i, name in enumerate(known):
            place[column == name] = i
    else:
        values = column.astype(np.float64)
        there = np.isfinite(values)
        cuts = np.unique(
            np.quantile(values[there], np.arange(1, BINS) / BINS if any(there) else [])
        )
        place = np.where(there, np.searchsorted(cuts, values, side="right"), len(cuts) + 1)
    hot: NDArray[np.float32] = np.eye(int(place.max(initial=0)) + 1, dtype=np.float32)[place]
    return hot


def _fit(bins: NDArray[np.float32], kinds: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Solve the least squares from bins to kinds, every kind counting alike."""
    weights = 1.0 / np.bincount(kinds, minlength=count)[kinds]
    weights = weights * (len(kinds) / weights.sum())
    wide = bins.astype(np.float64)
    weighted = wide * weights[:, None]
    gram = weighted.T @ wide + RIDGE * np.eye(wide.shape[1])
    kernel: NDArray[np.float64] = np.linalg.solve(gram, weighted.T @ np.eye(count)[kinds])
    return kernel


# SECTION: How a measurement differs between parts or classes, in words.

_WORDS = {
    "size": ("the size", "{:.0f} pixels on average a side"),
    "proportion": ("the proportion of width to height", "{:.2f}"),
    "density": ("how strongly files are compressed", "{:.1f} bits a pixel"),
    "quality": ("the JPEG quality", "{:.0f}"),
    "brightness": ("the brightness", "{:.0f} of 255"),
    "contrast": ("the contrast", "{:.0f} grey levels"),
    "sharpness": ("the sharpness", "{:.0f}"),
    "colourfulness": ("the colourfulness", "{:.0f}"),
    "tint": ("the tint", "red minus blue {:+.0f}"),
    "format": ("the format", "{}"),
    "mode": ("how pixels are stored", "{}"),
    "encoder": ("the program that encoded the JPEGs", "{}"),
    "camera": ("the camera", "{}"),
}


def difference(
    name: str, column: NDArray[Any], kinds: NDArray[np.int64], names: tuple[str, ...]
) -> str:
    """Say what a measurement is in the two kinds that differ most in it.

    Parameters
    ----------
    name : str
        Of the measurement.
    column : array (n,)
        Numbers, or texts.
    kinds : int64 array (n,)
        0 to k - 1.
    names : tuple of str
        Of the kinds.

    Returns
    -------
    str
        ``the size (median 'cat' 400 pixels on average a side, 'dog' 500 ...)``.
    """
    what, form = _WORDS[name]
    if column.dtype.kind in "OU":
        return f"{what} ({_texts(column, kinds, names, form)})"
    medians = [_median(column[kinds == kind]) for kind in range(len(names))]
    known = [kind for kind, value in enumerate(medians) if np.isfinite(value)]
    if len(known) < 2:
        return f"{what}, which not all have"
    low, high = min(known, key=medians.__getitem__), max(known, key=medians.__getitem__)
    first, last = sorted((low, high))
    return (
        f"{what} (median {shown(names[first])} {form.format(medians[first])}, "
        f"{shown(names[last])} {form.format(medians[last])})"
    )


def _median(values: NDArray[Any]) -> float:
    there = values[np.isfinite(values)]
    return float(np.median(there)) if len(there) else float("nan")


def _texts(
    column: NDArray[Any], kinds: NDArray[np.int64], names: tuple[str, ...], form: str
) -> str:
    """Name the text whose share differs most, and the kinds with the least and the most of it."""
    best = (-1.0, "", 0, 0, 0.0, 0.0)
    for text in sorted(set(column.tolist())):
        shares = [float((column[kinds == kind] == text).mean()) for kind in range(len(names))]
        low, high = int(np.argmin(shares)), int(np.argmax(shares))
        if shares[high] - shares[low] > best[0]:
            best = (shares[high] - shares[low], text, low, high, shares[low], shares[high])
    _, text, low, high, least, most = best
    named = form.format(shown(text)) if text else "none stated"
    return f"{named} for {most:.0%} of {shown(names[high])} and {least:.0%} of {shown(names[low])}"


SOURCE = ("size", "proportion", "density", "format", "mode", "quality", "encoder", "camera")
"""What says how an image came to be, and not what it shows."""

LOOK = ("brightness", "contrast", "sharpness", "colourfulness", "tint")
"""What says how an image looks; parts that were divided at random do not differ in it."""

MUCH = 0.25
"""Skill, from guessing (0) to always right (1), from which on sources differ: two kinds are told
apart in more than 62.5%, surely."""

SOME = 0.10
"""Skill from which on a single measurement is named."""

FEWEST = 20
"""Images of a part or class; smaller ones are left out."""

SAMPLE = 20_000
NAMED = 3


class PartsOfDifferentSources(Check):
    """Training, validation and test part that can be told apart by measurements alone."""

    code = "KS504"
    title = "Parts of different sources"
    severity = "warning"
    advice = "If it is not meant, put the images together and divide them anew."

    def run(self, context: CheckContext) -> CheckResult:
        """Try to tell the parts apart."""
        names = stated_parts(context.dataset)
        if len(names) < 2:
            return self.not_applicable(NO_PARTS)
        place: dict[str | None, int] = {name: i for i, name in enumerate(names)}
        kinds = np.array([place.get(part, -1) for part in context.dataset.split], np.int64)
        return _compare(self, context, kinds, names, SOURCE + LOOK, "The parts")


class ClassesOfDifferentSources(Check):
    """Classes that can be told apart by size, format, encoder or camera alone."""

    code = "KS505"
    title = "Classes of different sources"
    severity = "warning"
    advice = "Gather every class from every source; test on images of another one."

    def run(self, context: CheckContext) -> CheckResult:
        """Try to tell the classes apart."""
        names = context.dataset.classes
        if len(context.dataset.present_classes()) < 2:
            return self.not_applicable("There are fewer than two classes.")
        return _compare(self, context, context.dataset.targets, names, SOURCE, "The classes")


def _compare(
    check: Check,
    context: CheckContext,
    kinds: NDArray[np.int64],
    names: tuple[str, ...],
    measurements: tuple[str, ...],
    what: str,
) -> CheckResult:
    rows, kinds, names = _enough(context, kinds, names)
    if len(names) < 2:
        return check.not_applicable(f"Fewer than two of them have {FEWEST} images.")
    columns = {
        name: column[rows]
        for name, column in _columns(context).items()
        if name in measurements and len(set(column[rows].tolist())) > 1
    }
    if not columns:
        return check.result([], len(rows))
    dataset = context.dataset
    units = connected_components(
        [dataset.digest[r] for r in rows], [dataset.group[r] for r in rows]
    )
    # On matrices as small as these, threads wait for each other longer than they work.
    with threadpool_limits(1, user_api="blas"):
        told = predict_source(columns, kinds, units)
        if told.skill < MUCH:
            return check.result([], len(rows))
        alone = {
            name: predict_source({name: column}, kinds, units) for name, column in columns.items()
        }
    ranked = sorted(alone, key=lambda name: -alone[name].skill)
    telling = [name for name in ranked[:NAMED] if alone[name].skill >= SOME] or ranked[:1]
    reasons = [difference(name, columns[name], kinds, names) for name in telling]
    message = (
        f"{what} can be told apart without looking at what they show: right for "
        f"{_percent(told)}, where guessing gives {told.chance:.0%}. What tells: "
        + "; ".join(reasons)
        + "."
    )
    finding = check.finding_about(names, message, value=round(told.accuracy, 4))
    return check.result([finding], len(rows))


def _percent(told: Telling) -> str:
    return f"{told.accuracy:.0%} (95% interval {told.low:.0%}-{told.high:.0%}, all counting alike)"


def _enough(
    context: CheckContext, kinds: NDArray[np.int64], names: tuple[str, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[str, ...]]:
    """Return the rows to look at, their kinds counted anew, and the names of these."""
    rows = context.readable_rows
    rows = rows[kinds[rows] >= 0]
    rows = rows[np.sort(chance.permutation(0, "check sources", 0, len(rows))[:SAMPLE])]
    counts = np.bincount(kinds[rows], minlength=len(names))
    kept = np.flatnonzero(counts >= FEWEST)
    rows = rows[np.isin(kinds[rows], kept)]
    return rows, np.searchsorted(kept, kinds[rows]), tuple(names[k] for k in kept)


def _columns(context: CheckContext) -> dict[str, NDArray[Any]]:
    """Gather what can tell: of measurements those that do not depend on each other's unit."""
    m = context.measurements
    with np.errstate(divide="ignore", invalid="ignore"):
        area = m.height.astype(np.float64) * m.width
        encoder = np.array(
            [
                f"{s} {'progressive' if p else ''} {e}".strip()
                for s, p, e in zip(m.subsampling, m.progressive, m.encoder, strict=True)
            ],
            object,
        )
        return {
            "size": np.sqrt(area),
            "proportion": m.width / m.height.astype(np.float64),
            "density": np.where(m.format == "", np.nan, 8 * m.bytes / area),
            "format": m.format,
            "mode": m.mode,
            "quality": m.quality.astype(np.float64),
            "encoder": encoder,
            "camera": m.camera,
            "brightness": m.brightness,
            "contrast": m.contrast,
            "sharpness": m.sharpness,
            "colourfulness": m.colourfulness,
            "tint": m.red - m.blue,
        }
