"""Groups of images that stay on one side of every split."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.names import quoted_list

if TYPE_CHECKING:
    from kindsight.dataset.table import ImageDataset

__all__ = [
    "SMALLER_GROUPS",
    "Group",
    "build_groups",
    "connected_components",
    "content_key",
    "group_indices",
    "single_group_notes",
]


class Group(NamedTuple):
    """Images that stay together."""

    # the random sort key: of one image or its copies, the image's key; else a hash of the smallest
    # key. So it depends neither on the order of rows nor on the number of images.
    key: bytes
    rows: list[int]  # the images' rows
    counts: dict[int, int]  # class index -> number of images


SMALLER_GROUPS = (
    'make the groups smaller (another `group_from` or `columns={"group": "NAME"}`, or no '
    "`group_near_duplicates`)"
)
"""What to do about too few groups, for messages."""


def group_indices(dataset: ImageDataset) -> NDArray[np.int64]:
    """Return the group index of each row: int64 (n,), counted from 0 by first appearance.

    Images stay together if they are byte-identical (same digest), have the same `group`, or are
    linked through other images: a copy of one patient's image in another patient's folder joins the
    two patients. Rows without a digest are only joined by their `group`.
    """
    return connected_components(dataset.digest, dataset.group)


def connected_components(*columns: Sequence[Hashable]) -> NDArray[np.int64]:
    """Return one index per set of rows that share a value in any column, directly or indirectly.

    - `*columns`: at least one, all of length n; None is no value.

    Returns
    -------
    ndarray of shape (n,), dtype int64
        Counted from 0 by first appearance.
    """
    parent = list(range(len(columns[0])))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]  # path halving
            row = parent[row]
        return row

    for column in columns:
        first: dict[Hashable, int] = {}
        for row, value in enumerate(column):
            if value is not None:
                one, other = root(first.setdefault(value, row)), root(row)
                # The smaller row becomes the root, so each root is the first row of its set.
                parent[max(one, other)] = min(one, other)
    index: dict[int, int] = {}
    return np.fromiter(
        (index.setdefault(root(row), len(index)) for row in range(len(parent))),
        np.int64,
        len(parent),
    )


def content_key(seed: int, purpose: str, *content: str) -> bytes:
    """Return a pseudo-random 16-byte key for some content: BLAKE2b of seed, purpose and content.

    Keys are the same on every machine, and independent of each other.
    """
    fields = [text.encode("utf-8", "surrogatepass") for text in (str(seed), purpose, *content)]
    data = b"".join(len(field).to_bytes(4, "little") + field for field in fields)
    return hashlib.blake2b(data, digest_size=16).digest()


def build_groups(
    rows: Iterable[int], targets: Sequence[int], indices: Sequence[int], keys: Sequence[bytes]
) -> list[Group]:
    """Return the groups of some rows, sorted by key; ties stay in row order.

    - `rows`: the rows to group.
    - `targets`, `indices`, `keys`: class index, group index and key of every row of the dataset.
    """
    members: dict[int, list[int]] = {}
    for row in rows:
        members.setdefault(indices[row], []).append(row)
    groups = [
        Group(_key({keys[row] for row in rows}), rows, Counter(targets[row] for row in rows))
        for rows in members.values()
    ]
    groups.sort(key=lambda group: group.key)
    return groups


def _key(keys: set[bytes]) -> bytes:
    """Return a hash of the smallest key: the key itself would be small if there are many."""
    smallest = min(keys)
    if len(keys) == 1:
        return smallest
    return hashlib.blake2b(smallest, digest_size=len(smallest)).digest()


def single_group_notes(dataset: ImageDataset) -> list[str]:
    """Return a note for each of validation and test with classes whose images belong to one group.

    Classes with one image are left out.
    """
    if not any(dataset.group):
        return []
    indices = group_indices(dataset).tolist()
    notes = []
    for split in ("validation", "test"):
        found: defaultdict[str, list[int]] = defaultdict(list)
        for label, name, index in zip(dataset.label, dataset.split, indices, strict=True):
            if name == split and label is not None:
                found[label].append(index)
        single = [
            name for name in dataset.classes if len(found[name]) > 1 and len(set(found[name])) == 1
        ]
        if single:
            one = len(single) == 1
            notes.append(
                f"In the {split} split, all images of {'class' if one else 'each of the classes'} "
                f"{quoted_list(single)} belong to one group: {'its' if one else 'their'} accuracy "
                f"depends on {'that group' if one else 'one group each'} alone."
            )
    return notes
