"""Groups that have images of several classes, and patterns that separate them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kindsight.dataset.names import n_images, quoted
from kindsight.dataset.options import NamePattern
from kindsight.encoding import valid_text

if TYPE_CHECKING:
    from kindsight.dataset.table import ImageDataset

__all__ = ["joined_classes_note"]

# A pattern with one group, after a literal prefix: what stands before and after its parenthesis.
_ONE_GROUP = re.compile(r"(\^?)([\w\- .]*)\((?:\?P<\w+>|(?!\?))(.*)", re.DOTALL)


def joined_classes_note(dataset: ImageDataset, pattern: str | None = None) -> str:
    """Return a note on groups that contain images of several classes; empty if there are none.

    - `pattern`: the pattern on names that found the groups; a pattern that also finds the folder
      is suggested if its groups join no classes.
    """
    joined = _joined(dataset.group, dataset.label)
    if not joined:
        return ""
    groups = Counter(name for name in dataset.group if name is not None)
    largest = max(joined, key=lambda name: (groups[name], name))
    several = sum(n > 1 for n in groups.values())
    is_one = len(joined) == 1
    note = (
        f"{len(joined):,} of {several:,} group{'' if several == 1 else 's'} with several images "
        f"{'has' if is_one else 'have'} images of several classes: {quoted(largest)} has "
        f"{n_images(groups[largest])} of {joined[largest]:,} classes. A group stays in one split. "
    )
    if pattern is None:
        return note + "If each class has its own numbering of groups, add the class to their names."
    better = _with_folder(pattern, dataset)
    if better:
        return note + f'If each folder has its own numbering, use `group_from="{better}"`.'
    return note + "If each class has its own numbering, use another `group_from`."


def _joined(groups: Sequence[str | None], labels: Sequence[str | None]) -> dict[str, int]:
    """Return the number of classes of each group that has several."""
    classes: defaultdict[str, set[str]] = defaultdict(set)
    for group, label in zip(groups, labels, strict=True):
        if group is not None and label is not None:
            classes[group].add(label)
    return {group: len(found) for group, found in classes.items() if len(found) > 1}


def _with_folder(pattern: str, dataset: ImageDataset) -> str:
    """Return the pattern with the image's folder in the group; empty if that does not help."""
    match = _ONE_GROUP.fullmatch(pattern)
    if match is None or "/" in pattern or re.compile(pattern).groups != 1:
        return ""
    start, prefix, rest = match.groups()
    end = "" if rest.endswith("$") and not rest.endswith(r"\$") else "[^/]*$"
    better = f"([^/]+/{'' if start else '[^/]*?'}{prefix}{rest}{end}"
    if NamePattern.fault(better):
        return ""
    found = NamePattern(better, "").find([valid_text(path) for path in dataset.path])
    lost = any(
        new is None and old is not None for new, old in zip(found, dataset.group, strict=True)
    )
    return "" if lost or _joined(found, dataset.label) else better
