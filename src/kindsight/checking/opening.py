"""Opening data that may be faulty: what no classifier can be made of can still be checked."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from kindsight.catalog import Catalog, DataOptions, open_catalog
from kindsight.catalog.checks import Surroundings, look_around
from kindsight.catalog.names import pictures, shown
from kindsight.errors import CatalogError

__all__ = ["open_for_checking"]

UNLABELLED = "The pictures are not in class folders: they were checked without labels."

_LEFT_OUT = "Outside the class folders, and so left out"


def open_for_checking(
    data: str | os.PathLike[str], options: DataOptions | None = None
) -> tuple[Catalog, Surroundings | None]:
    """Make a catalog of data, and look what lies beside its pictures.

    Parameters
    ----------
    data : str or Path
        As for :func:`kindsight.catalog.open_catalog`. A folder of a single class is taken, and so
        is one without class folders; pictures outside of class folders are added without labels,
        which a note says.
    options : DataOptions, optional
        What the data do not say themselves.

    Returns
    -------
    catalog : Catalog
    surroundings : Surroundings or None
        None where the data are not a folder.

    Raises
    ------
    CatalogError
        If there are no pictures, or a table cannot be read.
    """
    try:
        catalog = open_catalog(data, options, min_classes=1)
    except CatalogError as error:
        if not Path(data).is_dir() or (options is not None and options.label_from):
            raise
        try:
            catalog = open_catalog(data, options, labelled=False).with_notes(UNLABELLED)
        except CatalogError:
            raise error from None
    if not Path(data).is_dir() or catalog.root is None or catalog.arrays is not None:
        return catalog, None
    surroundings = look_around(catalog.root, catalog.path)
    return _with_outsiders(catalog, surroundings), surroundings


def _with_outsiders(catalog: Catalog, surroundings: Surroundings) -> Catalog:
    """Add the pictures that the catalog leaves out because they are in no class folder."""
    outside = [other for other in surroundings.others if not other.reason]
    if not outside:
        return catalog
    more = len(outside)
    whole = replace(
        catalog,
        path=(*catalog.path, *(other.path for other in outside)),
        label=(*catalog.label, *(None,) * more),
        split=(*catalog.split, *(None,) * more),
        group=(*catalog.group, *(None,) * more),
        digest=(*catalog.digest, *(None,) * more),
        size=(*catalog.size, *(other.size for other in outside)),
        notes=tuple(note for note in catalog.notes if not note.startswith(_LEFT_OUT)),
    )
    return whole.with_notes(
        f"Outside the class folders, and checked without labels: {pictures(more)}, the first of "
        f"them {shown(outside[0].path)}."
    )
