"""KS112: files whose names differ only by case."""

from __future__ import annotations

import unicodedata
from collections import defaultdict

from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult

__all__ = ["SameNames"]


class SameNames(Check):
    """Files that become one when the folder is copied to Windows or macOS.

    Those systems do not tell upper from lower case, nor an accent that is part of its letter from
    one that follows it.
    """

    code = "KS112"
    title = "Names that differ only by case"
    severity = "warning"
    advice = "Rename one of each."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the names."""
        if context.catalog.arrays is not None:
            return self.not_applicable("Pictures in memory have no files.")
        alike: defaultdict[str, list[int]] = defaultdict(list)
        for row, path in enumerate(context.catalog.path):
            alike[unicodedata.normalize("NFC", path).casefold()].append(row)
        groups = (
            rows for rows in alike.values() if len({context.catalog.path[row] for row in rows}) > 1
        )
        return self.result(
            (
                self.finding(
                    context,
                    rows,
                    "On a system that does not tell case, one replaces the other.",
                )
                for rows in groups
            ),
            len(context.catalog),
        )
