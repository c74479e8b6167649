"""Leaks: pictures of one part of which another part has copies, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kindsight.catalog.catalog import SPLITS, Catalog
from kindsight.catalog.names import pictures, shown_list
from kindsight.errors import CatalogError

__all__ = ["LEAKS", "Leaks", "mend_leaks"]

LEAKS = ("drop", "move", "keep")
"""``drop``: a picture stays in the last part that has it, test before validation before train;
``move``: in the first one; ``keep``: in all of them."""


@dataclass(frozen=True)
class Leaks:
    """What was found, and what was done.

    Parameters
    ----------
    how : str
        One of :data:`LEAKS`.
    groups : tuple of tuple of int
        Rows of pictures that are copies of each other and were in several parts.
    rows : tuple of int
        Those that were dropped or moved; with ``keep`` those that would have been dropped.
    leaking : tuple of int
        Rows of the validation and test part that are still there and have a copy in the training
        part.
    note : str
        What to say of it; empty where nothing was found.
    """

    how: str
    groups: tuple[tuple[int, ...], ...] = ()
    rows: tuple[int, ...] = ()
    leaking: tuple[int, ...] = ()
    note: str = ""

    def to_dict(self) -> dict[str, object]:
        """Return what ``kindsight train --json`` prints."""
        return {"how": self.how, "groups": len(self.groups), "pictures": len(self.rows)}


def mend_leaks(
    catalog: Catalog, groups: Iterable[Sequence[int]], how: str = "drop"
) -> tuple[Catalog, Leaks]:
    """Take copies that are in several parts out of all but one of them.

    Parameters
    ----------
    catalog : Catalog
        Divided.
    groups : iterable of sequence of int
        Rows of pictures that are copies, or nearly; groups that lie in one part are passed by.
    how : str
        One of :data:`LEAKS`.

    Returns
    -------
    catalog : Catalog
        Pictures that were dropped are in no part.
    leaks : Leaks

    Raises
    ------
    CatalogError
        If that would leave a class without a picture to train on.
    """
    torn: list[tuple[int, ...]] = []
    changed: list[int] = []
    split = list(catalog.split)
    for group in groups:
        rows = tuple(sorted(int(row) for row in group if catalog.split[int(row)] is not None))
        parts = [part for part in SPLITS if any(catalog.split[row] == part for row in rows)]
        if len(parts) < 2:
            continue
        torn.append(rows)
        stays = parts[0] if how == "move" else parts[-1]
        away = [row for row in rows if catalog.split[row] != stays]
        changed += away
        for row in away:
            split[row] = stays if how == "move" else None
    if not torn:
        return catalog, Leaks(how)
    if how == "keep":
        split = list(catalog.split)
    mended = catalog.with_columns(split=split)
    _check_training(catalog, mended, how)
    leaking = tuple(
        row
        for rows in torn
        if any(split[row] == "train" for row in rows)
        for row in rows
        if split[row] in ("validation", "test")
    )
    return mended, Leaks(how, tuple(torn), tuple(changed), leaking, _note(how, catalog, changed))


def _check_training(before: Catalog, after: Catalog, how: str) -> None:
    def trained(catalog: Catalog) -> set[str | None]:
        pairs = zip(catalog.label, catalog.split, strict=True)
        return {label for label, part in pairs if part == "train"}

    lost = sorted(str(label) for label in trained(before) - trained(after))
    if lost:
        raise CatalogError(
            "Every class must have pictures in the training part. Received: none of "
            f"{shown_list(lost)} left, as all of them have copies in the other parts and "
            f"leaks={how!r} takes them out. Add others, or use leaks='move' or 'keep'."
        )


def _note(how: str, catalog: Catalog, changed: list[int]) -> str:
    counts = {part: sum(catalog.split[row] == part for row in changed) for part in SPLITS if part}
    named = ", ".join(f"{pictures(n)} of the {part} part" for part, n in counts.items() if n)
    if how == "drop":
        return f"Left out, as a later part has the same or nearly the same: {named} (--leaks drop)."
    if how == "move":
        return f"Moved, to where the same or nearly the same picture is: {named} (--leaks move)."
    return (
        f"Kept in several parts, the same or nearly the same: {named}. Accuracy looks better than "
        "it is (--leaks keep)."
    )
