"""KS504 and KS505: splits, or classes, that come from different sources.

If all images of a class come from one camera, have one size or were saved by one program, a network
learns the camera, the size or the program. Networks that detected pneumonia in chest X-rays, for
example, learned to recognise the hospital (Zech et al. 2018, "Variable generalization performance
of a deep learning model to detect pneumonia in chest radiographs").

A small classifier predicts the split, or the class, from file properties alone. If its
cross-validated accuracy is well above random guessing, the splits or classes differ in their
source. The same holds for a single class that can be distinguished from all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from kindsight import random_stream
from kindsight.checks.check import Check, CheckResult
from kindsight.checks.context import CheckContext
from kindsight.checks.rules.splits import NO_SPLITS, present_splits
from kindsight.checks.source_classifier import SourceAccuracy, source_accuracies
from kindsight.dataset.names import quoted
from kindsight.dataset.splits.groups import connected_components

__all__ = ["ClassSourceBias", "SplitSourceBias", "compare_sources", "describe_difference"]

SOURCE = ("size", "aspect", "density", "format", "mode", "quality", "encoder", "camera")
"""Properties of how an image was made, not of what it shows."""

APPEARANCE = ("brightness", "contrast", "sharpness", "colourfulness", "tint")
"""Properties that also depend on what an image shows; random splits do not differ in them."""

MIN_SKILL = 0.25
"""Skill, from random guessing (0) to perfect prediction (1), from which a difference is reported:
for two sources, an accuracy whose lower 95% bound is 62.5%."""

MIN_PROPERTY_SKILL = 0.10
"""Skill from which a single property is named."""

MAX_PROPERTIES = 3
"""Maximum number of properties that are named."""

FEWEST = 20
"""Minimum number of images of a split or class; smaller ones are left out."""

SAMPLE = 20_000
"""Maximum images that the classifier is trained on."""


class SplitSourceBias(Check):
    """Train, validation and test splits that are predictable from file properties."""

    code = "KS504"
    title = "Splits from different sources"
    severity = "warning"
    advice = "Unless this is intended, merge the images and split them again."

    def run(self, context: CheckContext) -> CheckResult:
        """Predict the split of each image."""
        names = present_splits(context.dataset)
        if len(names) < 2:
            return self.not_applicable(NO_SPLITS)
        index: dict[str | None, int] = {name: i for i, name in enumerate(names)}
        targets = np.array([index.get(split, -1) for split in context.dataset.split], np.int64)
        return _compare(self, context, targets, names, SOURCE + APPEARANCE, "split")


class ClassSourceBias(Check):
    """Classes that are predictable from size, format, encoder or camera: a confounded source."""

    code = "KS505"
    title = "Classes confounded with their source"
    severity = "warning"
    advice = "Collect images of every class from every source, and test on another source."

    def run(self, context: CheckContext) -> CheckResult:
        """Predict the class of each image."""
        if len(context.dataset.present_classes()) < 2:
            return self.not_applicable("There are fewer than two classes.")
        dataset = context.dataset
        return _compare(self, context, dataset.targets, dataset.classes, SOURCE, "class")


def _compare(
    check: Check,
    context: CheckContext,
    targets: NDArray[np.int64],
    names: tuple[str, ...],
    properties: tuple[str, ...],
    kind: str,
) -> CheckResult:
    rows, targets, names = _sample(context, targets, names)
    if len(names) < 2:
        plural = "splits" if kind == "split" else "classes"
        return check.not_applicable(f"Fewer than two {plural} have {FEWEST} images.")
    columns = {
        name: column for name, column in _columns(context, rows).items() if name in properties
    }
    dataset = context.dataset
    groups = connected_components(
        [dataset.digest[r] for r in rows], [dataset.group[r] for r in rows]
    )
    if len(np.unique(groups)) < 2:
        return check.not_applicable("All images form one group, which cannot be split.")
    found = compare_sources(columns, targets, names, groups)
    if found is None or found[0].skill < MIN_SKILL:
        return check.result([], len(rows))
    whole, differences = found
    what, can = f"The {kind}", "predicted"
    if whole.source is not None:
        what = f"The {kind} {quoted(names[whole.source])}"
        can = "distinguished from all others"
    message = (
        f"{what} can be {can} from file properties with {whole.accuracy:.0%} balanced "
        f"accuracy (95% CI {whole.low:.0%}-{whole.high:.0%}); random guessing has "
        f"{whole.random:.0%}. Differences: " + "; ".join(differences) + "."
    )
    sources = names if whole.source is None else (names[whole.source],)
    finding = check.finding_about(sources, message, value=round(whole.accuracy, 4))
    return check.result([finding], len(rows))


def compare_sources(
    columns: Mapping[str, NDArray[Any]],
    targets: NDArray[np.int64],
    names: tuple[str, ...],
    groups: NDArray[np.int64],
) -> tuple[SourceAccuracy, list[str]] | None:
    """Predict sources from file properties, and describe the properties that differ most.

    - `columns`: properties by name, of :data:`SOURCE` or :data:`APPEARANCE`.
    - `targets`, `groups`: as in :func:`~kindsight.checks.source_classifier.predict_source`.
    - `names`: names of the sources.

    Returns
    -------
    (SourceAccuracy, list of str) or None
        None if no property varies or there is only one group; no descriptions below
        :data:`MIN_SKILL`. Of all sources, or else, if it reaches this skill, of the one that is
        best distinguished from the others.
    """
    columns = {
        name: column
        for name, column in columns.items()
        if len(np.unique(column)) > 1  # all NaN are one value
    }
    if not columns or len(np.unique(groups)) < 2:
        return None
    # On small matrices, BLAS threads spend more time waiting than computing.
    with threadpool_limits(1, user_api="blas"):
        whole, best_source = source_accuracies(columns, targets, groups)
        found = whole if whole.skill >= MIN_SKILL else best_source
        if found.skill < MIN_SKILL:
            return whole, []
        single = {}
        for name, column in columns.items():
            accuracies = source_accuracies({name: column}, targets, groups, source=found.source)
            single[name] = accuracies[0] if found.source is None else accuracies[1]
    ranked = sorted(single, key=lambda name: -single[name].skill)
    best = [n for n in ranked[:MAX_PROPERTIES] if single[n].skill >= MIN_PROPERTY_SKILL]
    return found, [
        describe_difference(name, columns[name], targets, names) for name in best or ranked[:1]
    ]


def _sample(
    context: CheckContext, targets: NDArray[np.int64], names: tuple[str, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[str, ...]]:
    """Return the sampled rows, their renumbered targets, and the names of these."""
    rows = context.readable_rows
    rows = rows[targets[rows] >= 0]
    rows = rows[np.sort(random_stream.permutation(0, "check sources", 0, len(rows))[:SAMPLE])]
    counts = np.bincount(targets[rows], minlength=len(names))
    large = np.flatnonzero(counts >= FEWEST)
    rows = rows[np.isin(targets[rows], large)]
    return rows, np.searchsorted(large, targets[rows]), tuple(names[k] for k in large)


def _columns(context: CheckContext, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Return the properties of some rows."""
    m = context.measurements

    def of(name: str) -> NDArray[Any]:
        return np.asarray(getattr(m, name)[rows])

    with np.errstate(divide="ignore", invalid="ignore"):
        area = of("height").astype(np.float64) * of("width")
        encoder = np.array(
            [
                f"{s} {'progressive' if p else ''} {e}".strip()
                for s, p, e in zip(of("subsampling"), of("progressive"), of("encoder"), strict=True)
            ],
            object,
        )
        return {
            "size": np.sqrt(area),
            "aspect": of("width") / of("height").astype(np.float64),
            "density": np.where(of("format") == "", np.nan, 8 * of("bytes") / area),
            "format": of("format"),
            "mode": of("mode"),
            "quality": of("quality").astype(np.float64),
            "encoder": encoder,
            "camera": of("camera"),
            "brightness": of("brightness"),
            "contrast": of("contrast"),
            "sharpness": of("sharpness"),
            "colourfulness": of("colourfulness"),
            "tint": of("red") - of("blue"),
        }


