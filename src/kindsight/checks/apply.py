"""From findings to a corrected dataset: what is left out, called otherwise, or kept together.

Nothing is done to a file. The corrections are rows of a table, each with its reason, that can be
read, changed, and trained on.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kindsight.checks.check import CheckResult, Finding
from kindsight.checks.duplicates.disjoint_sets import Groups
from kindsight.dataset.loaders.values import EXCLUDED
from kindsight.dataset.splits.leakage import merge_groups, resolve_leakage
from kindsight.dataset.table import ImageDataset
from kindsight.dataset.write_table import relative_paths
from kindsight.errors import DatasetError, UsageError
from kindsight.files import write_csv

__all__ = ["COLUMNS", "Corrections", "correct", "validate_table_target"]

COLUMNS = ("path", "label", "split", "group", "was", "reason")
"""Of the corrected table: ``was`` is the label that was changed, ``reason`` what the check said."""

LEAVE_OUT = ("KS101", "KS102", "KS103", "KS104", "KS105", "KS115", "KS118", "KS201")
"""Images that cannot be read, that show nothing, or mark what is in another one. Where a finding
is about many of them at once, that is how these data are, and nothing is left out."""

ONE_CLASS = ("KS113",)
"""Names that differ by case or blanks become the commonest of them."""

CONTRADICTED = ("KS401", "KS402")
"""Copies with several labels: those of the minority are called as the majority is; where there is
none, no label is known, and all are left out. Images that are only nearly the same may well have
different labels, which is a warning, and stay as they are."""

DOUBTED = ("KS403",)
"""Labels that are probably wrong become what was suggested."""

TOGETHER = ("KS301", "KS302", "KS303", "KS304", "KS305")
"""Copies become one group."""

LEAKING = ("KS501", "KS502")
"""Copies in several parts stay in the last one."""


@dataclass(frozen=True)
class Corrections:
    """A dataset and what should be different in it.

    Parameters
    ----------
    dataset : ImageDataset
        With the new labels and groups; `excluded` rows are still in it.
    was : tuple of (str or None)
        The label that each row had, where it has another now.
    excluded : frozenset of int
        Rows to be left out.
    reasons : tuple of str
        Why a row is changed; empty where it is not.
    regrouped : frozenset of int
        Rows that have another group now.
    """

    dataset: ImageDataset
    was: tuple[str | None, ...]
    excluded: frozenset[int]
    reasons: tuple[str, ...]
    regrouped: frozenset[int]

    def counts(self) -> dict[str, int]:
        """Return how many rows are excluded, relabelled and regrouped; each counts once."""
        relabelled = {row for row, label in enumerate(self.was) if label is not None}
        return {
            "excluded": len(self.excluded),
            "relabelled": len(relabelled - self.excluded),
            "regrouped": len(self.regrouped - relabelled - self.excluded),
        }

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the table; :func:`kindsight.dataset.open_dataset` reads it.

        Raises
        ------
        UsageError
            If there is a file already, or it is not called ``.csv``.
        DatasetError
            For images in memory, which have no paths.
        """
        validate_table_target(path)
        if self.dataset.arrays is not None:
            raise DatasetError(
                "Only a dataset of files can be corrected in a table. Received: images in memory."
            )
        dataset = self.dataset
        rows = (
            (
                name,
                dataset.label[row] or "",
                EXCLUDED if row in self.excluded else dataset.split[row] or "",
                dataset.group[row] or "",
                self.was[row] or "",
                self.reasons[row],
            )
            for row, name in enumerate(relative_paths(dataset, Path(path).absolute().parent))
        )
        write_csv(path, COLUMNS, rows)


def validate_table_target(path: str | os.PathLike[str]) -> None:
    """Raise UsageError if a table cannot be written there."""
    target = Path(path)
    if target.suffix.lower() != ".csv":
        raise UsageError(f"--apply must name a file that ends in .csv. Received: {target}.")
    if os.path.lexists(target):
        raise UsageError(
            f"A corrected table is never written over anything. Received: {target}, which is there "
            "already. Name another."
        )


