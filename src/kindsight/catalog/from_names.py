"""Labels and groups that stand in the names of the files."""

from __future__ import annotations

from dataclasses import replace

from kindsight.catalog.catalog import Catalog
from kindsight.catalog.leave_out import leave_out
from kindsight.catalog.name_pattern import NamePattern
from kindsight.catalog.names import pictures, shown
from kindsight.catalog.options import DataOptions
from kindsight.catalog.spelling import check_spelling, class_order
from kindsight.errors import CatalogError

__all__ = ["groups_from_names", "labels_from_names", "with_names"]


def labels_from_names(catalog: Catalog, pattern: str) -> Catalog:
    """Take the labels from the names; pictures in whose names there is none are left out.

    Parameters
    ----------
    catalog : Catalog
        Of files.
    pattern : str
        As in :class:`NamePattern`; the group is called ``label``.

    Raises
    ------
    CatalogError
        If no name matches.
    """
    labels = _found(catalog, NamePattern(pattern, "label"), "labels")
    check_spelling(labels, lambda row: shown(catalog.path[row]))
    labelled = replace(catalog, label=tuple(labels), classes=class_order(labels))
    missing = [row for row, label in enumerate(labels) if label is None]
    if not missing:
        return labelled
    note = (
        f"Without a label in the name, and so left out: {pictures(len(missing))}, the first of "
        f"them {shown(catalog.path[missing[0]])}."
    )
    return leave_out(labelled, missing, "name without a label", note)


def groups_from_names(catalog: Catalog, pattern: str) -> Catalog:
    """Take the groups from the names; a picture in whose name there is none is none's.

    Parameters
    ----------
    catalog : Catalog
        Of files.
    pattern : str
        As in :class:`NamePattern`; the group is called ``group``.

    Raises
    ------
    CatalogError
        If no name matches.
    """
    groups = _found(catalog, NamePattern(pattern, "group"), "groups")
    missing = [row for row, group in enumerate(groups) if group is None]
    grouped = catalog.with_columns(group=groups)
    if not missing:
        return grouped
    return grouped.with_notes(
        f"Without a group in the name, and so each for itself: {pictures(len(missing))}, the first "
        f"of them {shown(catalog.path[missing[0]])}."
    )


def with_names(catalog: Catalog, options: DataOptions, *, labelled: bool = True) -> Catalog:
    """Take from the names whatever the options say is in them.

    Raises
    ------
    CatalogError
        If no name matches, or the pictures have none.
    """
    if labelled and options.label_from is not None:
        catalog = labels_from_names(catalog, options.label_from)
    if labelled and options.group_from is not None:
        catalog = groups_from_names(catalog, options.group_from)
    return catalog


def _found(catalog: Catalog, pattern: NamePattern, what: str) -> list[str | None]:
    if catalog.arrays is not None:
        raise CatalogError(
            f"Only files have names that can hold {what}. Received: pictures in memory, and the "
            f"pattern {pattern.text!r}. Leave the pattern out."
        )
    found = [pattern.find(path) for path in catalog.path]
    if not any(found):
        raise CatalogError(
            f"A pattern on names must match some of them. Received: {pattern.text!r}, which finds "
            f"none of the {what} of {pictures(len(found))}; the first is {shown(catalog.path[0])}."
        )
    return found
