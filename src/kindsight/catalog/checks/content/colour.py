"""Telling grey pictures from coloured ones, for the two checks that do."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult
from kindsight.catalog.checks.ordinary import each_or_all

__all__ = ["FEWER", "odd_ones"]

# Levels between the greatest and the least channel, in all but a hundredth of the picture. Grey
# pictures stored as JPEG reach 3; the least coloured of cats-dogs has 14.
CHROMA = 8.0

# In a dark or faded picture all channels lie close together: there, grey is what has less colour
# than this share of its contrast.
SHARE = 0.15

# What fewer than half are is the odd kind; with as many of both there is none.
FEWER = 0.5


def odd_ones(
    check: Check, context: CheckContext, *, grey: bool, message: str, all_together: str
) -> CheckResult:
    """Find the grey pictures among coloured ones, or the coloured ones among grey ones."""
    rows = context.readable_rows
    chroma = context.measurements.chroma
    below = np.minimum(CHROMA, SHARE * context.measurements.contrast)
    so: NDArray[np.bool_] = (chroma < below) if grey else (chroma >= CHROMA)
    share = float(so[rows].mean()) if len(rows) else 0.0
    if share == 1.0:
        return check.not_applicable(f"All pictures are {'grey' if grey else 'coloured'}.")
    if share > FEWER or (share == FEWER and not grey):
        return check.not_applicable(f"Most pictures are {'grey' if grey else 'coloured'}.")
    extent = -chroma if grey else chroma
    return each_or_all(check, context, so, extent, lambda _: message, all_together)
