"""Leaving rows out of a catalog: counted by reason, said in a note, never in silence."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from kindsight.catalog.catalog import Catalog

__all__ = ["leave_out"]


def leave_out(catalog: Catalog, rows: Collection[int], reason: str, note: str) -> Catalog:
    """Return a catalog without some of its rows.

    Parameters
    ----------
    catalog : Catalog
        Of which a part is kept.
    rows : collection of int
        The rows that go.
    reason : str
        What they are counted as in ``passed_over``.
    note : str
        The sentence that says so.
    """
    gone = set(rows)
    kept = catalog[[row for row in range(len(catalog)) if row not in gone]]
    counted = dict(kept.passed_over)
    counted[reason] = counted.get(reason, 0) + len(gone)
    return replace(kept, passed_over=dict(sorted(counted.items()))).with_notes(note)
