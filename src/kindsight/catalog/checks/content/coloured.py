"""KS207: coloured pictures among grey ones."""

from __future__ import annotations

from kindsight.catalog.checks.content.colour import odd_ones
from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult

__all__ = ["ColouredAmongGrey"]


class ColouredAmongGrey(Check):
    """Pictures with colour where most have none: another source, marks, a stain on a scan."""

    code = "KS207"
    title = "Coloured pictures among grey ones"
    severity = "warning"
    advice = "Look what is coloured: a mark may give the label away."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the pictures."""
        return odd_ones(
            self,
            context,
            grey=False,
            message="It is coloured, and most others are grey.",
            all_together="are coloured",
        )
