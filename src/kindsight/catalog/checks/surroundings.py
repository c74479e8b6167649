"""What lies in the data's folder beside the pictures of the catalog."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from kindsight.catalog.names import file_is_passed_over, folder_is_passed_over

__all__ = ["MAX_OTHERS", "OtherFile", "Surroundings", "look_around"]

MAX_OTHERS = 100_000
"""Files beside the pictures that are remembered; further ones are counted only."""


@dataclass(frozen=True)
class OtherFile:
    """A file in the data's folder that is not in the catalog.

    Parameters
    ----------
    path : str
        Relative to the data's folder, ``/`` between the parts.
    reason : str
        Why it was passed over, as in ``Catalog.passed_over``; ``"link"`` for every link; empty for
        a picture that the catalog leaves out for another reason.
    size : int
        Bytes.
    """

    path: str
    reason: str
    size: int


@dataclass(frozen=True)
class Surroundings:
    """What lies in the data's folder beside the pictures of the catalog.

    Parameters
    ----------
    others : tuple of OtherFile
        Files that are not in the catalog, sorted by path, hidden ones left out.
    folders : tuple of str
        All folders, also empty ones, relative to the data's folder.
    uncounted : int
        Files beyond :data:`MAX_OTHERS`.
    """

    others: tuple[OtherFile, ...] = ()
    folders: tuple[str, ...] = ()
    uncounted: int = 0


def look_around(root: str | os.PathLike[str], paths: Iterable[str]) -> Surroundings:
    """Look what lies in a folder beside the pictures of a catalog; links are not followed.

    Parameters
    ----------
    root : path
        The folder.
    paths : iterable of str
        The catalog's paths, relative to it.
    """
    known = set(paths)
    others: list[OtherFile] = []
    folders: list[str] = []
    uncounted = 0
    pending = [""]
    start = os.fspath(root)
    while pending:
        folder = pending.pop()
        try:
            entries = sorted(os.scandir(os.path.join(start, folder)), key=lambda e: e.name)  # noqa: PTH118
        except OSError:
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir(follow_symlinks=False):
                if folder_is_passed_over(entry.name) is None:
                    folders.append(path)
                    pending.append(path)
            elif path not in known and not entry.name.startswith("."):
                if len(others) >= MAX_OTHERS:
                    uncounted += 1
                    continue
                reason = "link" if entry.is_symlink() else file_is_passed_over(entry.name) or ""
                others.append(OtherFile(path, reason, _size(entry)))
    others.sort(key=lambda other: other.path)
    return Surroundings(tuple(others), tuple(sorted(folders)), uncounted)


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except OSError:
        return 0
