"""The parts of a catalog, as the checks of splits see them."""

from __future__ import annotations

from collections.abc import Iterable

from kindsight.catalog.catalog import SPLITS, Catalog

__all__ = ["NO_PARTS", "parts_of", "stated_parts"]

NO_PARTS = "The data state no parts."


def stated_parts(catalog: Catalog) -> tuple[str, ...]:
    """Return the parts that have pictures, in the order of their use."""
    present = set(catalog.split)
    return tuple(part for part in SPLITS if part in present)


def parts_of(catalog: Catalog, rows: Iterable[int]) -> tuple[str, ...]:
    """Return the parts that some rows are in, in the order of their use."""
    present = {catalog.split[row] for row in rows}
    return tuple(part for part in SPLITS if part in present)
