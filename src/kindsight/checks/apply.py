"""Turn findings into a corrected dataset: exclude, relabel and group images.

No file is changed. The corrections are written as a table with a reason per row, which can be
edited and trained on.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kindsight.checks.check import CheckResult, Finding
from kindsight.dataset.loaders.values import EXCLUDED
from kindsight.dataset.splits.disjoint_sets import DisjointSets
from kindsight.dataset.splits.leakage import merge_groups, resolve_leakage
from kindsight.dataset.table import ImageDataset, relative_paths
from kindsight.dataset.write import write_table
from kindsight.errors import DatasetError, UsageError

__all__ = [
    "CHECK_THIS", "COLUMNS", "RELABEL_CONFIDENCE", "Corrections", "correct",
    "validate_table_target",
]  # fmt: skip

COLUMNS = ("path", "label", "split", "group", "previous_label", "reason")
"""Columns of the corrected table."""

EXCLUDE = ("KS101", "KS102", "KS103", "KS104", "KS105", "KS115", "KS118", "KS201")
"""Images that are unreadable or blank, and masks, are excluded. A summary finding about many
images excludes none."""

MERGE_CLASSES = ("KS113",)
"""Class names that differ only by case or spaces become the most frequent of them."""

CONFLICTING_LABELS = ("KS401", "KS402")
"""Duplicates with different labels get the label of the majority; without one, all are excluded.
Near-duplicates, which are only warnings, may have different labels and are left unchanged."""

RELABEL = ("KS403",)
"""Probable label errors get the suggested label, if it is confident enough."""

RELABEL_CONFIDENCE = 0.9
"""Default of the minimum confidence at which a suggested label replaces the given one."""

CHECK_THIS = "Check this: "
"""Start of the reason of an unchanged row that needs a decision."""

GROUP = ("KS301", "KS302", "KS303", "KS304", "KS305")
"""Duplicates get one group."""

LEAKAGE = ("KS501", "KS502")
"""Duplicates across splits remain in the last split only."""


@dataclass(frozen=True)
class Corrections:
    """A corrected dataset and its differences from the original.

    Parameters
    ----------
    dataset : ImageDataset
        All rows, `excluded` ones included, with the new labels and groups.
    previous_label : tuple of (str or None)
        Original label of each relabelled row; None for the others.
    excluded : frozenset of int
        Excluded rows.
    reasons : tuple of str
        Why each row is changed; empty for unchanged rows.
    regrouped : frozenset of int
        Rows with a new group.
    uncertain : tuple of Finding
        Findings whose suggested label is not confident enough. These rows keep their label; their
        reason begins with :data:`CHECK_THIS`.
    """

    dataset: ImageDataset
    previous_label: tuple[str | None, ...]
    excluded: frozenset[int]
    reasons: tuple[str, ...]
    regrouped: frozenset[int]
    uncertain: tuple[Finding, ...] = ()

    def counts(self) -> dict[str, int]:
        """Return the numbers of excluded, relabelled and regrouped rows; each row counts once."""
        relabelled = {row for row, label in enumerate(self.previous_label) if label is not None}
        return {
            "excluded": len(self.excluded),
            "relabelled": len(relabelled - self.excluded),
            "regrouped": len(self.regrouped - relabelled - self.excluded),
        }

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a table that :func:`kindsight.dataset.open_dataset` reads.

        Raises
        ------
        UsageError
            If the file exists or its name ends neither in ``.csv`` nor in ``.parquet``.
        DatasetError
            If the images are arrays in memory, which have no paths.
        """
        validate_table_target(path)
        dataset = self.dataset
        if dataset.arrays is not None:
            raise DatasetError("A corrected table needs image files; got images in memory.")
        rows = (
            (
                name,
                dataset.label[row] or "",
                EXCLUDED if row in self.excluded else dataset.split[row] or "",
                dataset.group[row] or "",
                self.previous_label[row] or "",
                self.reasons[row],
            )
            for row, name in enumerate(relative_paths(dataset, Path(path).absolute().parent))
        )
        write_table(path, COLUMNS, rows)


def validate_table_target(path: str | os.PathLike[str]) -> None:
    """Raise UsageError unless `path` is a new file that ends in ``.csv`` or ``.parquet``."""
    target = Path(path)
    if target.suffix.lower() not in (".csv", ".parquet"):
        raise UsageError(
            f"The corrected table must be a file that ends in .csv or .parquet; got {target}."
        )
    if os.path.lexists(target):
        raise UsageError(
            "The corrected table must be a new file, because nothing is overwritten; "
            f"{target} exists."
        )


