"""Folders without class folders: of tables called after splits, of pictures with telling names."""

from __future__ import annotations

import os
from collections import Counter
from itertools import takewhile

from kindsight.catalog.catalog import SPLITS, Catalog
from kindsight.catalog.folders import arrange
from kindsight.catalog.leave_out import leave_out
from kindsight.catalog.names import file_is_passed_over, pictures, shown, shown_list
from kindsight.catalog.readers.endings import is_file_of_pictures
from kindsight.catalog.roles import UNLABELLED, role_of, split_roles
from kindsight.catalog.sources import from_folder
from kindsight.catalog.tree import Tree
from kindsight.catalog.walk import walk
from kindsight.errors import CatalogError

__all__ = ["files_in", "folder_of_names", "split_files"]


def folder_of_names(name: str) -> Catalog:
    """Open a folder of pictures whose names hold their labels; its folders may be splits."""
    catalog = from_folder(name, labelled=False)
    folders = [path.split("/")[:-1] for path in catalog.path]
    pairs = zip(min(folders), max(folders), strict=False)
    depth = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    beyond = [parts[depth] if len(parts) > depth else "" for parts in folders]
    roles = split_roles(set(beyond))
    if roles is None:
        return catalog
    split = [roles[part] if roles[part] != UNLABELLED else None for part in beyond]
    catalog = catalog.with_columns(split=split)
    out = [row for row, part in enumerate(beyond) if roles[part] == UNLABELLED]
    if not out:
        return catalog
    note = f"Taken to be without labels, and so left out: {pictures(len(out))}."
    return leave_out(catalog, out, "picture to be predicted", note)


def files_in(folder: str) -> list[str]:
    """Return the names of tables and arrays that lie in a folder."""
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208
    except (OSError, ValueError):
        return []
    return [
        name
        for name in names
        if is_file_of_pictures(name) and file_is_passed_over(name) != "hidden file"
    ]


def split_files(folder: str) -> dict[str | None, str]:
    """Return the tables or arrays of a folder that are its splits: split -> path.

    Empty where there are none, or where the folder has class folders all the same.
    """
    stems = {name: name.rpartition(".")[0] for name in files_in(folder)}
    every = set(stems.values())
    roles = split_roles(every) or split_roles(stem for stem in every if role_of(stem))
    if roles is None:
        return {}
    arrangement = arrange(Tree.of(walk(folder, Counter())))
    if len({place.label for place in arrangement.places.values()}) > 1:
        return {}
    found: dict[str | None, str] = {}
    for part in SPLITS:
        names = [name for name, stem in stems.items() if roles.get(stem) == part]
        if len(names) > 1:
            raise CatalogError(
                f"A folder of tables must have one for each part. Received: {shown_list(names)} in "
                f"{shown(folder)}. Give the one that is meant."
            )
        found.update((part, os.path.join(folder, name)) for name in names)  # noqa: PTH118
    return found
