"""KS301 to KS305: identical files, re-encoded and transformed copies, near-duplicates, crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from kindsight import random_stream
from kindsight.checks.check import Check, CheckResult, Finding
from kindsight.checks.context import CheckContext, Vectors, principal_components
from kindsight.checks.duplicates.registration import crop_similarity
from kindsight.checks.duplicates.search import Duplicates, find_duplicates
from kindsight.dataset.splits.disjoint_sets import DisjointSets
from kindsight.threads import count_cores, map_ordered, single_threaded_opencv

__all__ = [
    "Crops", "DuplicatesCheck", "IdenticalFiles", "NearDuplicates", "ReencodedCopies",
    "RotatedCopies", "find_crops", "group_findings", "nearest_pairs",
]  # fmt: skip

# Neighbours compared per image, and their minimum cosine similarity. Crops of 56 to 72% of the area
# reach 0.17 in sign-digits, 0.55 in cats-dogs.
NEIGHBOURS = 10
MIN_COSINE = 0.12

# Minimum correlation after registration, as for near-duplicates.
MIN_CORRELATION = 0.9

BATCH = 512

# Up to this number of images, all pairs are compared in a second.
EXACT_UP_TO = 4_000

# Principal components compared. Each is divided by the square root of its standard deviation,
# because the largest components separate the classes, not images of one class. 99 of 100 crops of
# sign-digits are then among the first ten neighbours; with unscaled features, 89.
COMPONENTS = 384

# Clusters that each image belongs to. All crops of sign-digits share one of eight with the whole
# image; of four, 88 of 100 do.
CLUSTERS_PER_IMAGE = 8

BLOCK = 512

# Of more images, the components are held as float16: 0.8 KB per image.
HALF_PRECISION_FROM = 100_000

# Pairs of neighbours gathered before those found twice are dropped, at 32 bytes each.
WAITING_PAIRS = 4_000_000


class DuplicatesCheck(Check):
    """Reports groups of duplicates of one kind.

    Attributes
    ----------
    kind : str
        One of :data:`kindsight.checks.duplicates.search.DUPLICATE_KINDS`.
    sentence : str
        Message about a group; ``{n}`` is the number of its images.
    """

    kind: ClassVar[str]
    sentence: ClassVar[str]

    def run(self, context: CheckContext) -> CheckResult:
        """Report the groups of duplicates."""
        if not len(context.readable_rows):
            return self.not_applicable("No image can be read.")
        found = find_duplicates(context)
        findings = group_findings(self, context, found.pairs[self.kind], found.values[self.kind])
        result = self.result(findings, len(context.readable_rows))
        return result if self.kind == "identical" else _with_limits(result, found, self.kind)


def _with_limits(result: CheckResult, found: Duplicates, kind: str) -> CheckResult:
    """Return a result that names what was not found or not compared."""
    recall = found.recall.get(kind)
    if found.complete or not (recall or kind in found.left_out):
        return result
    reason = "Too many images are similar to compare all pairs."
    if kind in found.left_out:
        reason += (
            f" The most similar were compared; at least {found.left_out[kind]:,} similar pairs "
            "were not."
        )
    if recall is None:
        return replace(result, reason=reason)
    reason += (
        f" {recall.value:.1%} of the similar pairs are found, measured on {recall.hashes:,} of "
        f"these images, each compared with all ({recall.found:,} of {recall.pairs:,} pairs)."
    )
    measured = {
        "value": round(recall.value, 4), "images": recall.hashes, "pairs": recall.pairs,
        "found": recall.found,
    }  # fmt: skip
    return replace(result, reason=reason, recall=measured)


def group_findings(
    check: DuplicatesCheck,
    context: CheckContext,
    pairs: NDArray[np.int64],
    values: NDArray[np.float64],
) -> list[Finding]:
    """Return a finding per group, largest first; its value is the lowest correlation of a pair."""
    sets = DisjointSets(len(context.dataset))
    sets.merge(pairs)
    root = sets.roots()
    lowest: dict[int, float] = {}
    for row, value in zip(root[pairs[:, 0]].tolist(), values.tolist(), strict=True):
        lowest[row] = min(value, lowest.get(row, value))
    found = [
        check.finding(context, rows, check.sentence.format(n=len(rows)), value=lowest[int(rows[0])])
        for rows in sets.groups()
    ]
    return sorted(found, key=lambda finding: (-len(finding.rows), finding.rows))


class IdenticalFiles(DuplicatesCheck):
    """Files with the same content under several names."""

    code = "KS301"
    title = "Identical files"
    severity = "warning"
    advice = "Keep one file of each group."
    kind = "identical"
    sentence = "These {n} files are identical, byte for byte."


class ReencodedCopies(DuplicatesCheck):
    """The same image at another quality, in another format or size, or darker or brighter."""

    code = "KS302"
    title = "Re-encoded copies"
    severity = "warning"
    advice = "Keep the best file of each group, or give its files one group for the split."
    kind = "reencoded"
    sentence = "These {n} files show the same image at another quality, format or size."


class RotatedCopies(DuplicatesCheck):
    """The same image rotated or mirrored, such as augmented copies saved as files."""

    code = "KS303"
    title = "Rotated or mirrored copies"
    severity = "warning"
    advice = "Keep the original and use augmentation in training."
    kind = "rotated"
    sentence = "These {n} files show the same image, rotated or mirrored."


class NearDuplicates(DuplicatesCheck):
    """Photographs of one burst, frames of one video, or slightly cropped copies."""

    code = "KS304"
    title = "Near-duplicates"
    severity = "warning"
    advice = (
        "For a random split, kindsight train --group-near-duplicates keeps each group in one split."
    )
    kind = "near"
    sentence = "These {n} images are near-duplicates: a burst, or slightly cropped copies."


class Crops(DuplicatesCheck):
    """An image and a crop of it, found by similar features."""

    code = "KS305"
    title = "Crops of other images"
    severity = "warning"
    cost = "full"
    advice = "Keep one image of each group, or give its images one group for the split."
    sentence = "These {n} images overlap: one is a crop of another."

    def run(self, context: CheckContext) -> CheckResult:
        """Report the groups of crops."""
        if context.features is None:
            return self.not_applicable("There are no features of these images.")
        if not len(context.readable_rows):
            return self.not_applicable("No image can be read.")
        pairs, values = find_crops(context)
        return self.result(group_findings(self, context, pairs, values), len(context.features.rows))


def find_crops(context: CheckContext) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the pairs of images of which one is a crop of the other, other duplicates excluded.

    Returns
    -------
    pairs : int64 array (m, 2)
        Rows of the dataset.
    values : float64 array (m,)
        Correlation of each pair, 0 to 1.
    """
    return context.cached("crops", lambda: _find(context, find_duplicates(context)))


