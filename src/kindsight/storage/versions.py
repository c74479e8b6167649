"""Versions of files at addresses, as the storage stated them when the files were listed.

They show without a request that a file is unchanged. They are from the last time that a dataset was
opened in this process.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kindsight.storage.access import Entry
from kindsight.storage.address import base_name, parent

__all__ = ["known_version", "remember", "remember_folder"]

_MAX_SINGLE = 1_000_000

_Columns = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


class _Known:
    """Versions known to this process: 24 bytes for each file of a listed folder."""

    lock = threading.Lock()
    folders: dict[str, _Columns] = {}  # noqa: RUF012 (process-wide on purpose)
    single: dict[str, tuple[int, int]] = {}  # noqa: RUF012


def remember_folder(folder: str, files: Sequence[Entry]) -> None:
    """Store the versions of all files of a folder, replacing earlier ones."""
    # Python's hash: it differs between processes, but it is not stored on disk.
    names = np.array([hash(file.name) for file in files], np.int64)
    order = np.argsort(names)
    sizes = np.array([file.size for file in files], np.int64)[order]
    versions = np.array([file.version for file in files], np.int64)[order]
    with _Known.lock:
        _Known.folders[folder.rstrip("/")] = (names[order], sizes, versions)


def remember(address: str, file: Entry | None) -> None:
    """Store the version of one file; None if it does not exist."""
    with _Known.lock:
        if file is None:
            _Known.single.pop(address, None)
        elif len(_Known.single) < _MAX_SINGLE:
            _Known.single[address] = (file.size, file.version)


def known_version(address: str) -> tuple[int, int] | None:
    """Return the size and the version of a file; None if they are unknown."""
    with _Known.lock:
        found = _Known.single.get(address)
        columns = _Known.folders.get(parent(address))
    if found is None and columns is not None:
        names, sizes, versions = columns
        key = hash(base_name(address))
        row = int(np.searchsorted(names, key))
        if row < len(names) and names[row] == key:
            found = int(sizes[row]), int(versions[row])
    return found if found is not None and found[1] else None
