"""Walk a folder: which image files it holds, and what was passed over on the way.

Links: a file that is a link counts where it stands if its target lies inside the walked folder;
links that leave the folder are refused. A link to a folder is never entered: what it points to
is met at its own place, no image is counted twice, and a loop cannot hang the walk.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from kindsight.dataset.names import file_is_passed_over, folder_is_passed_over

__all__ = ["Listing", "walk"]

_JUNCTION = 0xA0000003  # IO_REPARSE_TAG_MOUNT_POINT: what Windows calls a link to a folder


class Listing(NamedTuple):
    """The images that lie in one folder.

    Attributes
    ----------
    folder : str
        Path relative to the walked folder, ``/`` between the parts, ``""`` for that folder itself.
    files : list of (name, size)
        The image files in this very folder, by name; sizes in bytes.
    """

    folder: str
    files: list[tuple[str, int]]


def walk(root: str, ignored: Counter[str]) -> Iterator[Listing]:
    """Yield every folder below `root` with its image files; parents come before children.

    Parameters
    ----------
    root : str
        The folder. It may itself be a link.
    ignored : Counter
        Counts by reason; filled while the walk goes on.

    Yields
    ------
    Listing
        Also for folders without images. Folders and files come in the order of their names
        (plain code-point order), so the same tree gives the same walk on every machine.

    Raises
    ------
    OSError
        Where `root` itself cannot be listed. A folder inside that cannot be is counted.
    """
    inside = os.path.realpath(root).rstrip(os.sep) + os.sep
    start = root if root.endswith(("/", os.sep)) else root + os.sep
    pending = [""]
    while pending:
        folder = pending.pop()
        place = start + folder.replace("/", os.sep) if folder else root
        try:
            files, folders = _scan(place, inside, ignored)
        except OSError:
            if not folder:
                raise
            ignored["folder that cannot be opened"] += 1
            continue
        yield Listing(folder, files)
        prefix = folder + "/" if folder else ""
        pending.extend(prefix + name for name in sorted(folders, reverse=True))


def _scan(
    place: str, inside: str, ignored: Counter[str]
) -> tuple[list[tuple[str, int]], list[str]]:
    """List one folder: its images (name, size), sorted, and the folders to enter."""
    files: list[tuple[str, int]] = []
    folders: list[str] = []
    with os.scandir(place) as entries:
        for entry in entries:
            is_link = entry.is_symlink()
            if not is_link and entry.is_dir(follow_symlinks=False):
                reason = folder_is_passed_over(entry.name) or _junction(entry)
                if reason is None:
                    folders.append(entry.name)
            else:
                reason = file_is_passed_over(entry.name)
                if is_link and reason != "hidden file":
                    reason = _link(entry, inside) or reason
                if reason is None:
                    size = _size(entry)
                    if size is None:
                        reason = "not an ordinary file"
                    else:
                        files.append((entry.name, size))
            if reason is not None:
                ignored[reason] += 1
    files.sort()
    return files, folders


def _link(entry: os.DirEntry[str], inside: str) -> str | None:
    """Say why a link is passed over, or None where it is a file inside the walked folder."""
    try:
        mode = entry.stat().st_mode
    except OSError:
        return "broken link"
    target = os.path.realpath(entry.path)
    if not (target + os.sep).startswith(inside):
        return "link that leaves the folder"
    return "link to a folder" if stat.S_ISDIR(mode) else None


def _size(entry: os.DirEntry[str]) -> int | None:
    """Return a file's size in bytes; None for pipes, sockets and devices, which could hang."""
    try:
        status = entry.stat()
    except OSError:
        return 0  # gone or forbidden meanwhile: reading it will say so
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _junction(entry: os.DirEntry[str]) -> str | None:
    """Say why a folder is not entered though Python does not call it a link (Windows only)."""
    if os.name != "nt":
        return None
    tag = getattr(entry.stat(follow_symlinks=False), "st_reparse_tag", 0)
    return "link to a folder" if tag == _JUNCTION else None