def correct(dataset: ImageDataset, results: Iterable[CheckResult]) -> Corrections:
    """Work out what findings mean for a dataset.

    Parameters
    ----------
    dataset : ImageDataset
        That was checked.
    results : iterable of CheckResult
        What was found. Checks that are not about single images change nothing.

    Returns
    -------
    Corrections
        A row that several findings are about has the reason of each. What is left out for any of
        them is left out.
    """
    findings = [finding for result in results for finding in result.findings]
    draft = _Draft(dataset)
    for finding in findings:
        if finding.code in ONE_CLASS and finding.suggestion is not None:
            draft.merge(finding.paths, finding.suggestion, finding)
    for finding in findings:
        if finding.code in LEAVE_OUT and len(finding.rows) == 1:
            draft.exclude(finding.rows, finding)
        elif finding.code in CONTRADICTED and finding.severity == "error":
            draft.settle(finding)
    for finding in findings:
        if finding.code in DOUBTED and finding.suggestion is not None:
            # What copies have settled is not torn apart again by a doubt about one of them, nor
            # what another doubt has.
            done = draft.settled | draft.doubted
            open_rows = [row for row in finding.rows if row not in done]
            draft.relabel(open_rows, finding.suggestion, finding)
            draft.doubted.update(open_rows)
    for finding in findings:
        if finding.code in LEAKING:
            _, leakage = resolve_leakage(dataset, [finding.rows], "keep")
            draft.exclude(leakage.changed, finding)
    return draft.finished([f for f in findings if f.code in TOGETHER])


class _Draft:
    """Corrections in the making."""

    def __init__(self, dataset: ImageDataset) -> None:
        self.dataset = dataset
        self.label = list(dataset.label)
        self.names: dict[str, str] = {}
        self.settled: set[int] = set()
        self.doubted: set[int] = set()
        self.excluded: set[int] = set()
        self.reasons: list[list[str]] = [[] for _ in range(len(dataset))]

    def note(self, rows: Iterable[int], finding: Finding) -> None:
        for row in rows:
            said = f"{finding.code}: {finding.message}"
            if said not in self.reasons[row]:
                self.reasons[row].append(said)

    def exclude(self, rows: Iterable[int], finding: Finding) -> None:
        rows = list(rows)
        self.excluded.update(rows)
        self.note(rows, finding)

    def merge(self, names: Sequence[str], name: str, finding: Finding) -> None:
        self.names.update(dict.fromkeys(names, name))
        rows = [row for row, label in enumerate(self.dataset.label) if label in names]
        self.relabel(rows, name, finding)

    def relabel(self, rows: Iterable[int], label: str, finding: Finding) -> None:
        label = self.names.get(label, label)
        changed = [row for row in rows if self.label[row] != label]
        for row in changed:
            self.label[row] = label
        self.note(changed, finding)

    def settle(self, finding: Finding) -> None:
        if len({self.label[row] for row in finding.rows}) == 1:
            return
        rows = [row for row in finding.rows if row not in self.settled]
        self.settled.update(rows)
        if finding.suggestion is not None:
            self.relabel(rows, finding.suggestion, finding)
        else:
            self.exclude(finding.rows, finding)

    def finished(self, together: Sequence[Finding]) -> Corrections:
        kin: list[int | None] = [None] * len(self.dataset)
        joined = Groups(len(self.dataset))
        for finding in together:
            pairs = [(finding.rows[0], row) for row in finding.rows[1:]]
            joined.join(np.array(pairs, np.int64).reshape(-1, 2))
        for number, rows in enumerate(joined.of_several()):
            for row in rows.tolist():
                kin[row] = number
        grouped = merge_groups(self.dataset, kin)
        regrouped = {
            row for row, group in enumerate(grouped.group) if group != self.dataset.group[row]
        }
        for finding in together:
            self.note([row for row in finding.rows if row in regrouped], finding)
        was = tuple(
            before if before != now else None
            for before, now in zip(self.dataset.label, self.label, strict=True)
        )
        return Corrections(
            grouped.with_columns(label=self.label),
            was,
            frozenset(self.excluded),
            tuple(" ".join(said) for said in self.reasons),
            frozenset(regrouped),
        )
