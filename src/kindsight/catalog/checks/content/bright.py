"""KS204: pictures that are too bright."""

from __future__ import annotations

import numpy as np

from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult
from kindsight.catalog.checks.ordinary import each_or_all

__all__ = ["BrightPictures"]

# All but the darkest twentieth is brighter than this; cats-dogs end at 163.
DARKEST = 200

# Or the mean is; cats-dogs end at 222.
MEAN = 235


class BrightPictures(Check):
    """Overexposed, or washed out: hardly anything in it is darker than light grey."""

    code = "KS204"
    title = "Bright pictures"
    severity = "warning"
    advice = "Leave out what you yourself could not tell; crop small objects out of a white ground."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the pictures."""
        measured = context.measurements
        wrong = (measured.p05 > DARKEST) | (measured.brightness > MEAN)
        return each_or_all(
            self,
            context,
            wrong,
            np.fmax(measured.p05, measured.brightness),
            lambda row: (
                f"95% of it is brighter than {measured.p05[row]:.0f} of 255; the mean is "
                f"{measured.brightness[row]:.0f}."
            ),
            "are bright",
        )
