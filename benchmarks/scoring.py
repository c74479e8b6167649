"""Recall and precision of checks on planted duplicates, faults and wrong labels."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from output import Row, at_least
from planted_data import COPIES, Planted

__all__ = [
    "DUPLICATES",
    "Findings",
    "Fraction",
    "Tally",
    "label_scores",
    "linked_groups",
    "precision_of_copies",
    "precision_of_faults",
    "recall_of_copies",
    "recall_of_faults",
    "wrong_and_missed",
]

DUPLICATES = ("KS301", "KS302", "KS303", "KS304", "KS305")
"""The checks that find duplicates."""


class Findings(NamedTuple):
    """The findings of a check of a folder.

    Attributes
    ----------
    groups : dict of str to list
        The paths of each finding by code.
    suggested : dict of str to str
        The label that KS403 suggests by path.
    """

    groups: dict[str, list[tuple[str, ...]]]
    suggested: dict[str, str]

    def paths(self, code: str) -> set[str]:
        """Return all paths with a finding of a check."""
        return {path for paths in self.groups.get(code, ()) for path in paths}


class Fraction(NamedTuple):
    """A number of correct cases and the total."""

    correct: int
    total: int

    @property
    def value(self) -> float:
        """From 0 to 1; 1 for an empty total."""
        return self.correct / self.total if self.total else 1.0


@dataclass
class Tally:
    """Fractions by name, one per seed."""

    fractions: dict[str, list[Fraction]] = field(default_factory=lambda: defaultdict(list))

    def add(self, name: str, fraction: Fraction) -> None:
        """Add the fraction of one seed."""
        self.fractions[name].append(fraction)

    def row(self, name: str, target: float | None) -> Row:
        """Return a row with the mean over the seeds and the summed counts."""
        fractions = self.fractions[name]
        mean = statistics.fmean(fraction.value for fraction in fractions)
        correct, total = map(sum, zip(*fractions, strict=True))
        limit = None if target is None else at_least(target)
        return Row(f"{name} ({correct} of {total})", [mean], "%", target=limit)


def connect(groups: Iterable[Sequence[str]]) -> dict[str, str]:
    """Return the name of the connected component of each path; groups with a common path join."""
    parent: dict[str, str] = {}

    def root(path: str) -> str:
        while parent.setdefault(path, path) != path:
            path = parent[path]
        return path

    for group in groups:
        for path in group[1:]:
            parent[root(path)] = root(group[0])
    return {path: root(path) for path in list(parent)}


def linked_groups(found: Findings, codes: Sequence[str]) -> dict[str, str]:
    """Return the connected component of each path that checks of duplicates link."""
    return connect(_links(found, codes))


def recall_of_copies(
    planted: Iterable[Planted], found: Findings, codes: Sequence[str] = DUPLICATES
) -> Fraction:
    """Return the fraction of copies that are linked with their original."""
    component = linked_groups(found, codes)
    pairs = [(component.get(each.path), component.get(each.original)) for each in planted]
    return Fraction(sum(one is not None and one == other for one, other in pairs), len(pairs))


def precision_of_copies(
    planted: Iterable[Planted],
    found: Findings,
    before: Findings,
    codes: Sequence[str] = DUPLICATES,
) -> tuple[Fraction, int]:
    """Return the fraction of new links that are correct, and the number of excluded links.

    A group of n images has n - 1 links. Links between an original and its copies are correct, links
    between images that are duplicates in the original folder (`before`) are excluded, all other
    links are wrong.
    """
    pairs = [(each.original, each.path) for each in planted]
    own = connect(pairs)
    with_known = connect([*pairs, *_links(before)])
    correct = wrong = excluded = 0
    members: dict[str, list[str]] = defaultdict(list)
    for path, name in linked_groups(found, codes).items():
        members[name].append(path)
    for group in members.values():
        own_components = len({own.get(path, path) for path in group})
        known_components = len({with_known.get(path, path) for path in group})
        correct += len(group) - own_components
        excluded += own_components - known_components
        wrong += known_components - 1
    return Fraction(correct, correct + wrong), excluded


def recall_of_faults(planted: Iterable[Planted], found: set[str]) -> Fraction:
    """Return the fraction of planted faults that a check finds."""
    paths = [each.path for each in planted]
    return Fraction(sum(path in found for path in paths), len(paths))


def precision_of_faults(
    kind: str, planted: Iterable[Planted], found: set[str], found_before: set[str]
) -> tuple[Fraction, int]:
    """Return the fraction of new findings that were planted, and the number of excluded findings.

    Images found in the original folder, their copies, and dark blank images are excluded.
    """
    kind_of = {each.path: each.kind for each in planted}
    original_of = {each.path: each.original for each in planted if each.kind in COPIES}
    correct = {path for path in found if kind_of.get(path) == kind}
    rest = found - correct
    known = {path for path in rest if original_of.get(path, path) in found_before}
    blank = {path for path in rest if (kind, kind_of.get(path)) == ("dark", "blank")}
    return Fraction(len(correct), len(found - known - blank)), len(known)


def wrong_and_missed(
    planted: Sequence[Planted], found: Findings, before: Findings
) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return the copies that were not found, and the groups with images that are not duplicates."""
    component = linked_groups(found, DUPLICATES)
    missed = [
        each.path
        for each in planted
        if component.get(each.path) is None or component[each.path] != component.get(each.original)
    ]
    known = connect([*((each.original, each.path) for each in planted), *_links(before)])
    wrong = [group for group in _links(found) if len({known.get(path, path) for path in group}) > 1]
    return missed, wrong


def _links(found: Findings, codes: Sequence[str] = DUPLICATES) -> list[tuple[str, ...]]:
    return [group for code in codes for group in found.groups.get(code, ())]


def label_scores(
    swapped: Mapping[str, str], found: Findings, before: Findings
) -> dict[str, tuple[Fraction, int]]:
    """Return recall, precision and correct suggestions of KS403, each with the excluded findings.

    Parameters
    ----------
    swapped : mapping
        The correct class by path, from :func:`planted_data.swap_labels`.
    found, before : Findings
        Of the folder with and without swapped labels; the files have the same names. Labels found
        in both are excluded from precision.
    """

    def name(path: str) -> str:
        return path.split("/", 1)[1]

    flagged = found.paths("KS403")
    correct = flagged & set(swapped)
    names_before = {name(path) for path in before.paths("KS403")}
    known = {path for path in flagged - correct if name(path) in names_before}
    corrected = sum(found.suggested[path] == swapped[path] for path in correct)
    return {
        "recall": (Fraction(len(correct), len(swapped)), 0),
        "precision": (Fraction(len(correct), len(flagged - known)), len(known)),
        "correct label suggested": (Fraction(corrected, len(correct)), 0),
    }
