"""KS111: pictures that lie in their file otherwise than they are seen."""

from __future__ import annotations

from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult

__all__ = ["TurnedPictures"]

_HOW = {
    2: "mirrored",
    3: "upside down",
    4: "upside down and mirrored",
    5: "on its side and mirrored",
    6: "on its side",
    7: "on its side and mirrored",
    8: "on its side",
}


class TurnedPictures(Check):
    """Pictures that EXIF says are to be turned: done here, and forgotten by many programs."""

    code = "KS111"
    title = "Pictures turned by EXIF"
    severity = "note"
    advice = "Nothing for kindsight; turn copies for good before you give them to other programs."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the pictures."""
        orientation = context.measurements.orientation
        rows = context.readable_rows
        return self.result(
            (
                self.finding(
                    context,
                    [row],
                    f"The picture is stored {_HOW[int(orientation[row])]} and turned when it is "
                    f"read (EXIF orientation {orientation[row]}).",
                    value=float(orientation[row]),
                )
                for row in rows
                if int(orientation[row]) in _HOW
            ),
            len(rows),
        )
