"""KS601: classes with few pictures."""

from __future__ import annotations

from kindsight.catalog.checks.balance.counting import learnable_counts
from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult
from kindsight.catalog.names import pictures, shown

__all__ = ["FewPictures"]

FEW = 20
"""Different pictures of a class below which a frozen network's head learns it poorly.

With a fifth kept back this leaves fewer than four to validate on, of which one more or less wrong
is a quarter.
"""

FEWEST = 2
"""Without two different pictures a class cannot be both learned and validated."""


class FewPictures(Check):
    """Classes that have few different pictures; copies count once."""

    code = "KS601"
    title = "Classes with few pictures"
    severity = "error"
    advice = "Gather more pictures, or leave the class out."

    def run(self, context: CheckContext) -> CheckResult:
        """Count the different pictures of each class that can be read."""
        counts = learnable_counts(context)
        if not counts:
            return self.not_applicable("The pictures have no labels.")
        small = sorted((n, name) for name, n in counts.items() if n < FEW)
        return self.result(
            (
                self.finding_outside(
                    [name],
                    f"The class {shown(name)} has {pictures(n)} that can be told apart and read"
                    + (": too few to learn from and to validate on." if n < FEWEST else "."),
                    value=float(n),
                    severity="error" if n < FEWEST else "warning",
                )
                for n, name in small
            ),
            len(counts),
        )
