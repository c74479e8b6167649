"""KS208: pictures of few tones."""

from __future__ import annotations

from kindsight.catalog.checks.content.blank import CONTRAST, PLAIN
from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult
from kindsight.catalog.checks.ordinary import each_or_all

__all__ = ["FewTones"]

# Bits a pixel: photographs have 5 to 8 (cats-dogs begin at 4.9), drawings, signs and logos 0 to 3.
BITS = 3.0


class FewTones(Check):
    """Drawings, logos, diagrams, text, masks: pictures of a few flat tones, unlike photographs."""

    code = "KS208"
    title = "Pictures of few tones"
    severity = "note"
    advice = "Leave out what is none of your pictures."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the pictures."""
        measured = context.measurements
        wrong = (
            (measured.entropy < BITS) & (measured.contrast >= CONTRAST) & (measured.plain < PLAIN)
        )
        return each_or_all(
            self,
            context,
            wrong,
            BITS - measured.entropy,
            lambda row: (
                f"Its grey levels hold {measured.entropy[row]:.1f} bits a pixel, photographs 5 and "
                "more."
            ),
            "have few tones",
        )
