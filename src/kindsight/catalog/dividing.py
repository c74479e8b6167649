"""Dividing a catalog in one call: read, found alike, divided, without leaks."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from kindsight.cache import Cache
from kindsight.catalog.catalog import Catalog
from kindsight.catalog.checks import CheckContext, measure_catalog
from kindsight.catalog.checks.duplicates.copies import find_copies
from kindsight.catalog.division import Division
from kindsight.catalog.names import pictures, shown
from kindsight.errors import CatalogError, SettingsError

__all__ = ["divide_catalog"]


def divide_catalog(
    catalog: Catalog,
    *,
    workers: int | None = None,
    cache: Cache | None = None,
    progress: Callable[[int, int], None] | None = None,
    **division: Any,
) -> Catalog:
    """Divide a catalog as ``kindsight train`` does, into parts that do not leak.

    Each picture is read once, to know what it looks like; what is known of it is kept in the cache,
    so that a second division reads none of them. Parts that the catalog states are respected.

    Parameters
    ----------
    catalog : Catalog
        With labels. Splits and groups are used where there are any.
    workers : int, optional
        How many pictures are read at once; the number of cores if omitted.
    cache : Cache, optional
        Where measurements are kept; this machine's if omitted.
    progress : callable, optional
        Called with (done, total) while pictures are read.
    **division
        As in :class:`kindsight.catalog.division.Division`: validation, test, seed, by, fold, file,
        group_near, leaks.

    Returns
    -------
    Catalog
        The same rows, with splits and digests. In no part are pictures that cannot be read, that
        a file excludes, and that leak, as the notes say; ``ImageClassifier.fit`` passes them over.

    Raises
    ------
    SettingsError
        If the settings cannot be.
    CatalogError
        If the pictures cannot be divided so, or none can be read.
    """
    if isinstance(division.get("file"), os.PathLike):
        division["file"] = os.fspath(division["file"])
    chosen = Division(**division)
    if faults := chosen.faults():
        raise SettingsError("\n".join(faults))
    measured, measurements = measure_catalog(
        catalog, cache or Cache(), workers=workers, progress=progress
    )
    context = CheckContext(measured, measurements)
    rows = context.readable_rows
    if not len(rows):
        raise CatalogError(
            "There must be a picture that can be read. Received: "
            f"{pictures(len(catalog))}, of which none can."
        )
    places: dict[int, int] = {row: place for place, row in enumerate(rows.tolist())}
    copies = [[places[row] for row in group.tolist()] for group in find_copies(context).groups()]

    def taken() -> np.ndarray[Any, Any]:
        return np.asarray(measurements.taken, np.float64)[rows]

    divided, _ = chosen.without_leaks(measured[rows], copies, taken)
    split: list[str | None] = [None] * len(measured)
    group = list(measured.group)
    for place, row in enumerate(rows.tolist()):
        split[row], group[row] = divided.split[place], divided.group[place]
    whole = measured.with_columns(split=split, group=group).with_notes(*divided.notes)
    lost = [row for row in range(len(measured)) if row not in places]
    if not lost:
        return whole
    return whole.with_notes(
        f"In no part, as they cannot be read: {pictures(len(lost))}, the first of them "
        f"{shown(measured.path[lost[0]])}."
    )