def correct(
    dataset: ImageDataset,
    results: Iterable[CheckResult],
    confidence: float = RELABEL_CONFIDENCE,
) -> Corrections:
    """Return the corrections that findings imply.

    Parameters
    ----------
    dataset : ImageDataset
        The dataset that was checked.
    results : iterable of CheckResult
        Results of the checks. Findings that are not about single images or duplicates change
        nothing.
    confidence : float
        Minimum confidence at which a suggested label replaces the given one, 0-1.

    Returns
    -------
    Corrections
        A row with several findings has all their reasons. Exclusion takes precedence.
    """
    findings = [finding for result in results for finding in result.findings]
    draft = _Draft(dataset)
    for finding in findings:
        if finding.code in MERGE_CLASSES and finding.suggestion is not None:
            draft.merge_classes(finding.paths, finding.suggestion, finding)
    for finding in findings:
        if finding.code in EXCLUDE and len(finding.rows) == 1:
            draft.exclude(finding.rows, finding)
        elif finding.code in CONFLICTING_LABELS and finding.severity == "error":
            draft.resolve_conflict(finding)
    for finding in findings:
        if finding.code in RELABEL and finding.suggestion is not None:
            # A probable label error overrides neither the majority of duplicates nor another one.
            done = draft.resolved | draft.corrected
            rows = [row for row in finding.rows if row not in done]
            if finding.confidence is None or finding.confidence < confidence:
                draft.uncertain(rows, finding)
                continue
            draft.relabel(rows, finding.suggestion, finding)
            draft.corrected.update(rows)
    for finding in findings:
        if finding.code in LEAKAGE:
            _, leakage = resolve_leakage(dataset, [finding.rows], "keep")
            draft.exclude(leakage.changed, finding)
    return draft.finish([f for f in findings if f.code in GROUP])


class _Draft:
    """Corrections under construction."""

    def __init__(self, dataset: ImageDataset) -> None:
        self.dataset = dataset
        self.label = list(dataset.label)
        self.renamed_classes: dict[str, str] = {}
        self.resolved: set[int] = set()
        self.corrected: set[int] = set()
        self.excluded: set[int] = set()
        self.doubts: list[Finding] = []
        self.reasons: list[list[str]] = [[] for _ in range(len(dataset))]

    def add_reason(self, rows: Iterable[int], finding: Finding, start: str = "") -> None:
        reason = f"{start}{finding.code}: {finding.message}"
        for row in rows:
            if reason not in self.reasons[row]:
                self.reasons[row].append(reason)

    def exclude(self, rows: Iterable[int], finding: Finding) -> None:
        rows = list(rows)
        self.excluded.update(rows)
        self.add_reason(rows, finding)

    def merge_classes(self, names: Sequence[str], name: str, finding: Finding) -> None:
        self.renamed_classes.update(dict.fromkeys(names, name))
        rows = [row for row, label in enumerate(self.dataset.label) if label in names]
        self.relabel(rows, name, finding)

    def relabel(self, rows: Iterable[int], label: str, finding: Finding) -> None:
        label = self.renamed_classes.get(label, label)
        changed = [row for row in rows if self.label[row] != label]
        for row in changed:
            self.label[row] = label
        self.add_reason(changed, finding)

    def uncertain(self, rows: Iterable[int], finding: Finding) -> None:
        label = self.renamed_classes.get(str(finding.suggestion), finding.suggestion)
        rows = [row for row in rows if self.label[row] != label and row not in self.excluded]
        if rows:
            self.doubts.append(finding)
            self.add_reason(rows, finding, CHECK_THIS)

    def resolve_conflict(self, finding: Finding) -> None:
        if len({self.label[row] for row in finding.rows}) == 1:
            return
        rows = [row for row in finding.rows if row not in self.resolved]
        self.resolved.update(rows)
        if finding.suggestion is not None:
            self.relabel(rows, finding.suggestion, finding)
        else:
            self.exclude(finding.rows, finding)

    def finish(self, duplicates: Sequence[Finding]) -> Corrections:
        before = self.dataset
        sets = DisjointSets(len(before))
        for finding in duplicates:
            pairs = [(finding.rows[0], row) for row in finding.rows[1:]]
            sets.merge(np.array(pairs, np.int64).reshape(-1, 2))
        links: list[int | None] = [None] * len(before)
        for number, rows in enumerate(sets.groups()):
            for row in rows.tolist():
                links[row] = number
        grouped = merge_groups(before, links)
        regrouped = {row for row, group in enumerate(grouped.group) if group != before.group[row]}
        for finding in duplicates:
            self.add_reason([row for row in finding.rows if row in regrouped], finding)
        return Corrections(
            grouped.with_columns(label=self.label),
            tuple(
                old if old != new else None
                for old, new in zip(before.label, self.label, strict=True)
            ),
            frozenset(self.excluded),
            tuple(" ".join(reasons) for reasons in self.reasons),
            frozenset(regrouped),
            tuple(self.doubts),
        )
