"""KS301 to KS305: identical files, re-encoded and transformed copies, near-duplicates, crops."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from kindsight.checks.check import Check, CheckResult, Finding
from kindsight.checks.context import CheckContext
from kindsight.checks.duplicates.crops import find_crops
from kindsight.checks.duplicates.search import Duplicates, find_duplicates
from kindsight.dataset.splits.disjoint_sets import DisjointSets

__all__ = [
    "Crops", "DuplicatesCheck", "IdenticalFiles", "NearDuplicates", "ReencodedCopies",
    "RotatedCopies", "group_findings",
]  # fmt: skip


class DuplicatesCheck(Check):
    """Reports groups of duplicates of one kind.

    Attributes
    ----------
    kind : str
        One of :data:`kindsight.checks.duplicates.search.DUPLICATE_KINDS`.
    sentence : str
        Message about a group; ``{n}`` is the number of its images.
    """

    kind: ClassVar[str]
    sentence: ClassVar[str]

    def run(self, context: CheckContext) -> CheckResult:
        """Report the groups of duplicates."""
        if not len(context.readable_rows):
            return self.not_applicable("No image can be read.")
        found = find_duplicates(context)
        findings = group_findings(self, context, found.pairs[self.kind], found.values[self.kind])
        result = self.result(findings, len(context.readable_rows))
        return result if self.kind == "identical" else _with_limits(result, found, self.kind)


def _with_limits(result: CheckResult, found: Duplicates, kind: str) -> CheckResult:
    """Return a result whose reason states the limits of the search."""
    recall = found.recall.get(kind)
    if found.complete or not (recall or kind in found.left_out):
        return result
    reason = "Too many images are similar to compare all pairs."
    if kind in found.left_out:
        reason += (
            f" The most similar were compared; at least {found.left_out[kind]:,} similar pairs "
            "were not."
        )
    if recall is None:
        return replace(result, reason=reason)
    reason += (
        f" {recall.value:.1%} of the similar pairs are found, measured on {recall.hashes:,} of "
        f"these images, each compared with all ({recall.found:,} of {recall.pairs:,} pairs)."
    )
    measured = {
        "value": round(recall.value, 4), "images": recall.hashes, "pairs": recall.pairs,
        "found": recall.found,
    }  # fmt: skip
    return replace(result, reason=reason, recall=measured)


def group_findings(
    check: DuplicatesCheck,
    context: CheckContext,
    pairs: NDArray[np.int64],
    values: NDArray[np.float64],
) -> list[Finding]:
    """Return a finding per group, largest first; its value is the lowest correlation of a pair."""
    sets = DisjointSets(len(context.dataset))
    sets.merge(pairs)
    root = sets.roots()
    lowest: dict[int, float] = {}
    for row, value in zip(root[pairs[:, 0]].tolist(), values.tolist(), strict=True):
        lowest[row] = min(value, lowest.get(row, value))
    found = [
        check.finding(context, rows, check.sentence.format(n=len(rows)), value=lowest[int(rows[0])])
        for rows in sets.groups()
    ]
    return sorted(found, key=lambda finding: (-len(finding.rows), finding.rows))


class IdenticalFiles(DuplicatesCheck):
    """Files with the same content under several names."""

    code = "KS301"
    title = "Identical files"
    severity = "warning"
    advice = "Keep one file of each group."
    kind = "identical"
    sentence = "These {n} files are identical, byte for byte."


class ReencodedCopies(DuplicatesCheck):
    """The same image at another quality, in another format or size, or darker or brighter."""

    code = "KS302"
    title = "Re-encoded copies"
    severity = "warning"
    advice = "Keep the best file of each group, or give its files one group for the split."
    kind = "reencoded"
    sentence = "These {n} files show the same image at another quality, format or size."


class RotatedCopies(DuplicatesCheck):
    """The same image rotated or mirrored, such as augmented copies saved as files."""

    code = "KS303"
    title = "Rotated or mirrored copies"
    severity = "warning"
    advice = "Keep the original and use augmentation in training."
    kind = "rotated"
    sentence = "These {n} files show the same image, rotated or mirrored."


class NearDuplicates(DuplicatesCheck):
    """Photographs of one burst, frames of one video, or slightly cropped copies."""

    code = "KS304"
    title = "Near-duplicates"
    severity = "warning"
    advice = (
        "For a random split, kindsight train --group-near-duplicates keeps each group in one split."
    )
    kind = "near"
    sentence = "These {n} images are near-duplicates: a burst, or slightly cropped copies."


class Crops(DuplicatesCheck):
    """An image and a crop of it, found by similar features."""

    code = "KS305"
    title = "Crops of other images"
    severity = "warning"
    cost = "full"
    advice = "Keep one image of each group, or give its images one group for the split."
    sentence = "These {n} images overlap: one is a crop of another."

    def run(self, context: CheckContext) -> CheckResult:
        """Report the groups of crops."""
        if context.features is None:
            return self.not_applicable("There are no features of these images.")
        if not len(context.readable_rows):
            return self.not_applicable("No image can be read.")
        pairs, values = find_crops(context)
        return self.result(group_findings(self, context, pairs, values), len(context.features.rows))
