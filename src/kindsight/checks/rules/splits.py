"""KS501 to KS503: leakage across splits, and classes missing from a split."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence

from kindsight.checks.check import Check, CheckResult, Finding, Severity
from kindsight.checks.context import CheckContext
from kindsight.checks.duplicates.search import differing_groups
from kindsight.dataset.names import quoted
from kindsight.dataset.splits.disjoint_sets import equal_rows
from kindsight.dataset.table import SPLITS, ImageDataset

__all__ = [
    "NO_SPLITS", "DuplicatesAcrossSplits", "IdenticalAcrossSplits", "MissingClasses",
    "present_splits",
]  # fmt: skip

NO_SPLITS = "The data do not define splits."


def present_splits(dataset: ImageDataset, rows: Iterable[int] | None = None) -> tuple[str, ...]:
    """Return the splits of some rows, or of all, in the order train, validation, test."""
    present = set(dataset.split if rows is None else (dataset.split[row] for row in rows))
    return tuple(split for split in SPLITS if split in present)


def _listed(splits: Sequence[str]) -> str:
    return f"{', '.join(splits[:-1])} and {splits[-1]}"


class IdenticalAcrossSplits(Check):
    """Identical files in more than one of the train, validation and test splits: leakage."""

    code = "KS501"
    title = "Identical files across splits"
    severity = "error"
    advice = "Training excludes them from all but the last split; see kindsight train --leakage."

    def run(self, context: CheckContext) -> CheckResult:
        """Compare the splits of files with the same digest."""
        dataset = context.dataset
        if len(present_splits(dataset)) < 2:
            return self.not_applicable(NO_SPLITS)
        within = [
            row
            for row in context.readable_rows.tolist()
            if dataset.digest[row] is not None and dataset.split[row] is not None
        ]
        findings = []
        for group in equal_rows([dataset.digest[row] for row in within]):
            rows = [within[index] for index in group.tolist()]
            splits = present_splits(dataset, rows)
            if len(splits) > 1:
                message = f"The same file is in {_listed(splits)}."
                findings.append(self.finding(context, rows, message))
        return self.result(findings, len(within))


_LEAKAGE: dict[str, tuple[str, Severity]] = {
    "reencoded": ("Re-encoded copies of an image", "error"),
    "rotated": ("Rotated or mirrored copies of an image", "error"),
    "near": ("Near-duplicates (a burst, or slightly cropped copies)", "warning"),
}


class DuplicatesAcrossSplits(Check):
    """Copies or near-duplicates of an image in more than one split: leakage."""

    code = "KS502"
    title = "Duplicates across splits"
    severity = "error"
    advice = "Training excludes them from all but the last split; see kindsight train --leakage."

    def run(self, context: CheckContext) -> CheckResult:
        """Compare the splits of duplicates."""
        dataset = context.dataset
        if len(present_splits(dataset)) < 2:
            return self.not_applicable(NO_SPLITS)
        if not len(context.readable_rows):
            return self.not_applicable("No image can be read.")
        findings = []
        differing = differing_groups(context, lambda rows: present_splits(dataset, rows))
        for kind, group, splits in differing:
            subject, severity = _LEAKAGE[kind]
            message = f"{subject} are in {_listed(splits)}."
            findings.append(self.finding(context, group, message, severity=severity))
        return self.result(findings, len(context.readable_rows))


class MissingClasses(Check):
    """Classes without an image in one of the splits.

    A class that is missing from the train split cannot be predicted, which is an error. A class
    that is missing from another split is not evaluated.
    """

    code = "KS503"
    title = "Classes missing from a split"
    severity = "error"
    advice = "Give the class one name in all splits, or remove it from all of them."

    def run(self, context: CheckContext) -> CheckResult:
        """Compare the classes of the splits."""
        dataset = context.dataset
        splits = present_splits(dataset)
        if not any(dataset.label):
            return self.not_applicable("The images have no labels.")
        if len(splits) < 2:
            return self.not_applicable(NO_SPLITS)
        classes: dict[str, set[str]] = {split: set() for split in splits}
        for row in context.readable_rows.tolist():
            split, label = dataset.split[row], dataset.label[row]
            if split is not None and label is not None:
                classes[split].add(label)
        findings = list(self._missing(classes))
        findings.sort(key=lambda finding: finding.severity != "error")
        return self.result(findings, len(dataset.present_classes()))

    def _missing(self, classes: dict[str, set[str]]) -> Iterator[Finding]:
        every = sorted(set().union(*classes.values()))
        for split, present in classes.items():
            for name in every:
                if name in present:
                    continue
                others = [other for other, names in classes.items() if name in names]
                near = _closest(
                    name, [known for known in present if known not in classes[others[0]]]
                )
                hint = f" Is it the class {quoted(near)}?" if near else ""
                yield self.finding_about(
                    [name],
                    f"The {split} split has no image of {quoted(name)}, unlike the "
                    f"{' and '.join(others)} split{'s' * (len(others) > 1)}." + hint,
                    suggestion=near,
                    severity="error" if split == "train" else "warning",
                )


def _closest(name: str, known: list[str]) -> str | None:
    """Return the class with a similar spelling, or None."""
    by_plain = {" ".join(other.split()).casefold(): other for other in sorted(known, reverse=True)}
    plain = " ".join(name.split()).casefold()
    close = difflib.get_close_matches(plain, by_plain, 1, 0.8)
    return by_plain[close[0]] if close else None
