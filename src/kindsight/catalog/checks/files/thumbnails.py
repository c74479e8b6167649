"""KS116: photographs whose hidden thumbnail shows something else."""

from __future__ import annotations

import numpy as np

from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult

__all__ = ["OtherThumbnails"]

# One minus the correlation at 32 x 32 pixels. A thumbnail of the same picture gives below 0.05,
# also where it was sharpened or darkened since; of another picture or another crop, 0.3 and more.
DIFFERENCE = 0.25


class OtherThumbnails(Check):
    """The small picture in EXIF data is not of this picture: it was cropped, edited or replaced.

    Thumbnails outlive editing. One that still shows what was cut away or covered may be given away
    with the data; where it shows another scene, the file was made of two.
    """

    code = "KS116"
    title = "Hidden thumbnails of another picture"
    severity = "warning"
    advice = "If the thumbnail must not be seen, remove it from a copy of the file."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the pictures."""
        difference = context.measurements.thumbnail
        rows = np.flatnonzero(np.isfinite(difference))
        if not len(rows):
            return self.not_applicable("No picture has a thumbnail in its EXIF data.")
        wrong = rows[difference[rows] > DIFFERENCE]
        order = np.argsort(-difference[wrong], kind="stable")
        return self.result(
            (
                self.finding(
                    context,
                    [row],
                    "The thumbnail in its EXIF data shows something else than the picture.",
                    value=float(difference[row]),
                )
                for row in wrong[order]
            ),
            len(rows),
        )
