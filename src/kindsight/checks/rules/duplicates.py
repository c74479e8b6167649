"""What the checks of duplicates have in common: groups become findings."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from kindsight.checks.check import Check, CheckResult, Finding
from kindsight.checks.context import CheckContext
from kindsight.checks.duplicates.disjoint_sets import Groups
from kindsight.checks.duplicates.search import Copies, find_duplicates

__all__ = [
    "CopiesCheck",
    "IdenticalFiles",
    "NearDuplicates",
    "StoredAnew",
    "TurnedCopies",
    "group_findings",
]


class CopiesCheck(Check):
    """Finds groups of copies of one kind.

    Attributes
    ----------
    kind : str
        One of :data:`kindsight.checks.duplicates.search.KINDS`.
    sentence : str
        About a group; ``{n}`` stands for the number of its images.
    """

    kind: ClassVar[str]
    sentence: ClassVar[str]

    def run(self, context: CheckContext) -> CheckResult:
        """Look for copies."""
        if not len(context.readable_rows):
            return self.not_applicable("No image can be read.")
        copies = find_duplicates(context)
        result = self.result(
            group_findings(self, context, copies.pairs[self.kind], self._values(copies)),
            len(context.readable_rows),
        )
        if self.kind != "identical" and not copies.complete:
            return self.remark(result, INCOMPLETE)
        return result

    def _values(self, copies: Copies) -> NDArray[np.float64]:
        return copies.values[self.kind]


INCOMPLETE = "So many of the images have the same outline that only those most alike were compared."


def group_findings(
    check: CopiesCheck,
    context: CheckContext,
    pairs: NDArray[np.int64],
    values: NDArray[np.float64],
) -> list[Finding]:
    """Make a finding of each group that pairs link; its value is that of its weakest link."""
    groups = Groups(len(context.dataset))
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


# SECTION: KS301: files that are the same, byte for byte.


class IdenticalFiles(CopiesCheck):
    """The same file under several names."""

    code = "KS301"
    title = "Identical files"
    severity = "warning"
    advice = "Keep one of each."
    kind = "identical"
    sentence = "These {n} files are the same, byte for byte."


# SECTION: KS304: images that are nearly the same.


class NearDuplicates(CopiesCheck):
    """Photographs of one burst, frames of one film, an image and the same cropped a little."""

    code = "KS304"
    title = "Nearly the same image"
    severity = "warning"
    advice = "Put each burst into one group, so that it stays on one side of a split."
    kind = "near"
    sentence = "These {n} images are nearly the same: of a burst, or cropped a little."


# SECTION: KS302: the same image, stored anew.


class StoredAnew(CopiesCheck):
    """The same image at another quality, in another format or size, darker or brighter."""

    code = "KS302"
    title = "The same image stored anew"
    severity = "warning"
    advice = (
        "Keep the best of each, or put each family into one group so that a split does not tear it."
    )
    kind = "stored"
    sentence = "These {n} files show the same image, in another quality, format or size."


# SECTION: KS303: the same image, mirrored or turned.


class TurnedCopies(CopiesCheck):
    """The same image mirrored, turned by a quarter or more, or both: augmentation as files."""

    code = "KS303"
    title = "The same image mirrored or turned"
    severity = "warning"
    advice = "Keep the original, and let the training augment."
    kind = "turned"
    sentence = "These {n} files show the same image, mirrored or turned."
