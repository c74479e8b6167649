"""Units: images that have to stay on one side of every split, and how they are drawn."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from kindsight.dataset.table import ImageDataset

__all__ = ["Unit", "build_groups", "connected_components", "content_key", "group_indices"]


class Unit(NamedTuple):
    """Images that stay together.

    Attributes
    ----------
    key : bytes
        What the unit is drawn by: the least of its images' keys, so that it depends neither on
        the order of rows nor on how often an image was copied.
    rows : list of int
        Its images.
    counts : dict of int to int
        How many of them are of which class.
    """

    key: bytes
    rows: list[int]
    counts: dict[int, int]


def group_indices(dataset: ImageDataset) -> NDArray[np.int64]:
    """Give every set of images that have to stay together a number.

    Two images stay together if they are the same byte for byte (one digest) or of one group,
    and so do all that are linked through others: a copy of one patient's image in another
    patient's folder binds the two patients.

    Parameters
    ----------
    dataset : ImageDataset
        Rows without a digest are only bound by their group.

    Returns
    -------
    ndarray of shape (n,), dtype int64
        The number of each row's unit, counted from 0 in the order of first appearance.
    """
    return connected_components(dataset.digest, dataset.group)


def connected_components(*columns: Sequence[Hashable]) -> NDArray[np.int64]:
    """Give rows one number if they have a value in common, in any column, or are linked by others.

    Parameters
    ----------
    *columns : sequence
        At least one, all of one length; None is no value.

    Returns
    -------
    ndarray of shape (n,), dtype int64
        Counted from 0 in the order of first appearance.
    """
    parent = list(range(len(columns[0])))

    def top(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]  # halve the way for the next time
            row = parent[row]
        return row

    for column in columns:
        first: dict[Hashable, int] = {}
        for row, value in enumerate(column):
            if value is not None:
                one, other = top(first.setdefault(value, row)), top(row)
                # The smaller row leads: each root is then its unit's first row.
                parent[max(one, other)] = min(one, other)
    number: dict[int, int] = {}
    return np.fromiter(
        (number.setdefault(top(row), len(number)) for row in range(len(parent))),
        np.int64,
        len(parent),
    )


def content_key(seed: int, purpose: str, *content: str) -> bytes:
    """Return the random number, 16 bytes, that belongs to some content.

    The same on every machine and in every process, and independent of every other content's:
    BLAKE2b of the seed, the purpose and the content, each with its length.
    """
    parts = [text.encode("utf-8", "surrogatepass") for text in (str(seed), purpose, *content)]
    data = b"".join(len(part).to_bytes(4, "little") + part for part in parts)
    return hashlib.blake2b(data, digest_size=16).digest()


def build_groups(
    rows: Iterable[int], targets: Sequence[int], numbers: Sequence[int], keys: Sequence[bytes]
) -> list[Unit]:
    """Gather rows into units, in the order of their keys.

    Parameters
    ----------
    rows : iterable of int
        Which rows to gather.
    targets, numbers, keys : sequence
        The class, the unit and the key of every row (also of those that are not gathered).

    Returns
    -------
    list of Unit
        Equal keys (only where the caller gave some) stay in the order of rows.
    """
    gathered: dict[int, list[int]] = {}
    for row in rows:
        gathered.setdefault(numbers[row], []).append(row)
    made = [
        Unit(min(keys[row] for row in members), members, Counter(targets[r] for r in members))
        for members in gathered.values()
    ]
    made.sort(key=lambda unit: unit.key)
    return made
