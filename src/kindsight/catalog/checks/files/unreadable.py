"""KS101: pictures that cannot be read."""

from __future__ import annotations

from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult

__all__ = ["UnreadablePictures"]

CODES = ("missing", "no-permission", "unsupported", "corrupt")
"""What :class:`kindsight.errors.PictureError` calls them; the other codes have their own checks."""


class UnreadablePictures(Check):
    """Pictures that are missing, damaged, of a kind that is not read, or may not be opened."""

    code = "KS101"
    title = "Pictures that cannot be read"
    severity = "error"

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the pictures."""
        codes, reasons = context.measurements.code, context.measurements.reason
        return self.result(
            (
                self.finding(context, [row], str(reasons[row]))
                for row in range(len(codes))
                if codes[row] in CODES
            ),
            len(codes),
        )
