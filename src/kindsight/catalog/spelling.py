"""How labels are spelled: which are slips of one another, and in what order they stand."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence

from kindsight.catalog.names import shown
from kindsight.errors import CatalogError

__all__ = ["WHOLE", "check_spelling", "class_order"]

WHOLE = re.compile(r"[+-]?\d{1,18}")
"""A whole number as text."""


def check_spelling(labels: Sequence[str | None], place: Callable[[int], str]) -> None:
    """Refuse labels that differ only by case, blanks, or how accents are written.

    Single characters may differ by case: they are letters, which differ.

    Parameters
    ----------
    labels : sequence of (str or None)
        Of all rows.
    place : callable
        Says where row i is, for the message.

    Raises
    ------
    CatalogError
        Naming the spellings, how often they occur, and where first.
    """
    first: dict[str, int] = {}
    count: dict[str, int] = {}
    for row, label in enumerate(labels):
        if label is not None:
            first.setdefault(label, row)
            count[label] = count.get(label, 0) + 1
    alike: dict[str, list[str]] = {}
    for label in first:
        alike.setdefault(_plain(label), []).append(label)
    for names in alike.values():
        if len(names) == 1 or all(len(name) == 1 for name in names):
            continue
        names.sort(key=lambda name: -count[name])
        said = ", ".join(
            f"{shown(name)} ({count[name]:,}, the first in {place(first[name])})" for name in names
        )
        raise CatalogError(
            f"Labels must differ by more than case and blanks. Received: {said}. Spell them alike."
        )


def _plain(label: str) -> str:
    """Return what is left of a label without case, superfluous blanks and ways to write accents."""
    return " ".join(unicodedata.normalize("NFC", label).casefold().split())


def class_order(labels: Iterable[str | None]) -> tuple[str, ...]:
    """Return the different labels in order: numbers by their value, others by code point."""
    different = {label for label in labels if label is not None}
    if different and all(WHOLE.fullmatch(label) for label in different):
        return tuple(sorted(different, key=lambda label: (int(label), label)))
    return tuple(sorted(different))
