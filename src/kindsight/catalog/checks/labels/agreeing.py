"""What the copies of a picture agree on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from kindsight.catalog.catalog import Catalog

__all__ = ["label_of_most"]


def label_of_most(catalog: Catalog, rows: Sequence[int]) -> str | None:
    """Return the label that more than half of the rows have; None where none has."""
    label, n = Counter(catalog.label[row] for row in rows).most_common(1)[0]
    return label if 2 * n > len(rows) else None
