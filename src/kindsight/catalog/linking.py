"""Groups from what was found to belong together: near-duplicates, beside the groups given."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from kindsight.catalog.catalog import Catalog
from kindsight.catalog.units import connected

__all__ = ["link_groups"]

_DIGITS = 12


def link_groups(catalog: Catalog, links: Sequence[Hashable]) -> Catalog:
    """Return the same catalog with groups that also hold together what is linked.

    Groups that a link binds become one, under the name that comes first of theirs. A link between
    pictures without groups makes a group of them, called after the first of their digests: its
    name depends on which pictures there are, not on their order.

    Parameters
    ----------
    catalog : Catalog
        With digests where there are links without groups.
    links : sequence
        One value a row, equal where rows belong together; None where a row is not linked.

    Returns
    -------
    Catalog

    Raises
    ------
    ValueError
        If `links` has not one value a row.
    """
    if len(links) != len(catalog):
        raise ValueError(f"links must have {len(catalog)} rows. Received: {len(links)}")
    members: dict[int, list[int]] = {}
    for row, number in enumerate(connected(catalog.group, links).tolist()):
        members.setdefault(number, []).append(row)
    group = list(catalog.group)
    for rows in members.values():
        if len(rows) > 1:
            name = _name(catalog, rows)
            for row in rows:
                group[row] = name
    return catalog.with_columns(group=group)


def _name(catalog: Catalog, rows: list[int]) -> str:
    """Return the least group there is, or make one up that no group has by chance."""
    given = [group for row in rows if (group := catalog.group[row]) is not None]
    if given:
        return min(given)
    return "alike-" + min(catalog.digest[row] or catalog.path[row] for row in rows)[:_DIGITS]
