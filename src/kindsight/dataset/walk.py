"""Walk a folder: its image files, and what is ignored.

A link to a file counts if its target is inside the walked folder; links to outside are ignored.
Links to folders are never followed: their targets inside are found anyway, no image is counted
twice, and the walk cannot loop.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from kindsight.dataset.names import why_file_is_ignored, why_folder_is_ignored

__all__ = ["Listing", "walk"]

_JUNCTION = 0xA0000003  # IO_REPARSE_TAG_MOUNT_POINT: a link to a folder on Windows


class Listing(NamedTuple):
    """The image files of one folder."""

    folder: str  # path relative to the walked folder, with ``/``; ``""`` for that folder itself
    # image files directly in this folder, sorted by name; sizes in bytes
    files: list[tuple[str, int]]


def walk(root: str, ignored: Counter[str]) -> Iterator[Listing]:
    """Yield every folder below `root` with its image files; parents come before children.

    - `root`: the folder; it may be a link.
    - `ignored`: counts ignored files and folders by reason; updated during the walk.

    Yields
    ------
    Listing
        Also for folders without images. Folders and files are sorted by code point, so the order is
        the same on every machine.

    Raises
    ------
    OSError
        If `root` cannot be listed. Unreadable folders below are counted in `ignored`.
    """
    inside = os.path.realpath(root).rstrip(os.sep) + os.sep
    start = root if root.endswith(("/", os.sep)) else root + os.sep
    pending = [""]
    while pending:
        folder = pending.pop()
        path = start + folder.replace("/", os.sep) if folder else root
        try:
            files, folders = _scan(path, inside, ignored)
        except OSError:
            if not folder:
                raise
            ignored["unreadable folder"] += 1
            continue
        yield Listing(folder, files)
        prefix = folder + "/" if folder else ""
        pending.extend(prefix + name for name in sorted(folders, reverse=True))


def _scan(path: str, inside: str, ignored: Counter[str]) -> tuple[list[tuple[str, int]], list[str]]:
    """Return one folder's images (name, size), sorted, and its folders to walk."""
    files: list[tuple[str, int]] = []
    folders: list[str] = []
    with os.scandir(path) as entries:
        for entry in entries:
            is_link = entry.is_symlink()
            if not is_link and entry.is_dir(follow_symlinks=False):
                reason = why_folder_is_ignored(entry.name) or _why_junction_is_ignored(entry)
                if reason is None:
                    folders.append(entry.name)
            else:
                reason = why_file_is_ignored(entry.name)
                if is_link and reason != "hidden file":
                    reason = _why_link_is_ignored(entry, inside) or reason
                if reason is None:
                    size = _size(entry)
                    if size is None:
                        reason = "not a regular file"
                    else:
                        files.append((entry.name, size))
            if reason is not None:
                ignored[reason] += 1
    files.sort()
    return files, folders


def _why_link_is_ignored(entry: os.DirEntry[str], inside: str) -> str | None:
    try:
        mode = entry.stat().st_mode
    except OSError:
        return "broken link"
    target = os.path.realpath(entry.path)
    if not (target + os.sep).startswith(inside):
        return "link to outside the folder"
    return "link to a folder" if stat.S_ISDIR(mode) else None


def _size(entry: os.DirEntry[str]) -> int | None:
    """Return a file's size in bytes; None for pipes and devices, whose reading may hang."""
    try:
        status = entry.stat()
    except OSError:
        return 0  # deleted or forbidden by now: reading it gives the error
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _why_junction_is_ignored(entry: os.DirEntry[str]) -> str | None:
    """Detect links to folders on Windows that Python does not report as links."""
    if os.name != "nt":
        return None
    tag = getattr(entry.stat(follow_symlinks=False), "st_reparse_tag", 0)
    return "link to a folder" if tag == _JUNCTION else None
