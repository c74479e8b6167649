"""Counting the pictures of classes, as the checks of balance do."""

from __future__ import annotations

from collections.abc import Collection

from kindsight.catalog.checks.context import CheckContext

__all__ = ["learnable_counts"]


def learnable_counts(
    context: CheckContext, splits: Collection[str | None] | None = None
) -> dict[str, int]:
    """Return how many different pictures of each class can be read; of those in some splits.

    Parameters
    ----------
    context : CheckContext
    splits : collection of (str or None), optional
        Only rows of these splits are counted; all if omitted.

    Returns
    -------
    dict of str to int
        In the order of the catalog's classes; empty where nothing has a label. Byte-identical
        pictures of one class count once.
    """
    catalog = context.catalog
    found: dict[str, set[str]] = {name: set() for name in catalog.present_classes()}
    for row in context.readable_rows.tolist():
        label = catalog.label[row]
        if label is not None and (splits is None or catalog.split[row] in splits):
            found[label].add(catalog.digest[row] or catalog.path[row])
    return {name: len(digests) for name, digests in found.items()}
