"""Which files of a class folder are pictures, in Keras's order; and which are left out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kindsight.preprocessing._traps import warn_of

__all__ = ["ClassFolder", "find_classes", "list_class", "warn_of_files"]

Path = str  # Keras joins names as strings, and so its users compare them
_EXAMPLES = 3


@dataclass
class ClassFolder:
    """The files of one class.

    Parameters
    ----------
    names : list of str
        Relative to the folder that holds the class folders, sorted by folder and name.
    skipped : list of str
        Files of other kinds, in the same way; files of the system are not among them.
    """

    names: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)


def find_classes(directory: Any) -> list[str]:
    """List the folders in a folder, sorted."""
    return sorted(
        name for name in os.listdir(directory) if os.path.isdir(os.path.join(directory, name))
    )


def list_class(
    directory: Any,
    name: str,
    formats: tuple[str, ...],
    split: tuple[float, float] | None,
    follow_links: bool,
) -> ClassFolder:
    """List the pictures of a class folder and of the folders in it.

    Parameters
    ----------
    directory : path
        What holds the class folders.
    name : str
        The class folder.
    formats : tuple of str
        Endings that count, in small letters.
    split : pair of float, optional
        From and to which share of them to take.
    follow_links : bool
        Whether to go into folders that are links.
    """
    folder = os.path.join(directory, name)
    found = ClassFolder()
    walk = sorted(os.walk(folder, followlinks=follow_links), key=lambda step: step[0])
    for root, _, files in walk:
        inner = os.path.relpath(root, folder)
        for file in sorted(files):
            path = os.path.normpath(os.path.join(name, inner, file))
            if file.lower().endswith(formats):
                found.names.append(path)
            elif not _of_the_system(file):
                found.skipped.append(path)
    if split is not None:
        count = len(found.names)
        found.names = found.names[int(split[0] * count) : int(split[1] * count)]
    return found


def warn_of_files(
    directory: Any, folders: Sequence[tuple[str, ClassFolder]], formats: tuple[str, ...]
) -> None:
    """Warn of files that were left out, and of folders that are hardly classes."""
    directory = os.fspath(directory)
    skipped = [path for _, folder in folders for path in folder.skipped]
    if skipped:
        warn_of(
            "skipped-files",
            about=directory,
            count=len(skipped),
            folder=directory,
            examples=_some(skipped),
            formats=", ".join(formats),
        )
    hidden = [name for name, _ in folders if os.path.basename(name).startswith((".", "__"))]
    if hidden:
        why = "their names are those of a program's own folders"
        warn_of(
            "odd-classes",
            about=f"hidden {directory}",
            folder=directory,
            why=why,
            examples=_some(hidden),
        )
    empty = [name for name, folder in folders if not folder.names and name not in hidden]
    if empty:
        why = "they hold no pictures"
        warn_of(
            "odd-classes",
            about=f"empty {directory}",
            folder=directory,
            why=why,
            examples=_some(empty),
        )
    bands = [path for _, folder in folders for path in folder.names if _is_tiff(path)]
    if bands:
        warn_of("several-bands", about=directory, examples=_some(bands))


def _of_the_system(name: str) -> bool:
    return name.startswith(".") or name in ("Thumbs.db", "desktop.ini")


def _is_tiff(path: str) -> bool:
    return path.lower().endswith(".tiff")


def _some(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _EXAMPLES else ""
    return ", ".join(names[:_EXAMPLES]) + more
