"""Walk a folder at an address: the same rules as for a local one, with many requests at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from kindsight.dataset.listing import Listing, reason_with_extension, why_head
from kindsight.dataset.names import (
    IMAGE_EXTENSIONS,
    UNREAD_EXTENSIONS,
    UNREADABLE_FOLDER,
    IgnoredFiles,
    extension_of,
    why_folder_is_ignored,
    why_name_is_ignored,
)
from kindsight.errors import DatasetError, StorageError
from kindsight.images.formats import HEAD_BYTES
from kindsight.storage.access import Entry, read
from kindsight.storage.address import join, shown
from kindsight.storage.files import IN_FLIGHT, entries_in

__all__ = ["walk_storage"]

MAX_FILES = 20_000_000
MAX_DEPTH = 64
"""Limits of a walk, without which a storage could make it endless."""

_MAX_HEADS = 1_000
"""Maximum number of files without an image extension whose first bytes are read; further ones are
ignored.
"""


def walk_storage(root: str, ignored: IgnoredFiles) -> Iterator[Listing]:
    """Yield every folder below an address, as :func:`kindsight.dataset.walk.walk` does.

    Raises
    ------
    OSError
        If there is no such folder.
    StorageError
        If the storage cannot be used.
    DatasetError
        If there are more files than can be used.
    """
    yield from _Walk(root, ignored).listings()


class _Walk:
    """One walk, which lists folders ahead."""

    def __init__(self, root: str, ignored: IgnoredFiles) -> None:
        self._root, self._ignored = root, ignored
        self._heads = self._files = 0
        self._pool = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="kindsight-storage")
        self._asked: dict[str, Future[list[Entry]]] = {}

    def listings(self) -> Iterator[Listing]:
        pending = [""]
        try:
            while pending:
                for folder in pending[-IN_FLIGHT:]:
                    if folder not in self._asked:
                        self._asked[folder] = self._pool.submit(self._list, folder)
                folder = pending.pop()
                try:
                    found = self._asked.pop(folder).result()
                except PermissionError as error:
                    if not folder:
                        text = f"{shown(self._root)}: {error.strerror}. Check the permissions."
                        raise StorageError(text) from error
                    self._ignored.add(folder, UNREADABLE_FOLDER)
                    continue
                except OSError:
                    if not folder:
                        raise
                    self._ignored.add(folder, UNREADABLE_FOLDER)
                    continue
                listing, folders = self._sorted_out(folder, found)
                yield listing
                prefix = folder and folder + "/"
                pending.extend(prefix + name for name in reversed(folders))
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _list(self, folder: str) -> list[Entry]:
        return entries_in(join(self._root, folder) if folder else self._root)

    def _sorted_out(self, folder: str, found: list[Entry]) -> tuple[Listing, list[str]]:
        """Return a folder's images and the names of its folders; record what is ignored."""
        self._files += len(found)
        if self._files > MAX_FILES:
            raise DatasetError(
                f"{shown(self._root)} has more than {MAX_FILES:,} files. Give a table of their "
                "addresses instead (Parquet)."
            )
        prefix = folder and folder + "/"
        files: list[tuple[str, int]] = []
        others: list[Entry] = []
        folders: list[str] = []
        for entry in found:
            reason = self._why_ignored(folder, entry)
            if reason:
                self._ignored.add(prefix + entry.name, reason, entry.size)
            elif entry.is_folder:
                folders.append(entry.name)
            elif extension_of(entry.name) in IMAGE_EXTENSIONS | UNREAD_EXTENSIONS:
                files.append((entry.name, entry.size))
            else:
                others.append(entry)
        unsupported = []
        for entry, reason in zip(others, self._by_content(folder, others), strict=True):
            if reason is None:
                files.append((entry.name, entry.size))
            elif reason == "":
                unsupported.append((entry.name, entry.size))
            else:
                self._ignored.add(prefix + entry.name, reason, entry.size)
        return Listing(folder, sorted(files), sorted(unsupported)), folders

    def _why_ignored(self, folder: str, entry: Entry) -> str | None:
        if entry.name in (".", "..") or "\0" in entry.name:
            return "unusable name"
        if not entry.is_folder:
            return why_name_is_ignored(entry.name)
        if folder.count("/") >= MAX_DEPTH:
            return "folder that is too deep"
        return why_folder_is_ignored(entry.name)

    def _by_content(self, folder: str, entries: list[Entry]) -> list[str | None]:
        """Return why files are ignored by their first bytes, as `why_head` does."""

        def why(entry: Entry) -> str | None:
            address = join(self._root, f"{folder}/{entry.name}" if folder else entry.name)
            try:
                return why_head(read(address, HEAD_BYTES - 1), entry.name)
            except OSError:
                return "unreadable file"

        read_ones = entries[: max(0, _MAX_HEADS - self._heads)]
        self._heads += len(read_ones)
        rest = entries[len(read_ones) :]
        by_name = [reason_with_extension("not an image", entry.name) for entry in rest]
        return [*self._pool.map(why, read_ones), *by_name]
