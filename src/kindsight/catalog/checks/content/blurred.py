"""KS202: pictures that are blurred."""

from __future__ import annotations

import numpy as np

from kindsight.catalog.checks.content.blank import CONTRAST
from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult
from kindsight.catalog.checks.ordinary import each_or_all

__all__ = ["BlurredPictures"]

# Chosen by looking at the pictures of cats-dogs that come first: eight of 1,399 are beyond, and
# each is out of focus or moved. Pictures blurred on purpose by a Gaussian of two pixels in 400
# are beyond to 19 in 20; sign-digits end at 0.11 and 0.57.
SOFTNESS = 0.25
SMEAR = 0.67


class BlurredPictures(Check):
    """Out of focus, moved, or enlarged from something small, as seen at 224 x 224 pixels' size."""

    code = "KS202"
    title = "Blurred pictures"
    severity = "warning"
    advice = "Leave out what you yourself could not tell."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the pictures."""
        measured = context.measurements
        extent = np.fmax(measured.softness / SOFTNESS, measured.smear / SMEAR)
        wrong = (extent >= 1) & (measured.contrast >= CONTRAST)  # else it is blank
        return each_or_all(
            self,
            context,
            wrong,
            extent,
            lambda row: _message(float(measured.softness[row]), float(measured.smear[row])),
            "are blurred",
        )


def _message(softness: float, smear: float) -> str:
    if softness >= SOFTNESS:
        return f"A slight blur leaves {100 * softness:.0f}% of its edges: they were soft before."
    return f"Blurring it further changes it little, {100 * (1 - smear):.0f}%: it is smeared."