_PROPERTIES = {
    "size": ("image side", "{:.0f} pixels"),
    "aspect": ("aspect ratio", "{:.2f}"),
    "density": ("compression", "{:.1f} bits per pixel"),
    "quality": ("JPEG quality", "{:.0f}"),
    "brightness": ("brightness", "{:.0f} of 255"),
    "contrast": ("contrast", "{:.0f} grey levels"),
    "sharpness": ("sharpness", "{:.0f}"),
    "colourfulness": ("colourfulness", "{:.0f}"),
    "tint": ("tint", "red - blue {:+.0f}"),
    "format": ("file format", "{}"),
    "mode": ("pixel format", "{}"),
    "encoder": ("JPEG encoder", "{}"),
    "camera": ("camera", "{}"),
}
"""Name of each property and format of its value."""


def describe_difference(
    name: str, column: NDArray[Any], targets: NDArray[np.int64], names: tuple[str, ...]
) -> str:
    """Return a description of a property in the two sources that differ most.

    - `name`: name of the property.
    - `column`: array (n,); numbers or texts.
    - `targets`: int64 array (n,); source of each image, 0 to k - 1.
    - `names`: names of the sources.

    Returns
    -------
    str
        For example ``image side (median 400 pixels for 'cat', 500 pixels for 'dog')``.
    """
    label, form = _PROPERTIES[name]
    if column.dtype.kind in "OU":
        return f"{label} ({_describe_texts(column, targets, names, form)})"
    medians = [_median(column[targets == target]) for target in range(len(names))]
    known = [target for target, value in enumerate(medians) if np.isfinite(value)]
    if not known:
        return f"{label} (missing for some)"
    low, high = min(known, key=medians.__getitem__), max(known, key=medians.__getitem__)
    if len(known) < 2 or (len(known) < len(names) and medians[low] == medians[high]):
        missing = (quoted(name) for k, name in enumerate(names) if k not in known)
        return f"{label} (missing for {', '.join(missing)})"
    values = [f"{form.format(medians[k])} for {quoted(names[k])}" for k in sorted((low, high))]
    return f"{label} (median {', '.join(values)})"


def _median(values: NDArray[Any]) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else float("nan")


def _describe_texts(
    column: NDArray[Any], targets: NDArray[np.int64], names: tuple[str, ...], form: str
) -> str:
    """Return the text whose frequency differs most, with its highest and lowest frequency."""
    best = (-1.0, "", 0, 0, 0.0, 0.0)
    for text in sorted(set(column.tolist())):
        rates = [float((column[targets == target] == text).mean()) for target in range(len(names))]
        low, high = int(np.argmin(rates)), int(np.argmax(rates))
        if rates[high] - rates[low] > best[0]:
            best = (rates[high] - rates[low], text, low, high, rates[low], rates[high])
    _, text, low, high, least, most = best
    named = form.format(quoted(text)) if text else "unknown"
    return f"{named} for {most:.0%} of {quoted(names[high])}, {least:.0%} of {quoted(names[low])}"
