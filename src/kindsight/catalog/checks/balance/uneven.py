"""KS602: classes of very different sizes."""

from __future__ import annotations

from kindsight.catalog.checks.balance.counting import learnable_counts
from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult
from kindsight.catalog.names import shown

__all__ = ["UnevenClasses"]

TIMES = 10.0
"""From this ratio on a classifier that never answers with the rare class is hardly less accurate:
with two classes it is right in 10 of 11 cases."""


class UnevenClasses(Check):
    """Classes that have a tenth or less of the pictures of the largest."""

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
                self.finding_outside(
                    [name, largest],
                    f"{shown(name)} has {n:,} pictures and {shown(largest)} {most:,}, "
                    f"{most / n:.0f} times as many: accuracy says little of the rare class; "
                    "--class-weight balanced makes it count as much.",
                    value=round(most / n, 1),
                )
                for n, name in small
            ),
            len(counts),
        )
