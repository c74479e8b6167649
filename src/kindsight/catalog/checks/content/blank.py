"""KS201: pictures that show nothing, or nearly so."""

from __future__ import annotations

from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult
from kindsight.catalog.checks.ordinary import each_or_all

__all__ = ["CONTRAST", "PLAIN", "BlankPictures"]

# The grey levels' standard deviation below this is noise; cats-dogs begin at 15.
CONTRAST = 4.0

# This share of the pixels in nine levels side by side is one tone; cats-dogs reach 0.58.
PLAIN = 0.98


class BlankPictures(Check):
    """One tone, but for noise: a cap on the lens, a page left white, a placeholder."""

    code = "KS201"
    title = "Blank pictures"
    severity = "warning"
    advice = "Leave them out, or fetch the right pictures."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the pictures."""
        measured = context.measurements
        wrong = (measured.contrast < CONTRAST) | (measured.plain >= PLAIN)
        return each_or_all(
            self,
            context,
            wrong,
            measured.plain,
            lambda row: f"{100 * measured.plain[row]:.0f}% of it has one tone.",
            "are of one tone",
        )