def nearest_pairs(
    vectors: Vectors,
    neighbours: int,
    minimum: float,
    blocks: Sequence[slice] = (),
    seed: int = 0,
) -> NDArray[np.int64]:
    """Return pairs of nearest neighbours by cosine similarity of their principal components.

    More than 4,000 images are not compared with all others: each image belongs to the eight
    nearest of about 2 sqrt(n) random centres, and only images with a common centre are compared
    (an inverted file, as in Jegou, Douze and Schmid 2011, "Product quantization for nearest
    neighbor search"). The time grows as n ** 1.5.

    - `vectors`: features, (n, width); read in blocks.
    - `neighbours`: neighbours per image.
    - `minimum`: minimum cosine similarity.
    - `blocks`: as for :func:`kindsight.checks.context.principal_components`.
    - `seed`: seed of the components and centres.

    Returns
    -------
    int64 array (m, 2)
        Distinct pairs, the first index less than the second.
    """
    if len(vectors) < 2:
        return np.empty((0, 2), np.int64)
    n = len(vectors)
    # On small matrices, BLAS threads spend more time waiting than computing.
    with threadpool_limits(1 if n <= EXACT_UP_TO else None, user_api="blas"):
        unit = _unit_components(vectors, blocks, seed)
        clusters = [np.arange(n)] if n <= EXACT_UP_TO else _clusters(unit, seed)
        gathered = _Nearest(n, neighbours * n)
        for members in clusters:
            gathered.add(*_pairs_within(unit, members, neighbours, minimum))
    return gathered.pairs()


class _Nearest:
    """Distinct pairs of neighbours; of too many, those of the highest similarity."""

    def __init__(self, n: int, at_most: int) -> None:
        self._n, self._at_most = n, at_most
        self._codes, self._cosines = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        self._waiting = 0

    def add(self, pairs: NDArray[np.int64], cosines: NDArray[np.float32]) -> None:
        self._codes.append(pairs.min(axis=1) * self._n + pairs.max(axis=1))
        self._cosines.append(cosines)
        self._waiting += len(pairs)
        if self._waiting > WAITING_PAIRS:
            self._reduce()

    def _reduce(self) -> None:
        codes, first = np.unique(np.concatenate(self._codes), return_index=True)
        cosines = np.concatenate(self._cosines)[first]
        if len(codes) > self._at_most:
            best = np.sort(np.argsort(-cosines, kind="stable")[: self._at_most])
            codes, cosines = codes[best], cosines[best]
        self._codes, self._cosines, self._waiting = [codes], [cosines], 0

    def pairs(self) -> NDArray[np.int64]:
        """Return the pairs in ascending order, int64 (m, 2)."""
        self._reduce()
        return np.stack(np.divmod(self._codes[0], self._n), axis=1)


