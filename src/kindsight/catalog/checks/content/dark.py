"""KS203: pictures that are too dark."""

from __future__ import annotations

from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult
from kindsight.catalog.checks.ordinary import each_or_all

__all__ = ["DarkPictures"]

# The brightest hundredth does not reach a third of white; cats-dogs begin at 104.
BRIGHTEST = 90

# Or all but the brightest twentieth, a lamp say, is nearly black; cats-dogs begin at 82.
NEARLY_ALL = 30


class DarkPictures(Check):
    """Underexposed: hardly anything in it is even half bright."""

    code = "KS203"
    title = "Dark pictures"
    severity = "warning"
    advice = (
        "Leave out what you yourself could not tell; look whether one class is darker "
        "than the others."
    )

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the pictures."""
        measured = context.measurements
        wrong = (measured.p99 < BRIGHTEST) | (measured.p95 < NEARLY_ALL)
        return each_or_all(
            self,
            context,
            wrong,
            255 - measured.p99,
            lambda row: (
                f"95% of it is darker than {measured.p95[row]:.0f} of 255, 99% darker than "
                f"{measured.p99[row]:.0f}."
            ),
            "are dark",
        )
