"""Groups of images that stay on one side of every split, and cross-validation folds."""

from __future__ import annotations

import hashlib
import heapq
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kindsight.dataset.columns.convert import count_values
from kindsight.dataset.names import quoted_list
from kindsight.dataset.splits.disjoint_sets import DisjointSets, first_rows
from kindsight.dataset.splits.group_counts import GroupCounts
from kindsight.dataset.table import SPLITS, ImageDataset
from kindsight.errors import SettingsError

__all__ = [
    "SMALLER_GROUPS", "Groups", "build_groups", "connected_components", "content_key",
    "content_keys", "fold_indices", "group_indices", "groups_per_class",
    "single_group_notes", "split_codes",
]  # fmt: skip


class Groups(NamedTuple):
    """Groups of rows, as arrays: those of several images, sorted by key, and single images."""

    # uint8 (n, 16), the random sort keys: of one image or its copies, the image's key; else a hash
    # of the smallest key, so that it depends neither on the order of rows nor on the number of
    # images.
    keys: NDArray[np.uint8]
    starts: NDArray[np.int64]  # (n + 1,): where each group begins in `rows`, and the end
    rows: NDArray[np.int64]  # the rows of the groups' images
    counts: GroupCounts  # the groups' images of each class
    singles: dict[int, NDArray[np.int64]]  # class index -> rows of single images, sorted by key
    first_keys: dict[int, bytes]  # class index -> key of the first of these


SMALLER_GROUPS = (
    'make the groups smaller (another `group_from` or `columns={"group": "NAME"}`, or no '
    "`group_near_duplicates`)"
)
"""What to do about too few groups, for messages."""


def group_indices(dataset: ImageDataset) -> NDArray[np.int64]:
    """Return the group index of each row: int64 (n,), from 0 in the order of first appearance.

    Images stay together if they are byte-identical (same digest), have the same `group`, or are
    linked through other images: a copy of one patient's image in another patient's folder joins the
    two patients. Rows without a digest are only joined by their `group`.
    """
    return connected_components(dataset.digest, dataset.group)


def split_codes(dataset: ImageDataset) -> NDArray[np.int8]:
    """Return the split of each row as its index in SPLITS, -1 for none: int8 (n,), a copy."""
    codes = np.full(len(dataset), -1, np.int8)
    for k, name in enumerate(SPLITS):
        codes[dataset.rows_in(name)] = k
    return codes


def connected_components(*columns: Sequence[Hashable]) -> NDArray[np.int64]:
    """Return one index per set of rows that share a value in any column, directly or indirectly.

    - `*columns`: at least one, all of length n; None is no value.

    Returns
    -------
    ndarray of shape (n,), dtype int64
        Counted from 0 by first appearance.
    """
    sets = DisjointSets(len(columns[0]))
    for column in columns:
        first = first_rows(column)
        rows = np.flatnonzero(first != np.arange(len(first)))
        sets.merge(np.stack((first[rows], rows), axis=1))
    roots = sets.roots()  # the first row of each set
    index: NDArray[np.int64] = np.cumsum(roots == np.arange(len(roots)))[roots] - 1
    return index