def _find(
    context: CheckContext, duplicates: Duplicates
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    assert context.features is not None
    rows, vectors = context.features
    sets = DisjointSets(len(context.dataset))
    for pairs in duplicates.pairs.values():
        sets.merge(pairs)
    likely = rows[nearest_pairs(vectors, NEIGHBOURS, MIN_COSINE, context.feature_blocks)]
    sizes = np.stack((context.measurements.height, context.measurements.width), axis=1)
    found, values = [np.empty((0, 2), np.int64)], [np.empty(0)]
    with single_threaded_opencv():
        for at in range(0, len(likely), BATCH):
            some = likely[at : at + BATCH]
            some = some[sets.separate(some)]
            if not len(some):
                continue
            different, index = np.unique(some, return_inverse=True)
            small = context.measurements.small_images(different)[index].reshape(-1, 2, 64, 64)
            size = [[(int(h), int(w)) for h, w in pair] for pair in sizes[some]]

            def compare(i: int, small=small, size=size) -> float:  # type: ignore[no-untyped-def]
                (one, other), (one_size, other_size) = small[i], size[i]
                first = crop_similarity(one, other, one_size, other_size)
                if first >= MIN_CORRELATION:
                    return first
                return crop_similarity(other, one, other_size, one_size)

            value = np.fromiter(map_ordered(compare, range(len(some)), count_cores()), np.float64)
            confirmed = value >= MIN_CORRELATION
            sets.merge(some[confirmed])
            found.append(some[confirmed])
            values.append(value[confirmed])
    return np.concatenate(found), np.concatenate(values)


def _unit_components(vectors: Vectors, blocks: Sequence[slice], seed: int) -> NDArray[Any]:
    half = len(vectors) > HALF_PRECISION_FROM
    dtype = np.float16 if half else np.float32
    space = principal_components(vectors, blocks, COMPONENTS, seed, dtype=dtype)
    sample = space if not half else space[:: len(space) // HALF_PRECISION_FROM].astype(np.float32)
    scale = np.sqrt(sample.std(axis=0)) + np.float32(1e-6)
    for at in range(0, len(space), BLOCK):
        some = space[at : at + BLOCK].astype(np.float32) / scale
        some /= np.linalg.norm(some, axis=1, keepdims=True) + np.float32(1e-9)
        space[at : at + BLOCK] = some
    return space


def _clusters(unit: NDArray[Any], seed: int) -> list[NDArray[np.int64]]:
    """Return the members of each centre's cluster."""
    n = len(unit)
    count = int(2 * np.sqrt(n))
    centres = unit[np.sort(random_stream.permutation(seed, "check centres", 0, n)[:count])]
    centres = centres.astype(np.float32)
    nearest = np.empty((n, CLUSTERS_PER_IMAGE), np.int32)
    for at in range(0, n, BLOCK):
        cosine = unit[at : at + BLOCK].astype(np.float32) @ centres.T
        order = np.argpartition(-cosine, CLUSTERS_PER_IMAGE, axis=1)
        nearest[at : at + BLOCK] = order[:, :CLUSTERS_PER_IMAGE]
    order = np.argsort(nearest.reshape(-1), kind="stable")
    bounds = np.cumsum(np.bincount(nearest.reshape(-1), minlength=count))[:-1]
    return [members // CLUSTERS_PER_IMAGE for members in np.split(order, bounds)]


def _pairs_within(
    unit: NDArray[Any], members: NDArray[np.int64], neighbours: int, minimum: float
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the pairs of nearest neighbours among some images, and their cosine similarity."""
    found, cosines = [np.empty((0, 2), np.int64)], [np.empty(0, np.float32)]
    k = min(neighbours, len(members) - 1)
    inside = unit[members].astype(np.float32)
    for at in range(0, len(members) if k > 0 else 0, BLOCK):
        cosine = inside[at : at + BLOCK] @ inside.T
        rows = np.arange(len(cosine))
        cosine[rows, at + rows] = -2.0
        best = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
        values = np.take_along_axis(cosine, best, axis=1)
        row, column = np.nonzero(values >= minimum)
        found.append(np.stack((members[at + row], members[best[row, column]]), axis=1))
        cosines.append(values[row, column])
    return np.concatenate(found), np.concatenate(cosines)
