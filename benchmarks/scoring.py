"""What checks found, held against what was planted: shares, and nothing that is run."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from common import Row, at_least
from planting import COPIES, Planted

__all__ = [
    "DUPLICATES",
    "Findings",
    "Share",
    "Tally",
    "label_shares",
    "linked_groups",
    "precision_of_copies",
    "precision_of_faults",
    "recall_of_copies",
    "recall_of_faults",
    "unlike_planted",
]

DUPLICATES = ("KS301", "KS302", "KS303", "KS304", "KS305")
"""The checks that find copies."""


class Findings(NamedTuple):
    """What a check of a folder said.

    Attributes
    ----------
    groups : dict of str to list
        By code: the paths of each finding.
    suggested : dict of str to str
        By path: the label that KS403 suggests.
    """

    groups: dict[str, list[tuple[str, ...]]]
    suggested: dict[str, str]

    def named(self, code: str) -> set[str]:
        """Return all paths that a check names."""
        return {path for paths in self.groups.get(code, ()) for path in paths}


class Share(NamedTuple):
    """So many of so many.

    Attributes
    ----------
    right, of : int
    """

    right: int
    of: int

    @property
    def value(self) -> float:
        """From 0 to 1; nothing of nothing is 1."""
        return self.right / self.of if self.of else 1.0


@dataclass
class Tally:
    """Shares by what they are of, one for each seed."""

    shares: dict[str, list[Share]] = field(default_factory=lambda: defaultdict(list))

    def add(self, what: str, share: Share) -> None:
        """Add a seed's share."""
        self.shares[what].append(share)

    def row(self, what: str, least: float | None) -> Row:
        """Return the mean over the seeds, with how many of how many in all."""
        shares = self.shares[what]
        mean = statistics.fmean(share.value for share in shares)
        right, of = (sum(column) for column in zip(*shares, strict=True))
        target = None if least is None else at_least(least)
        return Row(f"{what} ({right} of {of})", [mean], "%", target=target)


def families(groups: Iterable[Sequence[str]]) -> dict[str, str]:
    """Return for each path that is in a group the name of its family: groups that share a path."""
    parent: dict[str, str] = {}

    def top(path: str) -> str:
        while parent.setdefault(path, path) != path:
            path = parent[path]
        return path

    for group in groups:
        for path in group[1:]:
            parent[top(path)] = top(group[0])
    return {path: top(path) for path in list(parent)}


def linked_groups(found: Findings, codes: Sequence[str]) -> dict[str, str]:
    """Return the families that checks of duplicates link, each path's."""
    return families(group for code in codes for group in found.groups.get(code, ()))


def recall_of_copies(
    planted: Iterable[Planted], found: Findings, codes: Sequence[str] = DUPLICATES
) -> Share:
    """Count the copies that are in one group with what they were made of."""
    family = linked_groups(found, codes)
    pairs = [(family.get(each.path), family.get(each.original)) for each in planted]
    return Share(sum(one is not None and one == other for one, other in pairs), len(pairs))


def precision_of_copies(
    planted: Iterable[Planted],
    found: Findings,
    before: Findings,
    codes: Sequence[str] = DUPLICATES,
) -> tuple[Share, int]:
    """Count the links that are right, of those that the folder did not have before.

    A group of n images takes n - 1 links. Images made of one another are one family, and
    within it links are right. Families that the folder as it is links already, each by one link,
    are left out; all other links are wrong.

    Returns
    -------
    share : Share
        The right links, of the right and the wrong ones.
    left_out : int
        Links that were there before.
    """
    made = [(each.original, each.path) for each in planted]
    own = families(made)
    with_known = families([*made, *_links(before)])
    right = wrong = left_out = 0
    members: dict[str, list[str]] = defaultdict(list)
    for path, name in linked_groups(found, codes).items():
        members[name].append(path)
    for group in members.values():
        of_own = len({own.get(path, path) for path in group})
        of_known = len({with_known.get(path, path) for path in group})
        right += len(group) - of_own
        left_out += of_own - of_known
        wrong += of_known - 1
    return Share(right, right + wrong), left_out


def recall_of_faults(planted: Iterable[Planted], named: set[str]) -> Share:
    """Count the planted faults that a check names."""
    paths = [each.path for each in planted]
    return Share(sum(path in named for path in paths), len(paths))


def precision_of_faults(
    kind: str, planted: Iterable[Planted], named: set[str], named_before: set[str]
) -> tuple[Share, int]:
    """Count the planted among the named images that were not named before, nor copies of such.

    Blank images of a dark tone are dark, too: they are left out as well.
    """
    kind_of = {each.path: each.kind for each in planted}
    made_of = {each.path: each.original for each in planted if each.kind in COPIES}
    right = {path for path in named if kind_of.get(path) == kind}
    rest = named - right
    known = {path for path in rest if made_of.get(path, path) in named_before}
    blank = {path for path in rest if (kind, kind_of.get(path)) == ("dark", "blank")}
    return Share(len(right), len(named - known - blank)), len(known)


def unlike_planted(
    planted: Sequence[Planted], found: Findings, before: Findings
) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return the copies that were not found, and the groups that hold what was never copied."""
    family = linked_groups(found, DUPLICATES)
    missed = [
        each.path
        for each in planted
        if family.get(each.path) is None or family[each.path] != family.get(each.original)
    ]
    known = families([*((each.original, each.path) for each in planted), *_links(before)])
    wrong = [group for group in _links(found) if len({known.get(path, path) for path in group}) > 1]
    return missed, wrong


def _links(found: Findings) -> list[tuple[str, ...]]:
    return [group for code in DUPLICATES for group in found.groups.get(code, ())]


def label_shares(
    swapped: Mapping[str, str], found: Findings, before: Findings
) -> dict[str, tuple[Share, int]]:
    """Count the swapped labels that are doubted, and those doubted that were swapped.

    Parameters
    ----------
    swapped : mapping
        From path to the right class, as :func:`planting.swap_labels` returns it.
    found, before : Findings
        Of the folder with swapped labels, and of the folder without, whose files have the same
        names.

    Returns
    -------
    dict
        From what is counted to the share, and how many were left out because their labels were
        doubted without any swapping.
    """

    def name(path: str) -> str:
        return path.split("/", 1)[1]

    doubted = found.named("KS403")
    right = doubted & set(swapped)
    before_names = {name(path) for path in before.named("KS403")}
    known = {path for path in doubted - right if name(path) in before_names}
    corrected = sum(found.suggested[path] == swapped[path] for path in right)
    return {
        "found": (Share(len(right), len(swapped)), 0),
        "precision": (Share(len(right), len(doubted - known)), len(known)),
        "right label suggested": (Share(corrected, len(right)), 0),
    }
