"""What the checks of duplicates have in common: groups become findings."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult, Finding
from kindsight.catalog.checks.duplicates.copies import Copies, find_copies
from kindsight.catalog.checks.duplicates.groups import Groups

__all__ = ["CopiesCheck", "group_findings"]


class CopiesCheck(Check):
    """Finds groups of copies of one kind.

    Attributes
    ----------
    kind : str
        One of :data:`kindsight.catalog.checks.duplicates.copies.KINDS`.
    sentence : str
        About a group; ``{n}`` stands for the number of its pictures.
    """

    kind: ClassVar[str]
    sentence: ClassVar[str]

    def run(self, context: CheckContext) -> CheckResult:
        """Look for copies."""
        if not len(context.readable_rows):
            return self.not_applicable("No picture can be read.")
        copies = find_copies(context)
        result = self.result(
            group_findings(self, context, copies.pairs[self.kind], self._values(copies)),
            len(context.readable_rows),
        )
        if self.kind != "identical" and not copies.complete:
            return self.remark(result, INCOMPLETE)
        return result

    def _values(self, copies: Copies) -> NDArray[np.float64]:
        return copies.values[self.kind]


INCOMPLETE = (
    "So many of the pictures have the same outline that only those most alike were compared."
)


def group_findings(
    check: CopiesCheck,
    context: CheckContext,
    pairs: NDArray[np.int64],
    values: NDArray[np.float64],
) -> list[Finding]:
    """Make a finding of each group that pairs link; its value is that of its weakest link."""
    groups = Groups(len(context.catalog))
    groups.join(pairs)
    leader = groups.leaders()
    weakest: dict[int, float] = {}
    for row, value in zip(leader[pairs[:, 0]].tolist(), values.tolist(), strict=True):
        weakest[row] = min(value, weakest.get(row, value))
    found = [
        check.finding(
            context, rows, check.sentence.format(n=len(rows)), value=weakest[int(rows[0])]
        )
        for rows in groups.of_several()
    ]
    return sorted(found, key=lambda finding: (-len(finding.rows), finding.rows))
