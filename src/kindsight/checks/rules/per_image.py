"""What is unusual for one image may be usual for all: how checks tell."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kindsight.checks.check import Check, CheckResult
from kindsight.checks.context import CheckContext

__all__ = ["HABIT", "per_image_or_summary"]

# Where more of the images than this are so, it is how these data are (X-rays are dark, scans are
# bright): that is said once, not of each.
HABIT = 0.25
FEWEST = 20


def per_image_or_summary(
    check: Check,
    context: CheckContext,
    wrong: NDArray[np.bool_],
    extent: NDArray[np.floating],
    message: Callable[[int], str],
    all_together: str,
) -> CheckResult:
    """Make one finding for each image, or one for all where they are many.

    Parameters
    ----------
    check : Check
        Whose findings.
    context : CheckContext
    wrong : bool array (n,)
        Which rows of the dataset are so; those that cannot be read are left out.
    extent : float array (n,)
        How much; the greatest comes first and is the finding's value.
    message : callable
        From a row to a sentence about it.
    all_together : str
        The end of a sentence that begins "640 of 2,062 images".
    """
    rows = context.readable_rows
    if not len(rows):
        return check.not_applicable("No image can be read.")
    found = rows[wrong[rows]]
    found = found[np.argsort(-extent[found], kind="stable")]
    if len(found) > HABIT * len(rows) and len(rows) >= FEWEST:
        whole = (
            f"{len(found):,} of {len(rows):,} images {all_together}; it may be how these data are."
        )
        return check.result([check.finding(context, found, whole)], len(rows))
    return check.result(
        (
            check.finding(context, [row], message(int(row)), value=float(extent[row]))
            for row in found
        ),
        len(rows),
    )
