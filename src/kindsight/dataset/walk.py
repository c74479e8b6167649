"""Walk a folder: find its image files, and record what is ignored.

A file is an image by its extension or, with another one or none, by its first bytes.

Links are followed. A folder is entered once, whatever the number of links to it, and by its real
path rather than through a link. The walk therefore ends, and no folder counts twice. On request,
links that leave the walked folder are ignored.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.columns.base import Column, Rows
from kindsight.dataset.columns.texts import TextColumn
from kindsight.dataset.listing import Listing, reason_with_extension, why_head
from kindsight.dataset.names import (
    HIDDEN_WITH_IMAGES,
    IMAGE_EXTENSIONS,
    LINK_BROKEN,
    LINK_OUTSIDE,
    LINK_REPEATED,
    LINK_TO_PARENT,
    UNREAD_EXTENSIONS,
    UNREADABLE_FOLDER,
    IgnoredFiles,
    extension_of,
    is_hidden_clutter,
    why_folder_is_ignored,
    why_name_is_ignored,
)
from kindsight.dataset.walk_storage import walk_storage
from kindsight.images.formats import HEAD_BYTES
from kindsight.storage.address import is_address

__all__ = ["Listing", "is_inside", "real_prefix", "reason_with_extension", "walk", "why_head"]

_JUNCTION = 0xA0000003  # IO_REPARSE_TAG_MOUNT_POINT: a link to a folder on Windows

_MAX_HIDDEN_ENTRIES = 1_000
"""Maximum number of entries of a hidden folder that are searched for images."""


def walk(
    root: str, ignored: IgnoredFiles, *, follow_links: bool = True, roots: Sequence[str] = ()
) -> Iterator[Listing]:
    """Yield every folder below `root` with its image files; parents come before children.

    - `root`: the folder; it may be a link, or an address.
    - `ignored`: collects ignored files and folders during the walk.
    - `follow_links`: False: ignore links that leave `root` and `roots`.
    - `roots`: further folders to which links may lead.

    Yields
    ------
    Listing
        Also for folders without images. Folders and files are sorted by code point, linked folders
        last, so the order is the same on every machine.

    Raises
    ------
    OSError
        If `root` cannot be listed. Unreadable folders below are added to `ignored`.
    """
    if is_address(root):
        yield from walk_storage(root, ignored)
        return
    inside = None if follow_links else tuple(map(real_prefix, (root, *roots)))
    yield from _Walker(root, ignored, inside).listings()


def real_prefix(folder: str) -> str:
    """Return the real path of a folder with a separator at the end."""
    return os.path.realpath(folder).rstrip(os.sep) + os.sep


def is_inside(real: str, prefixes: Sequence[str]) -> bool:
    """Return whether a real path is in or is one of the folders, as :func:`real_prefix`."""
    return (real + os.sep).startswith(tuple(prefixes))


class _Walker:
    """One walk; `inside` has the prefixes that links must not leave, None if they may."""

    def __init__(self, root: str, ignored: IgnoredFiles, inside: tuple[str, ...] | None) -> None:
        self._root, self._ignored, self._inside = root, ignored, inside
        self._start = root if root.endswith(("/", os.sep)) else root + os.sep
        self._real_root = os.path.realpath(root)
        self._entered: set[str] = set()
        self._linked: deque[tuple[str, str]] = deque()

    def listings(self) -> Iterator[Listing]:
        yield from self._below("", self._real_root)
        while self._linked:
            yield from self._below(*self._linked.popleft())

    def _below(self, top: str, real_top: str) -> Iterator[Listing]:
        pending = [(top, real_top)]
        while pending:
            folder, real = pending.pop()
            if real in self._entered:
                self._ignored.add(folder, LINK_REPEATED)
                continue
            self._entered.add(real)
            try:
                listing, folders = self._scan(folder, real)
            except OSError:
                if not folder:
                    raise
                self._ignored.add(folder, UNREADABLE_FOLDER)
                continue
            yield listing
            prefix, real_prefix_ = folder and folder + "/", real.rstrip(os.sep) + os.sep
            pending.extend((prefix + n, real_prefix_ + n) for n in sorted(folders, reverse=True))

    def _scan(self, folder: str, real: str) -> tuple[Listing, list[str]]:
        """Return one folder's listing, and its folders to walk; remember linked ones."""
        path = self._start + folder.replace("/", os.sep) if folder else self._root
        prefix = folder and folder + "/"
        files: list[tuple[str, int]] = []
        unsupported: list[tuple[str, int]] = []
        folders: list[str] = []
        linked: list[tuple[str, str]] = []
        with os.scandir(path) as entries:
            for entry in entries:
                is_link = entry.is_symlink() or _is_junction(entry)
                if _is_folder(entry):
                    reason, target = _why_folder(entry), real
                    if is_link and reason is None:
                        reason, target = self._why_linked_folder(entry, real)
                    if reason is not None:
                        self._ignored.add(prefix + entry.name, reason)
                    elif is_link:
                        linked.append((prefix + entry.name, target))
                    else:
                        folders.append(entry.name)
                    continue
                size = _size(entry)
                reason = self._why_file(entry, size, is_link)
                if reason is None:
                    files.append((entry.name, size or 0))
                elif reason == "":
                    unsupported.append((entry.name, size or 0))
                else:
                    self._ignored.add(prefix + entry.name, reason, size or 0)
        self._linked.extend(sorted(linked))
        return Listing(folder, _compact(sorted(files)), sorted(unsupported)), folders

    def _why_linked_folder(self, entry: os.DirEntry[str], real: str) -> tuple[str | None, str]:
        """Return why a link to a folder is ignored, and its real path."""
        target = os.path.realpath(entry.path)
        if self._inside is not None and not is_inside(target, self._inside):
            return LINK_OUTSIDE, target
        prefix = target.rstrip(os.sep) + os.sep
        if is_inside(real, (prefix,)) or is_inside(self._real_root, (prefix,)):
            return LINK_TO_PARENT, target
        return None, target

    def _why_file(self, entry: os.DirEntry[str], size: int | None, is_link: bool) -> str | None:
        """Return why a file is ignored; ``""`` for an unsupported format, None for an image."""
        if reason := why_name_is_ignored(entry.name):
            return reason
        inside = self._inside
        if is_link and inside and not is_inside(os.path.realpath(entry.path), inside):
            return LINK_OUTSIDE
        if size is None:
            return "not a regular file"
        extension = extension_of(entry.name)
        if extension in IMAGE_EXTENSIONS or extension in UNREAD_EXTENSIONS:
            return None
        return _why_content(entry)


