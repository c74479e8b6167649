"""The same operations on local paths and on addresses: find, open, fetch and write files."""

from __future__ import annotations

import io
import os
import posixpath
import re
import shutil
import tempfile
import threading
import weakref
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from kindsight.errors import DatasetError, SettingsError, StorageError
from kindsight.files import replace_file, replacing
from kindsight.storage.address import base_name, is_address, parent, scheme_of, shown
from kindsight.threads import map_ordered

if TYPE_CHECKING:
    from kindsight.storage.access import Entry

__all__ = [
    "IN_FLIGHT",
    "LocalCopy",
    "cached_listings",
    "check_local",
    "entries_in",
    "is_file",
    "is_folder",
    "move_file",
    "names_in",
    "open_source",
    "sizes",
    "write_file",
]  # fmt: skip

IN_FLIGHT = 32
"""Number of concurrent requests; they mostly wait for the storage."""

MAX_COPIED_BYTES = 1 << 33
"""Limit of a file that is copied to a temporary file: 8 GiB."""

_CHUNK = 1 << 24

_MAX_CACHED_ENTRIES = 100_000
"""Limit of entries of a folder's listing that is cached."""

_LISTED_FROM = 200
"""With at least this many files of a folder, it is listed instead of requesting each file."""


def is_file(name: str) -> bool:
    """Return whether there is a file of this name."""
    if not is_address(name):
        return os.path.isfile(name)  # noqa: PTH113
    found = _info(name)
    return found is not None and not found.is_folder


def is_folder(name: str) -> bool:
    """Return whether there is a folder of this name."""
    if not is_address(name):
        return os.path.isdir(name)  # noqa: PTH112
    found = _info(name)
    return found is not None and found.is_folder


def _info(address: str) -> Entry | None:
    from kindsight.storage.access import file_info
    from kindsight.storage.versions import remember

    try:
        found = file_info(address)
    except PermissionError as error:
        raise _denied(address, error) from error
    if found is None or not found.is_folder:
        remember(address, found)
    return found


def _denied(address: str, error: OSError) -> StorageError:
    return StorageError(f"{shown(address)}: {error.strerror}. Check the permissions.")


class _Listings:
    """Listings of folders while a dataset is opened, which needs some of them repeatedly."""

    lock = threading.Lock()
    users = 0
    of: dict[str, list[Entry]] = {}  # noqa: RUF012 (process-wide on purpose)


@contextmanager
def cached_listings() -> Iterator[None]:
    """List each folder at an address only once within the block."""
    with _Listings.lock:
        _Listings.users += 1
    try:
        yield
    finally:
        with _Listings.lock:
            _Listings.users -= 1
            if not _Listings.users:
                _Listings.of.clear()


def entries_in(folder: str) -> list[Entry]:
    """Return the files and folders directly in a folder at an address, sorted by name.

    The versions of its files are stored. Raises OSError if there is no such folder.
    """
    from kindsight.storage.access import entries
    from kindsight.storage.versions import remember_folder

    key = folder.rstrip("/")
    with _Listings.lock:
        cached = _Listings.of.get(key)
    if cached is not None:
        return cached
    found = entries(folder)
    remember_folder(folder, [entry for entry in found if not entry.is_folder])
    with _Listings.lock:
        # Large folders are walked only once.
        if _Listings.users and len(found) <= _MAX_CACHED_ENTRIES:
            _Listings.of[key] = found
    return found


def names_in(folder: str, *, folders: bool = True) -> list[str]:
    """Return the names of files and folders directly in a folder, or of files only, sorted.

    Raises OSError if a folder cannot be listed, StorageError if a storage cannot be used.
    """
    if not is_address(folder):
        with os.scandir(folder) as found:
            return sorted(entry.name for entry in found if folders or entry.is_file())
    try:
        return [entry.name for entry in entries_in(folder) if folders or not entry.is_folder]
    except PermissionError as error:
        raise _denied(folder, error) from error


def sizes(addresses: Sequence[str]) -> list[int | None]:
    """Return files' sizes in bytes, None for missing ones; store their versions.

    If many files of a folder are wanted, the folder is listed instead.
    """
    found: list[int | None] = [None] * len(addresses)
    by_folder: dict[str, list[int]] = defaultdict(list)
    for row, address in enumerate(addresses):
        by_folder[parent(address)].append(row)

    def listed(folder: str) -> dict[str, int]:
        try:
            return {entry.name: entry.size for entry in entries_in(folder) if not entry.is_folder}
        except FileNotFoundError:
            return {}
        except PermissionError as error:
            raise _denied(folder, error) from error

    web = ("http", "https")
    many = [
        folder
        for folder, rows in by_folder.items()
        if len(rows) >= _LISTED_FROM and scheme_of(folder) not in web
    ]
    for folder, files in zip(many, map_ordered(listed, many, IN_FLIGHT), strict=True):
        for row in by_folder.pop(folder):
            found[row] = files.get(base_name(addresses[row]))

    failures: list[StorageError] = []

    def size(row: int) -> int | None:
        try:
            entry = _info(addresses[row])
        except StorageError as error:
            # Lists of links to many web servers contain dead links.
            if scheme_of(addresses[row]) not in web:
                raise
            failures.append(error)
            return None
        return None if entry is None or entry.is_folder else entry.size

    rest = [row for rows in by_folder.values() for row in rows]
    for row, value in zip(rest, map_ordered(size, rest, IN_FLIGHT), strict=True):
        found[row] = value
    if failures and len(failures) == len(addresses):
        raise failures[0]
    return found


