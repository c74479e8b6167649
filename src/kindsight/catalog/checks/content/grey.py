"""KS206: grey pictures among coloured ones."""

from __future__ import annotations

from kindsight.catalog.checks.content.colour import odd_ones
from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult

__all__ = ["GreyAmongColoured"]


class GreyAmongColoured(Check):
    """Pictures without colour where most have some: another source, and a hint to a network."""

    code = "KS206"
    title = "Grey pictures among coloured ones"
    severity = "warning"
    advice = "If they belong to one class, find coloured ones for it, or make all pictures grey."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the pictures."""
        return odd_ones(
            self,
            context,
            grey=True,
            message="It is grey, and most others are coloured.",
            all_together="are grey",
        )