class _Files(Column[tuple[str, int]]):
    """The files of a folder with many of them."""

    __slots__ = ("names", "sizes")

    def __init__(self, names: TextColumn, sizes: NDArray[np.int64]) -> None:
        self.names, self.sizes = names, sizes

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: Rows) -> _Files:
        return _Files(self.names.take(rows), self.sizes[rows])

    def values(self, start: int, stop: int) -> list[tuple[str, int]]:
        sizes = self.sizes[start:stop].tolist()
        return list(zip(self.names.values(start, stop), sizes, strict=True))


_FEW_FILES = 1_000


def _compact(files: list[tuple[str, int]]) -> Sequence[tuple[str, int]]:
    if len(files) < _FEW_FILES:
        return files
    names = TextColumn.of(name for name, _ in files)
    return _Files(names, np.fromiter((size for _, size in files), np.int64, len(files)))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _why_folder(entry: os.DirEntry[str]) -> str | None:
    """Return why a folder is ignored for its name; hidden folders are searched for images."""
    reason = why_folder_is_ignored(entry.name)
    if reason == "hidden folder" and not is_hidden_clutter(entry.name):
        seen = 0
        for _, _, names in os.walk(entry.path):
            if any(extension_of(name) in IMAGE_EXTENSIONS for name in names):
                return HIDDEN_WITH_IMAGES
            seen += 1 + len(names)
            if seen > _MAX_HIDDEN_ENTRIES:
                break
    return reason


def _size(entry: os.DirEntry[str]) -> int | None:
    """Return a file's size in bytes; None for pipes and devices, whose reading may hang."""
    try:
        status = entry.stat()
    except OSError:
        return 0  # a broken link, deleted or forbidden: reading it gives the error
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _why_content(entry: os.DirEntry[str]) -> str | None:
    """Return why a local file is ignored by its first bytes; see :func:`.why_head`."""
    try:
        with open(entry.path, "rb") as file:  # noqa: PTH123 (called for every such file)
            head = file.read(HEAD_BYTES)
    except PermissionError:
        return "unreadable file"
    except OSError:
        return LINK_BROKEN if entry.is_symlink() else "unreadable file"
    return why_head(head, entry.name)


def _is_junction(entry: os.DirEntry[str]) -> bool:
    """Detect links to folders on Windows that Python does not report as links."""
    if os.name != "nt":
        return False
    return getattr(entry.stat(follow_symlinks=False), "st_reparse_tag", 0) == _JUNCTION