class LocalCopy:
    """A file as a local path: itself, or a temporary copy of a file at an address.

    Parameters
    ----------
    name : str
        The path or address.
    max_bytes : int
        Limit of its size; DatasetError if the file is larger.

    Attributes
    ----------
    path : str
        The local path; a copy is deleted with this object.
    """

    def __init__(self, name: str, max_bytes: int = MAX_COPIED_BYTES) -> None:
        self.path = name
        if not is_address(name):
            return
        handle, self.path = tempfile.mkstemp(prefix="kindsight-", suffix=f"-{_safe(name)}")
        weakref.finalize(self, _delete, self.path)
        with os.fdopen(handle, "wb") as file:
            _copy(name, file, max_bytes)


def _safe(name: str) -> str:
    """Return the suffix of a name, by which readers recognise the file type."""
    ending = posixpath.splitext(base_name(name))[1]
    return ending if ending[1:].isalnum() and len(ending) < 12 else ""


def _delete(path: str) -> None:
    with suppress(OSError):
        Path(path).unlink()


def _copy(address: str, file: BinaryIO, max_bytes: int) -> None:
    from kindsight.storage.access import file_info, read, read_range

    try:
        info = file_info(address)
        if info is None or info.is_folder:
            raise DatasetError(f"There is no file {shown(address)}.")
        if info.size > max_bytes:
            raise DatasetError(
                f"{shown(address)} has {info.size:,} bytes; the limit is {max_bytes:,}."
            )
        if not info.size or scheme_of(address) in ("http", "https"):
            content = read(address, max_bytes)
            if len(content) > max_bytes:
                raise DatasetError(
                    f"{shown(address)} has more than {max_bytes:,} bytes, the limit."
                )
            file.write(content)
            return
        for start in range(0, info.size, _CHUNK):
            file.write(read_range(address, start, min(start + _CHUNK, info.size)))
    except PermissionError as error:
        raise _denied(address, error) from error
    except FileNotFoundError:
        raise DatasetError(f"There is no file {shown(address)}.") from None


def open_source(name: str) -> str | BinaryIO:
    """Return a source for PyArrow: the local path, or an open file whose parts are fetched."""
    if not is_address(name):
        return name
    from kindsight.storage.access import open_file

    if scheme_of(name) in ("http", "https"):  # not every server supports byte ranges
        with io.BytesIO() as buffer:
            _copy(name, buffer, MAX_COPIED_BYTES)
            return io.BytesIO(buffer.getvalue())
    try:
        return open_file(name)
    except PermissionError as error:
        raise _denied(name, error) from error
    except FileNotFoundError:
        raise DatasetError(f"There is no file {shown(name)}.") from None


def write_file(name: str, content: bytes | os.PathLike[str]) -> None:
    """Write a file to a local path or an address, completely or not at all.

    - `content`: the bytes, or a local file to copy.

    Raises StorageError if the storage rejects it, OSError for a local path.
    """
    if not is_address(name):
        with replacing(name) as temporary:
            if isinstance(content, bytes):
                temporary.write_bytes(content)
            else:
                shutil.copyfile(content, temporary)
        return
    from kindsight.storage import access

    if scheme_of(name) in ("http", "https"):
        raise StorageError(
            f"{shown(name)}: files cannot be written to web servers. Use another storage."
        )
    try:
        access.write(name, content)
    except (PermissionError, FileNotFoundError) as error:
        raise StorageError(f"{shown(name)} could not be written: {error.strerror}.") from error


def move_file(name: str, new_name: str) -> None:
    """Rename a file, replacing another; at an address, it may be copied and then deleted.

    Raises StorageError if the storage rejects it, OSError for a local path.
    """
    if not is_address(name):
        replace_file(Path(name), Path(new_name))
        return
    from kindsight.storage import access

    try:
        access.move(name, new_name)
    except (PermissionError, FileNotFoundError) as error:
        raise StorageError(f"{shown(name)} could not be renamed: {error.strerror}.") from error


def check_local(name: str | os.PathLike[str], what: str) -> None:
    """Raise SettingsError if an address was given for what must be on a local disk.

    - `what`: the start of the message, such as ``"`out`"``.
    """
    text = os.fspath(name)
    # A Path of an address has one slash less.
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text) and not os.path.lexists(text):
        raise SettingsError(f"{what} must be on a local disk; got {shown(text)}.")
