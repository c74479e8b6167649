"""KS601 to KS603: small classes, imbalanced classes, wide confidence intervals."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from kindsight.checks.check import Check, CheckResult, Finding
from kindsight.checks.context import CheckContext
from kindsight.dataset.names import n_images, quoted
from kindsight.dataset.splits.disjoint_sets import first_rows
from kindsight.evaluation import wilson_interval

__all__ = ["ImbalancedClasses", "SmallClasses", "WideIntervals", "half_width", "usable_counts"]

FEW = 20
"""Distinct images below which a class is reported. A fifth of 19 leaves fewer than four images for
validation, of which one error more or less is a quarter."""

FEWEST = 2
"""Distinct images that a class needs: one for training and one for validation."""

IMBALANCE = 10.0
"""Ratio of the largest class to a reported class. At this ratio, with two classes, predicting the
larger one for every image has an accuracy of 10 / 11 = 91%."""

MAX_HALF_WIDTH = 0.10
"""Half-width of the 95% interval above which a class is reported: a recall of 90% cannot be
distinguished from 80%."""

VALIDATION_FRACTION = 0.2
"""Fraction that ``kindsight train`` uses for validation if the data define no splits."""

ASSUMED_RECALL = 0.9

LISTED = 12
"""Classes listed in the message."""


def usable_counts(
    context: CheckContext, splits: Collection[str | None] | None = None
) -> dict[str, int]:
    """Return the number of distinct readable images of each class.

    - `splits`: splits to count. Default: all.

    Returns
    -------
    dict of str to int
        In the order of the dataset's classes; empty without labels. Identical files of one class
        count once.
    """
    dataset = context.dataset
    rows = [
        row
        for row in context.readable_rows.tolist()
        if dataset.label[row] is not None and (splits is None or dataset.split[row] in splits)
    ]
    targets = dataset.targets[rows]
    first = first_rows([dataset.digest[row] or dataset.path[row] for row in rows])
    distinct = np.unique(first * len(dataset.classes) + targets) % max(1, len(dataset.classes))
    counts = np.bincount(distinct, minlength=len(dataset.classes)).tolist()
    index = {name: k for k, name in enumerate(dataset.classes)}
    return {name: counts[index[name]] for name in dataset.present_classes()}


class SmallClasses(Check):
    """Classes with fewer than 20 distinct, readable images."""

    code = "KS601"
    title = "Classes with few images"
    severity = "error"
    advice = "Collect more images, or remove the class."

    def run(self, context: CheckContext) -> CheckResult:
        """Count the distinct, readable images of each class."""
        counts = usable_counts(context)
        if not counts:
            return self.not_applicable("The images have no labels.")
        small = sorted((n, name) for name, n in counts.items() if n < FEW)
        return self.result(
            (
                self.finding_about(
                    [name],
                    f"Class {quoted(name)} has {_readable(n)}"
                    + (", too few for training and validation." if n < FEWEST else "."),
                    value=float(n),
                    severity="error" if n < FEWEST else "warning",
                )
                for n, name in small
            ),
            len(counts),
        )


def _readable(n: int) -> str:
    if n == 0:
        return "no readable image"
    return "1 readable image" if n == 1 else f"{n:,} readable, distinct images"


class ImbalancedClasses(Check):
    """Classes with at most a tenth of the images of the largest class."""

    code = "KS602"
    title = "Imbalanced classes"
    severity = "warning"
    advice = (
        "Compare the recall of each class, and collect images of the small ones. Training gives "
        "classes equal weight only with --class-weight balanced."
    )

    def run(self, context: CheckContext) -> CheckResult:
        """Compare each class of the train split with the largest."""
        counts = usable_counts(context, (None, "train"))
        if len(counts) < 2:
            return self.not_applicable("There are fewer than two classes.")
        largest, most = max(counts.items(), key=lambda pair: pair[1])
        small = sorted((n, name) for name, n in counts.items() if 0 < n * IMBALANCE <= most)
        return self.result(
            (
                self.finding_about(
                    [name, largest],
                    f"{quoted(name)} has {n_images(n)} and {quoted(largest)} {most:,}, "
                    f"{most / n:.0f} times as many: accuracy hardly depends on the smaller class.",
                    value=round(most / n, 1),
                )
                for n, name in small
            ),
            len(counts),
        )


class WideIntervals(Check):
    """Classes whose recall cannot be measured within 10 percentage points."""

    code = "KS603"
    title = "Wide confidence intervals"
    severity = "note"
    advice = (
        "Collect more images. If the data define no splits, validate on more images (--validation "
        "0.3) or cross-validate (--folds 5)."
    )

    def run(self, context: CheckContext) -> CheckResult:
        """Compute the confidence interval of each class's recall."""
        subset, counts = self._evaluated(context)
        if not counts:
            return self.not_applicable("The images have no labels.")
        wide = sorted(
            ((half_width(n), name) for name, n in counts.items() if half_width(n) > MAX_HALF_WIDTH),
            key=lambda pair: (-pair[0], pair[1]),
        )
        return self.result([self._finding(subset, wide, len(counts))] if wide else [], len(counts))

    def _evaluated(self, context: CheckContext) -> tuple[str, dict[str, int]]:
        """Return a name of the images on which recall is measured, and their number per class."""
        for name in ("test", "validation"):
            if name in context.dataset.split:
                return f"the {name} split", usable_counts(context, (name,))
        counts = usable_counts(context)
        return "a fifth of the images", {
            name: max(1, round(VALIDATION_FRACTION * n)) for name, n in counts.items()
        }

    def _finding(self, subset: str, wide: list[tuple[float, str]], classes: int) -> Finding:
        listed = [f"{quoted(name)} ±{100 * width:.0f}" for width, name in wide[:LISTED]]
        more = f" and {len(wide) - LISTED:,} more" if len(wide) > LISTED else ""
        return self.finding_about(
            [name for _, name in wide],
            f"Measured on {subset}, the 95% confidence interval of a recall of 90% is wider than "
            f"±10 percentage points for {len(wide):,} of {classes:,} classes: "
            f"{', '.join(listed)}{more}.",
            value=round(wide[0][0], 4),
        )


def half_width(n: int) -> float:
    """Return the half-width of the 95% Wilson interval of a recall of 90% of `n` images."""
    low, high = wilson_interval(round(ASSUMED_RECALL * n), n)
    return (high - low) / 2
