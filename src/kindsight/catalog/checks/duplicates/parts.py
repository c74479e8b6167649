"""KS305: pictures that are a part of another one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import CheckResult
from kindsight.catalog.checks.duplicates.copies import Copies, find_copies
from kindsight.catalog.checks.duplicates.found import CopiesCheck, group_findings
from kindsight.catalog.checks.duplicates.groups import Groups
from kindsight.catalog.checks.duplicates.neighbours import nearest_pairs
from kindsight.catalog.checks.duplicates.registration import likeness_of_part
from kindsight.threads import count_cores, map_ordered, single_threaded_opencv

__all__ = ["PartsOfOthers", "find_parts"]

# Neighbours by features that are looked at for each picture, and how alike they must be. Parts of
# 56 to 72% of the area have 0.17 and more in sign-digits, 0.55 in cats-dogs.
NEIGHBOURS = 10
FEATURES = 0.12

# The same close look as for bursts.
CLOSE = 0.9

BATCH = 512


class PartsOfOthers(CopiesCheck):
    """A picture and a piece cut out of it, found by the network's features."""

    code = "KS305"
    title = "Parts of other pictures"
    severity = "warning"
    cost = "full"
    advice = "Keep one of each, or put them into one group."
    sentence = "These {n} pictures show the same: one is a part of another, or taken again."

    def run(self, context: CheckContext) -> CheckResult:
        """Look for parts."""
        if context.features is None:
            return self.not_applicable("There are no features of these pictures.")
        if not len(context.readable_rows):
            return self.not_applicable("No picture can be read.")
        pairs, values = find_parts(context)
        return self.result(group_findings(self, context, pairs, values), len(context.features.rows))


def find_parts(context: CheckContext) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find pairs of pictures of which one is a part of the other, and not linked as copies.

    Returns
    -------
    pairs : int64 array (m, 2)
        Rows of the catalog.
    values : float64 array (m,)
        How alike they are, 0 to 1.
    """
    return context.once("parts", lambda: _find(context, find_copies(context)))


def _find(context: CheckContext, copies: Copies) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    assert context.features is not None
    rows, vectors = context.features
    linked = Groups(len(context.catalog))
    for pairs in copies.pairs.values():
        linked.join(pairs)
    likely = rows[nearest_pairs(vectors, NEIGHBOURS, FEATURES, context.feature_blocks)]
    sizes = np.stack((context.measurements.height, context.measurements.width), axis=1)
    kept, values = [np.empty((0, 2), np.int64)], [np.empty(0)]
    with single_threaded_opencv():
        for at in range(0, len(likely), BATCH):
            some = likely[at : at + BATCH]
            some = some[linked.apart(some)]
            if not len(some):
                continue
            different, where = np.unique(some, return_inverse=True)
            small = context.measurements.small(different)[where].reshape(-1, 2, 64, 64)
            size = [[(int(h), int(w)) for h, w in pair] for pair in sizes[some]]

            def look(i: int, small=small, size=size) -> float:  # type: ignore[no-untyped-def]
                (one, other), (here, there) = small[i], size[i]
                first = likeness_of_part(one, other, here, there)
                return first if first >= CLOSE else likeness_of_part(other, one, there, here)

            close = np.fromiter(map_ordered(look, range(len(some)), count_cores()), np.float64)
            good = close >= CLOSE
            linked.join(some[good])
            kept.append(some[good])
            values.append(close[good])
    return np.concatenate(kept), np.concatenate(values)