def groups_per_class(
    targets: NDArray[np.int64], indices: NDArray[np.int64], n_classes: int
) -> NDArray[np.int64]:
    """Return the number of different groups of each class, int64 (n_classes,).

    - `targets`, `indices`: class index and group index of some rows; -1 for no class.
    """
    width = int(indices.max(initial=0)) + 1
    # Sorted in place: for ten million rows, np.unique without counts is many times slower.
    pairs = (targets * width + indices)[targets >= 0]
    pairs.sort()
    different = pairs[np.diff(pairs, prepend=-1) > 0]
    return np.bincount(different // width, minlength=n_classes)


def content_key(seed: int, purpose: str, *content: str) -> bytes:
    """Return a pseudo-random 16-byte key for some content: BLAKE2b of seed, purpose and content.

    Keys are the same on every machine, and independent of each other.
    """
    return hashlib.blake2b(_fields(str(seed), purpose, *content), digest_size=16).digest()


def content_keys(seed: int, purpose: str, *content: Iterable[str]) -> NDArray[np.uint8]:
    """Return :func:`content_key` of each row of some columns: uint8 (rows, 16)."""
    keys = bytearray()
    start = hashlib.blake2b(_fields(str(seed), purpose), digest_size=16)
    for texts in zip(*content, strict=True):
        one = start.copy()
        one.update(_fields(*texts))
        keys += one.digest()
    return np.frombuffer(keys, np.uint8).reshape(-1, 16)


def _fields(*texts: str) -> bytes:
    fields = [text.encode("utf-8", "surrogatepass") for text in texts]
    return b"".join([len(field).to_bytes(4, "little") + field for field in fields])


def build_groups(
    rows: NDArray[np.int64],
    targets: NDArray[np.int64],
    indices: NDArray[np.int64],
    keys: NDArray[np.uint8],
) -> Groups:
    """Return the groups of some rows, sorted by key; ties stay in row order.

    - `rows`: the rows to group.
    - `targets`, `indices`, `keys`: class index, group index and key of each of these rows; keys
      are uint8 (rows, 16).
    """
    order = np.argsort(indices, kind="stable")
    starts = np.flatnonzero(np.diff(indices[order], prepend=-1))
    sizes = np.diff(starts, append=len(order))
    members = order[np.repeat(sizes > 1, sizes)]
    group_keys, number = _group_keys(rows[members], keys[members], sizes[sizes > 1])
    by_group = np.argsort(number, kind="stable")
    n = len(group_keys)
    single = np.sort(order[starts[sizes == 1]])
    by_key = np.lexsort((single, *_words(keys[single])[::-1], targets[single]))
    single = single[by_key]
    classes, first = np.unique(targets[single], return_index=True)
    parts = np.split(single, first[1:])
    return Groups(
        group_keys,
        np.concatenate([[0], np.cumsum(np.bincount(number, minlength=n))]),
        rows[members[by_group]],
        GroupCounts.of(number, targets[members], n),
        {k: rows[part] for k, part in zip(classes.tolist(), parts, strict=False)},
        {k: keys[part[0]].tobytes() for k, part in zip(classes.tolist(), parts, strict=False)},
    )


def _group_keys(
    rows: NDArray[np.int64], keys: NDArray[np.uint8], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the sorted keys of groups, and the position of each row's group among them.

    A group's key is a hash of the smallest key of its rows, unless all are equal: the smallest of
    many keys would be small. Groups with equal keys are in the order of their first rows.

    - `rows`, `keys`: those of the groups, one group after the other.
    - `sizes`: the number of rows of each group.
    """
    group = np.repeat(np.arange(len(sizes)), sizes)
    ends = np.cumsum(sizes)
    order = np.lexsort((*_words(keys)[::-1], group))
    smallest, largest = keys[order[ends - sizes]], keys[order[ends - 1]]
    different = np.flatnonzero((smallest != largest).any(axis=1))
    hashed = bytearray()
    for key in smallest[different]:
        hashed += hashlib.blake2b(key.tobytes(), digest_size=keys.shape[1]).digest()
    found = smallest.copy()
    found[different] = np.frombuffer(hashed, np.uint8).reshape(-1, keys.shape[1])
    by_key = np.lexsort((rows[ends - sizes], *_words(found)[::-1]))
    place = np.empty(len(sizes), np.int64)
    place[by_key] = np.arange(len(sizes))
    return found[by_key], place[group]


def _words(keys: NDArray[np.uint8]) -> list[NDArray[np.uint64]]:
    """Return the two halves of 16-byte keys as numbers in the same order."""
    words = np.ascontiguousarray(keys).view(">u8").astype(np.uint64)
    return [words[:, 0], words[:, 1]]


def single_group_notes(dataset: ImageDataset) -> list[str]:
    """Return a note for each of validation and test with classes whose images belong to one group.

    Classes with one image are left out.
    """
    if not any(count_values(dataset.group)):
        return []
    indices, targets = group_indices(dataset), dataset.targets
    notes = []
    for split in ("validation", "test"):
        rows = dataset.rows_in(split)
        rows = rows[targets[rows] >= 0]
        images = np.bincount(targets[rows], minlength=len(dataset.classes))
        groups = groups_per_class(targets[rows], indices[rows], len(dataset.classes))
        single = [
            name
            for name, n, m in zip(dataset.classes, images.tolist(), groups.tolist(), strict=True)
            if n > 1 and m == 1
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
    keys: Sequence[str | None] | None = None,
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
    targets = np.asarray(labels, np.int64)
    n = len(targets)
    given = np.arange(n) if groups is None else np.asarray(groups)
    if not len(given) == (n if keys is None else len(keys)) == n:
        raise ValueError(
            f"labels, groups and keys must have the same length; got {n}, {len(given)} and "
            f"{n if keys is None else len(keys)}"
        )
    different, indices = np.unique(given, return_inverse=True)
    count = len(different)
    if not 2 <= folds <= count:
        raise SettingsError(
            f"folds must be between 2 and the number of groups, {count:,}; got {folds}."
        )
    content = map(str, range(n) if keys is None else keys)
    row_keys = content_keys(seed, "folds", content, map(str, targets.tolist()))
    return _distribute(build_groups(np.arange(n), targets, indices, row_keys), folds, n)


def _distribute(groups: Groups, folds: int, n: int) -> NDArray[np.int64]:
    """Assign large groups first, each to the fold that it unbalances least; then single rows.

    Of equally good folds, a group gets the first one at or after a fold that its key selects, so
    that each fold is equally likely for every group, even the largest.
    """
    result = np.empty(n, np.int64)
    counts: defaultdict[int, list[int]] = defaultdict(lambda: [0] * folds)
    total = [0] * folds
    sizes = np.diff(groups.starts)
    starts, classes, images = (column.tolist() for column in groups.counts)
    fold_of = np.empty(len(sizes), np.int64)
    for group in np.argsort(-sizes, kind="stable").tolist():
        start = _start(groups.keys[group].tobytes(), folds)
        own = range(starts[group], starts[group + 1])
        squares = [
            sum(2 * counts[classes[i]][fold] * images[i] + images[i] ** 2 for i in own)
            for fold in range(folds)
        ]
        _, _, _, fold = min(
            (squares[fold], total[fold], (fold - start) % folds, fold) for fold in range(folds)
        )
        fold_of[group] = fold
        total[fold] += sum(images[i] for i in own)
        for i in own:
            counts[classes[i]][fold] += images[i]
    result[groups.rows] = np.repeat(fold_of, sizes)
    for k, rows in sorted(groups.singles.items()):
        # Without large groups, every single row is as likely to be the first.
        start = _start(groups.first_keys[k], folds) if len(sizes) else 0
        result[rows] = _fill(len(rows), counts[k], total, start)
    return result


def _start(key: bytes, folds: int) -> int:
    """Return the fold from which a group's fold is searched, given by half of its key."""
    return int.from_bytes(key[8:], "little") % folds


def _fill(rows: int, count: list[int], total: list[int], start: int) -> NDArray[np.int64]:
    """Return the fold of each row of a class: fewest rows of the class, then fewest rows."""
    folds = len(total)
    heap = [(count[fold], total[fold], (fold - start) % folds) for fold in range(folds)]
    heapq.heapify(heap)
    result = np.empty(rows, np.int64)
    for row in range(rows):
        n, size, place = heap[0]
        fold = (place + start) % folds
        result[row] = fold
        total[fold] = size + 1
        heapq.heapreplace(heap, (n + 1, size + 1, place))
    return result
