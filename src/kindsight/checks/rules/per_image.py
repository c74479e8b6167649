"""One finding per affected image, or one summary if many images are affected."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kindsight.checks.check import Check, CheckResult
from kindsight.checks.context import CheckContext

__all__ = ["SUMMARY_FRACTION", "per_image_or_summary"]

SUMMARY_FRACTION = 0.25
"""Affected fraction above which the property is taken to be typical of the dataset (X-rays are
dark, scans are bright) and reported once."""

FEWEST = 20
"""Fewer images than this never get a summary."""


def per_image_or_summary(
    check: Check,
    context: CheckContext,
    affected: NDArray[np.bool_],
    extent: NDArray[np.floating],
    message: Callable[[int], str],
    summary: str,
) -> CheckResult:
    """Return one finding per affected image, or one for all of them if they are many.

    Parameters
    ----------
    check : Check
        The check that reports.
    context : CheckContext
    affected : bool array (n,)
        Per row of the dataset; unreadable images are ignored.
    extent : float array (n,)
        Severity of the property, the value of each finding; the largest comes first.
    message : callable
        From a row to its message.
    summary : str
        End of a sentence that begins "640 of 2,062 images".
    """
    rows = context.readable_rows
    if not len(rows):
        return check.not_applicable("No image can be read.")
    found = rows[affected[rows]]
    found = found[np.argsort(-extent[found], kind="stable")]
    if len(found) > SUMMARY_FRACTION * len(rows) and len(rows) >= FEWEST:
        text = (
            f"{len(found):,} of {len(rows):,} images {summary}; this may be typical of the dataset."
        )
        return check.result([check.finding(context, found, text)], len(rows))
    return check.result(
        (
            check.finding(context, [row], message(int(row)), value=float(extent[row]))
            for row in found
        ),
        len(rows),
    )
