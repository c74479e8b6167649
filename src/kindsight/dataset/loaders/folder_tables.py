"""The tables and arrays in a folder: those of its splits, or one with the labels of its images."""

from __future__ import annotations

import os

from kindsight.dataset.loaders.csv_table import ARRAY_ENDINGS, is_file_of_images
from kindsight.dataset.loaders.folders import Tree
from kindsight.dataset.loaders.from_names import loose_role, role_of, split_roles
from kindsight.dataset.loaders.tables import from_table
from kindsight.dataset.loaders.values import NoLabelsError
from kindsight.dataset.names import (
    n_images,
    quoted,
    quoted_list,
    why_folder_is_ignored,
    why_name_is_ignored,
)
from kindsight.dataset.options import DataOptions
from kindsight.dataset.table import SPLITS, ImageDataset
from kindsight.errors import DatasetError

__all__ = ["data_files", "find_split_files", "folder_of_tables", "open_table_of_labels"]


def data_files(folder: str) -> list[str]:
    """Return the names of the tables and arrays in a folder."""
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208
    except (OSError, ValueError):
        return []
    return [
        name
        for name in names
        if is_file_of_images(name) and why_name_is_ignored(name) != "hidden file"
    ]


_MOST_WRAPPERS = 8


def folder_of_tables(folder: str) -> str:
    """Return the folder with tables: `folder`, or its only subfolder, as in unpacked archives."""
    inner = folder
    for _ in range(_MOST_WRAPPERS):
        if data_files(inner):
            return inner
        try:
            with os.scandir(inner) as entries:
                names = [
                    entry.name for entry in entries if why_folder_is_ignored(entry.name) is None
                ]
        except (OSError, ValueError):
            break
        if len(names) != 1:
            break
        inner = os.path.join(inner, names[0])  # noqa: PTH118
    return folder


def find_split_files(folder: str) -> dict[str | None, str]:
    """Return the tables or arrays in a folder that are its splits: split -> path."""
    stems = {name: name.rpartition(".")[0] for name in data_files(folder)}
    every = set(stems.values())
    roles = split_roles(every) or split_roles(stem for stem in every if role_of(stem))
    if roles is None:
        return {}
    found: dict[str | None, str] = {}
    for split in SPLITS:
        names = [name for name, stem in stems.items() if roles.get(stem) == split]
        if len(names) > 1:
            raise DatasetError(
                f"{quoted(folder)} has several tables for the {split} split: {quoted_list(names)}. "
                "Give the path of one table."
            )
        found.update((split, os.path.join(folder, name)) for name in names)  # noqa: PTH118
    return found


def open_table_of_labels(folder: str, options: DataOptions, tree: Tree) -> ImageDataset | None:
    """Open the only table in a folder that gives labels to images; None if there is none.

    A competition's folder has such a table beside the folders of images.
    """
    found: dict[str, ImageDataset] = {}
    for name in data_files(folder):
        if name.lower().endswith(ARRAY_ENDINGS) or "submission" in name.lower():
            continue
        try:
            found[name] = from_table(os.path.join(folder, name), options)  # noqa: PTH118
        except NoLabelsError:
            continue
    roles = {name: loose_role(name.rpartition(".")[0]) for name in found}
    if len(found) > 1 and list(roles.values()).count("train") == 1:
        found = {name: dataset for name, dataset in found.items() if roles[name] == "train"}
    if len(found) > 1:
        raise DatasetError(
            f"{quoted(folder)} has several tables with labels of images: "
            f"{quoted_list(tuple(found))}. Give the path of one table."
        )
    if not found:
        return None
    ((name, dataset),) = found.items()
    every = {
        f"{parent}/{file}".lstrip("/") for parent, files, _ in tree.listings for file, _ in files
    }
    rest = sorted(every.difference(dataset.path))
    notes = [f"The labels are those of the table {quoted(name)}."]
    if rest:
        notes.append(
            f"Not in {quoted(name)}: {n_images(len(rest))}, such as {quoted(rest[0])}. Images "
            "without labels are for 'kindsight predict'."
        )
    return dataset.with_notes(*notes)
