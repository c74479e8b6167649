"""Counting the images of classes, as the checks of balance do."""

from __future__ import annotations

from collections.abc import Collection

from kindsight.checks.check import Check, CheckResult, Finding
from kindsight.checks.context import CheckContext
from kindsight.dataset.names import images, shown
from kindsight.evaluation.intervals import wilson_interval

__all__ = [
    "FewImages",
    "RoughRecalls",
    "UnevenClasses",
    "half_width",
    "learnable_counts",
]


def learnable_counts(
    context: CheckContext, splits: Collection[str | None] | None = None
) -> dict[str, int]:
    """Return how many different images of each class can be read; of those in some splits.

    Parameters
    ----------
    context : CheckContext
    splits : collection of (str or None), optional
        Only rows of these splits are counted; all if omitted.

    Returns
    -------
    dict of str to int
        In the order of the dataset's classes; empty where nothing has a label. Byte-identical
        images of one class count once.
    """
    dataset = context.dataset
    found: dict[str, set[str]] = {name: set() for name in dataset.present_classes()}
    for row in context.readable_rows.tolist():
        label = dataset.label[row]
        if label is not None and (splits is None or dataset.split[row] in splits):
            found[label].add(dataset.digest[row] or dataset.path[row])
    return {name: len(digests) for name, digests in found.items()}


# SECTION: KS601: classes with few images.

FEW = 20
"""Different images of a class below which a frozen network's head learns it poorly.

With a fifth kept back this leaves fewer than four to validate on, of which one more or less wrong
is a quarter.
"""

FEWEST = 2
"""Without two different images a class cannot be both learned and validated."""


class FewImages(Check):
    """Classes that have few different images; copies count once."""

    code = "KS601"
    title = "Classes with few images"
    severity = "error"
    advice = "Gather more images, or leave the class out."

    def run(self, context: CheckContext) -> CheckResult:
        """Count the different images of each class that can be read."""
        counts = learnable_counts(context)
        if not counts:
            return self.not_applicable("The images have no labels.")
        small = sorted((n, name) for name, n in counts.items() if n < FEW)
        return self.result(
            (
                self.finding_about(
                    [name],
                    f"The class {shown(name)} has {images(n)} that can be told apart and read"
                    + (": too few to learn from and to validate on." if n < FEWEST else "."),
                    value=float(n),
                    severity="error" if n < FEWEST else "warning",
                )
                for n, name in small
            ),
            len(counts),
        )


# SECTION: KS603: classes whose recall can be known only roughly.

ROUGH = 0.10
"""Half of the 95% interval: beyond it, 90% of a class right cannot be told from 80%."""

USUAL_SHARE = 0.2
"""What ``kindsight train`` keeps back to validate on where the data state no parts."""

USUAL_RECALL = 0.9

SHOWN = 12


def half_width(n: int) -> float:
    """Return half of the width of the 95% Wilson interval of a recall, nine of ten of `n` right."""
    low, high = wilson_interval(round(USUAL_RECALL * n), n)
    return (high - low) / 2


class RoughRecalls(Check):
    """Classes with too few images to test on for their recall to be known within 10 points."""

    code = "KS603"
    title = "Classes whose recall can be known only roughly"
    severity = "note"
    advice = "Keep more images back: --validation 0.3; or train by folds: --fold 1/5."

    def run(self, context: CheckContext) -> CheckResult:
        """Work out the interval that each class's recall will have."""
        part, counts = self._held_back(context)
        if not counts:
            return self.not_applicable("The images have no labels.")
        rough = sorted(
            ((half_width(n), name) for name, n in counts.items() if half_width(n) > ROUGH),
            key=lambda pair: (-pair[0], pair[1]),
        )
        found = [self._finding(part, rough, len(counts))] if rough else []
        return self.result(found, len(counts))

    def _held_back(self, context: CheckContext) -> tuple[str, dict[str, int]]:
        """Return how many images of each class will say how good a classifier is."""
        for name in ("test", "validation"):
            if name in context.dataset.split:
                return f"the {name} part", learnable_counts(context, (name,))
        counts = learnable_counts(context)
        return "a fifth kept back", {
            name: max(1, round(USUAL_SHARE * n)) for name, n in counts.items()
        }

    def _finding(self, part: str, rough: list[tuple[float, str]], classes: int) -> Finding:
        named = [f"{shown(name)} ±{100 * width:.0f}" for width, name in rough[:SHOWN]]
        more = f" and {len(rough) - SHOWN:,} more" if len(rough) > SHOWN else ""
        return self.finding_about(
            [name for _, name in rough],
            f"With {part}, the recall of {len(rough):,} of {classes:,} classes can be known within "
            f"these percentage points, at 90% right: {', '.join(named)}{more}.",
            value=round(rough[0][0], 4),
        )


# SECTION: KS602: classes of very different sizes.

TIMES = 10.0
"""From this ratio on a classifier that never answers with the rare class is hardly less accurate:
with two classes it is right in 10 of 11 cases."""


class UnevenClasses(Check):
    """Classes that have a tenth or less of the images of the largest."""

    code = "KS602"
    title = "Classes of very different sizes"
    severity = "warning"
    advice = "Look at each class's recall; --class-weight balanced makes classes count alike."

    def run(self, context: CheckContext) -> CheckResult:
        """Compare each class with the largest, in the part that is trained on."""
        counts = learnable_counts(context, (None, "train"))
        if len(counts) < 2:
            return self.not_applicable("There are fewer than two classes.")
        # The first by name, of equally large ones.
        largest, most = max(counts.items(), key=lambda pair: pair[1])
        small = sorted((n, name) for name, n in counts.items() if 0 < n * TIMES <= most)
        return self.result(
            (
                self.finding_about(
                    [name, largest],
                    f"{shown(name)} has {n:,} images and {shown(largest)} {most:,}, "
                    f"{most / n:.0f} times as many: accuracy says little of the rare class; "
                    "--class-weight balanced makes it count as much.",
                    value=round(most / n, 1),
                )
                for n, name in small
            ),
            len(counts),
        )
