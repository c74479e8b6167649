"""KS109: pictures that are very small, very large, or of another size than the rest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult

__all__ = ["UnusualSizes"]

# A shorter side of fewer pixels says little: the smallest common data sets have 28 and 32.
TINY = 24

# Above 60 megapixels: no usual camera; a scan, a panorama, or a mistake.
HUGE = 60_000_000

# The side of a square of the same area is this many times the middle picture's, or a part of it.
# A folder of mixed photographs spans less: cats-dogs 0.2 to 2.1 times, whatever their sources.
FACTOR = 5.0

# Where nearly all pictures have one size, less is unusual: Tukey's far outliers, if the factor is
# at least this.
NARROW_FACTOR = 1.5
SPREADS = 3.0


class UnusualSizes(Check):
    """Pictures that are tiny, huge, or far from the size of the others."""

    code = "KS109"
    title = "Pictures of unusual size"
    severity = "warning"
    advice = "Replace thumbnails by the pictures themselves; leave icons out; make scans smaller."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the pictures."""
        rows = context.readable_rows
        if not len(rows):
            return self.not_applicable("No picture can be read.")
        height = context.measurements.height[rows].astype(np.float64)
        width = context.measurements.width[rows].astype(np.float64)
        side = np.sqrt(height * width)
        middle = float(np.median(side))
        factor = np.maximum(side / middle, middle / side)
        wrong = _far(side, factor)
        # Where the middle picture is tiny itself, that is how these data are.
        if middle >= 2 * TINY:
            wrong |= np.minimum(height, width) < TINY
        if middle**2 <= HUGE:
            wrong |= height * width > HUGE
        found = []
        for i in np.flatnonzero(wrong)[np.argsort(-factor[wrong], kind="stable")]:
            than = "larger" if side[i] > middle else "smaller"
            message = (
                f"It is {height[i]:,.0f} x {width[i]:,.0f} pixels (height x width), "
                f"{factor[i]:.1f} times {than} than the middle picture."
            )
            found.append(self.finding(context, [rows[i]], message, value=float(factor[i])))
        return self.result(found, len(rows))


def _far(side: NDArray[np.float64], factor: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Say which are far from the others."""
    low, high = np.percentile(side, [25, 75])
    reach = SPREADS * (high - low)
    outside = (side < low - reach) | (side > high + reach)
    far: NDArray[np.bool_] = (factor >= FACTOR) | (outside & (factor >= NARROW_FACTOR))
    return far
