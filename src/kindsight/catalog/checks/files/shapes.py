"""KS110: pictures that are very long or very tall."""

from __future__ import annotations

import numpy as np

from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult
from kindsight.catalog.checks.ordinary import each_or_all

__all__ = ["ExtremeShapes"]

# The square in the middle, which networks are given, is then 36% of the picture or less. Cameras
# make 1.33 to 1.78, telephones 2.2; the longest of cats-dogs is 2.8.
PROPORTION = 2.8


class ExtremeShapes(Check):
    """Panoramas, strips and banners: most of them is lost, or squeezed, on the way to a square."""

    code = "KS110"
    title = "Pictures of extreme shape"
    severity = "warning"
    advice = "Cut out the part that matters, or train with --resize pad."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the pictures."""
        height = context.measurements.height.astype(np.float64)
        width = context.measurements.width.astype(np.float64)
        proportion = np.maximum(height, width) / np.maximum(1, np.minimum(height, width))
        return each_or_all(
            self,
            context,
            proportion > PROPORTION,
            proportion,
            lambda row: (
                f"It is {height[row]:,.0f} x {width[row]:,.0f} pixels (height x width): a square "
                f"from its middle shows {100 / proportion[row]:.0f}% of it."
            ),
            f"are longer than {PROPORTION} times their width",
        )
