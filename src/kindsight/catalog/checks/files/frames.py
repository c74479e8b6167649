"""KS107: files that hold several pictures."""

from __future__ import annotations

import numpy as np

from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult

__all__ = ["SeveralFrames"]


class SeveralFrames(Check):
    """Animations, scans of several pages, stereo pairs: of all of them the first picture counts."""

    code = "KS107"
    title = "Files of several pictures"
    severity = "warning"
    advice = "If the other pictures in a file matter, save each as a file of its own."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the pictures."""
        rows = context.readable_rows
        frames = context.measurements.frames[rows]
        kinds = context.measurements.format
        order = np.argsort(-frames, kind="stable")
        return self.result(
            (
                self.finding(
                    context,
                    [rows[i]],
                    f"The {kinds[rows[i]]} file holds {frames[i]:,} pictures, of which the first "
                    "is used.",
                    value=float(frames[i]),
                )
                for i in order
                if frames[i] > 1
            ),
            len(rows),
        )
