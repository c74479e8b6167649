"""KS205: pictures of low contrast."""

from __future__ import annotations

from kindsight.catalog.checks.content.blank import CONTRAST as BLANK
from kindsight.catalog.checks.content.blank import PLAIN
from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult
from kindsight.catalog.checks.ordinary import each_or_all

__all__ = ["LowContrast"]

# The grey levels' standard deviation; cats-dogs begin at 15, sign-digits at 27. At a fifth of
# their contrast most of theirs are below.
CONTRAST = 12.0


class LowContrast(Check):
    """Fog, a dirty lens, a faded print: all tones lie close together."""

    code = "KS205"
    title = "Pictures of low contrast"
    severity = "warning"
    advice = "Set the levels of all pictures in the same way, or leave these out."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the pictures."""
        measured = context.measurements
        wrong = (
            (measured.contrast < CONTRAST) & (measured.contrast >= BLANK) & (measured.plain < PLAIN)
        )
        return each_or_all(
            self,
            context,
            wrong,
            CONTRAST - measured.contrast,
            lambda row: (
                f"Its tones stray by {measured.contrast[row]:.1f} of 255 levels about their mean."
            ),
            "have low contrast",
        )
