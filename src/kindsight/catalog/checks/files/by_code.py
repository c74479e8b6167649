"""What the checks of pictures that cannot be read have in common."""

from __future__ import annotations

from typing import ClassVar

from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult

__all__ = ["ProblemCheck"]


class ProblemCheck(Check):
    """Finds the pictures that :class:`kindsight.errors.PictureError` gives certain codes to.

    Attributes
    ----------
    problems : tuple of str
        Those codes.
    """

    problems: ClassVar[tuple[str, ...]]

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the pictures."""
        codes, reasons = context.measurements.code, context.measurements.reason
        return self.result(
            (
                self.finding(context, [row], str(reasons[row]))
                for row in range(len(codes))
                if codes[row] in self.problems
            ),
            len(codes),
        )
