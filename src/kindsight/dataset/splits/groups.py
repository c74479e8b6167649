"""Groups of images that stay on one side of every split, and cross-validation folds."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kindsight.dataset.names import quoted_list
from kindsight.errors import SettingsError

if TYPE_CHECKING:
    from kindsight.dataset.table import ImageDataset

__all__ = [
    "SMALLER_GROUPS", "Group", "build_groups", "connected_components", "content_key",
    "fold_indices", "group_indices", "single_group_notes",
]  # fmt: skip


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


def fold_indices(
    labels: ArrayLike,
    groups: ArrayLike | None,
    folds: int,
    seed: int,
    keys: Sequence[str] | None = None,
) -> NDArray[np.int64]:
    """Return the index of the fold in which each row is held out.

    Parameters
    ----------
    labels : integer array of shape (n,)
        Class indices.
    groups : integer or text array of shape (n,), or None
        Rows of one group go into one fold; None: each row is its own group.
    folds : int
        At least 2, at most the number of groups.
    seed : int
        Another seed gives other folds.
    keys : sequence of str, optional
        Identifies each row's content, such as its digest. The folds then do not depend on the order
        of rows, if rows of one class and different groups have different keys. Without keys, the
        row index is used.

    Returns
    -------
    ndarray of shape (n,), dtype int64
        0 to folds - 1. If every group is one row, the sizes of any two folds, and their numbers of
        each class, differ by at most one.

    Raises
    ------
    SettingsError
        If there are fewer than 2 folds, or more than groups.
    ValueError
        If `labels`, `groups` and `keys` differ in length.
    """
    targets: list[int] = np.asarray(labels, np.int64).tolist()
    n = len(targets)
    given = list(range(n)) if groups is None else np.asarray(groups).tolist()
    content = [str(row) for row in range(n)] if keys is None else list(keys)
    if not len(given) == len(content) == n:
        raise ValueError(
            f"labels, groups and keys must have the same length; got {n}, {len(given)} and "
            f"{len(content)}"
        )
    index: dict[object, int] = {}
    indices = [index.setdefault(group, len(index)) for group in given]
    if not 2 <= folds <= len(index):
        raise SettingsError(
            f"folds must be between 2 and the number of groups, {len(index):,}; got {folds}."
        )
    row_keys = [
        content_key(seed, "folds", key, str(target))
        for key, target in zip(content, targets, strict=True)
    ]
    return _distribute(build_groups(range(n), targets, indices, row_keys), folds, n)


def _distribute(groups: list[Group], folds: int, n: int) -> NDArray[np.int64]:
    """Assign large groups first, each to the fold it unbalances least; then single rows.

    Of equally good folds, the group gets the first one at or after a fold that its key selects. The
    rule prefers no fold: each one is equally likely for every group, even the largest.
    """
    result = np.empty(n, np.int64)
    counts: defaultdict[int, list[int]] = defaultdict(lambda: [0] * folds)
    total = [0] * folds
    large = sorted((g for g in groups if len(g.rows) > 1), key=lambda g: -len(g.rows))
    for group in large:
        start = _start(group, folds)

        def cost(fold: int, group: Group = group, start: int = start) -> tuple[int, int, int]:
            squares = sum(2 * counts[k][fold] * m + m * m for k, m in group.counts.items())
            return squares, total[fold], (fold - start) % folds

        fold = min(range(folds), key=cost)
        result[group.rows] = fold
        total[fold] += len(group.rows)
        for k, m in group.counts.items():
            counts[k][fold] += m
    singles: defaultdict[int, list[Group]] = defaultdict(list)
    for group in groups:
        if len(group.rows) == 1:
            singles[next(iter(group.counts))].append(group)
    for k in sorted(singles):
        # Without large groups, every single row is as likely to be the first.
        start = _start(singles[k][0], folds) if large else 0
        _fill([group.rows[0] for group in singles[k]], counts[k], total, start, result)
    return result


def _start(group: Group, folds: int) -> int:
    """Return the fold that a group prefers; the first half of its key decides its place."""
    return int.from_bytes(group.key[8:], "little") % folds


def _fill(
    rows: list[int], count: list[int], total: list[int], start: int, result: NDArray[np.int64]
) -> None:
    """Assign each row of a class to the fold with the fewest of the class, then the fewest rows."""
    folds = len(total)
    heap = [(count[fold], total[fold], (fold - start) % folds) for fold in range(folds)]
    heapq.heapify(heap)
    for row in rows:
        n, size, place = heap[0]
        fold = (place + start) % folds
        result[row] = fold
        total[fold] = size + 1
        heapq.heapreplace(heap, (n + 1, size + 1, place))
