"""Tar files as folders of images: indexes, which are cached, and reading by byte range.

The index of a tar file is stored in the cache folder, named by the version of the file. Of it,
24 bytes for each member remain in memory.
"""

from __future__ import annotations

import io
import json
import os
import threading
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kindsight.digest import content_digest
from kindsight.errors import CacheError, DatasetError, StorageError
from kindsight.storage.address import is_address, shown
from kindsight.storage.members import Members
from kindsight.storage.tar import TarIndex, index_tar

__all__ = ["TEXT_ENDINGS", "DamagedShardError", "find_member", "open_shard", "read_part"]


class DamagedShardError(DatasetError):
    """A file that is compressed, damaged from its start, or not a tar file."""


TEXT_ENDINGS = (".cls", ".json", ".txt")
"""Members whose content is in the index: labels and other metadata of the images."""

_FORMAT = 2  # of the cached index
_FACTS = "facts"  # in it: ignored entries and damage, beside the members
_MAX_INDEX_BYTES = 1 << 30
_MAX_CACHED_BYTES = 1 << 28  # of indexes in memory

_REMOTE_CHUNK = 1 << 22  # reading small images with the headers is cheaper
_LOCAL_CHUNK = 1 << 14

_Ranges = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


class _RangeCache:
    """Byte ranges of the members of recently used tar files: hash of the name, offset, size."""

    lock = threading.Lock()
    ranges: OrderedDict[str, _Ranges] = OrderedDict()  # noqa: RUF012 (process-wide on purpose)
    size = 0


def open_shard(shard: str) -> TarIndex:
    """Return the index of a tar file, from the cache if the file is unchanged.

    Raises
    ------
    DatasetError
        If there is no such file, it is compressed, or it is not a tar file.
    StorageError
        If it cannot be reached.
    """
    size, version = _version(shard)
    file = _cached_file(shard, version)
    index = _load(file) if file is not None else None
    if index is None:
        index = _indexed(shard, size)
        if file is not None:
            _save(file, index)
    _cache_ranges(shard, index)
    return index


def find_member(shard: str, member: str) -> tuple[int, int] | None:
    """Return the offset and the size of a member of a tar file; None if it is not in the file."""
    with _RangeCache.lock:
        ranges = _RangeCache.ranges.get(shard)
        if ranges is not None:
            _RangeCache.ranges.move_to_end(shard)
    if ranges is None:
        open_shard(shard)
        with _RangeCache.lock:
            ranges = _RangeCache.ranges[shard]
    names, offsets, sizes = ranges
    key = hash(member)
    row = int(np.searchsorted(names, key))
    if row == len(names) or names[row] != key:
        return None
    return int(offsets[row]), int(sizes[row])


def read_part(name: str, start: int, end: int) -> bytes:
    """Return the bytes of a file from `start` up to `end`, fewer if the file ends earlier.

    Raises OSError, or StorageError for an address.
    """
    if is_address(name):
        from kindsight.storage.access import read_range

        return read_range(name, start, end)
    with Path(name).open("rb") as file:
        file.seek(start)
        return file.read(end - start)


def _version(shard: str) -> tuple[int, str]:
    """Return a tar file's size and its version, which changes with its content; "" if unknown."""
    if not is_address(shard):
        try:
            status = os.stat(shard)  # noqa: PTH116
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise DatasetError(f"Could not read {shown(shard)}: {reason}.") from None
        return status.st_size, f"{status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
    from kindsight.storage.access import file_info
    from kindsight.storage.versions import remember

    try:
        found = file_info(shard)
    except PermissionError as error:
        raise StorageError(f"{shown(shard)}: {error.strerror}. Check the permissions.") from error
    if found is None or found.is_folder:
        raise DatasetError(f"There is no file {shown(shard)}.")
    remember(shard, found)
    return found.size, str(found.version or "")


def _cached_file(shard: str, version: str) -> Path | None:
    if not version:
        return None
    from kindsight.cache.folder import Cache  # not needed for other images

    name = shard if is_address(shard) else str(Path(shard).absolute())
    key = content_digest(f"{_FORMAT}\n{version}\n{name}")
    with suppress(CacheError):
        return Cache().folder("shards") / f"{key}.npz"
    return None


def _indexed(shard: str, size: int) -> TarIndex:
    read: Callable[[int, int], bytes] = lambda start, end: read_part(shard, start, end)  # noqa: E731
    try:
        start = read(0, 512)
        if start[:2] == b"\x1f\x8b" or start.startswith((b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
            raise DamagedShardError(
                f"{shown(shard)} is compressed: its images cannot be read one by one. "
                "Decompress the tar file; images are compressed already."
            )
        chunk = _REMOTE_CHUNK if is_address(shard) else _LOCAL_CHUNK
        index = index_tar(read, size, lambda name: name.lower().endswith(TEXT_ENDINGS), chunk)
    except (OSError, StorageError) as error:
        if isinstance(error, StorageError):
            raise
        raise DatasetError(f"Could not read {shown(shard)}: {error.strerror}.") from error
    if index.damage and not index.members:
        raise DamagedShardError(
            f"{shown(shard)} is not a tar file or is damaged: it {index.damage}."
        )
    return index


def _cache_ranges(shard: str, index: TarIndex) -> None:
    """Cache the byte ranges of a tar file's members in memory; drop the least recently used."""
    members = index.members
    names = (hash(members.name(row)) for row in range(len(members)))
    keys = np.fromiter(names, np.int64, len(members))
    # Of several members with one name, the first is used.
    keys, first = np.unique(keys, return_index=True)
    table = members.ranges()[first]
    ranges = keys, table[:, 0].copy(), table[:, 1].copy()
    with _RangeCache.lock:
        old = _RangeCache.ranges.pop(shard, None)
        _RangeCache.size += 24 * (len(keys) - (0 if old is None else len(old[0])))
        _RangeCache.ranges[shard] = ranges
        while _RangeCache.size > _MAX_CACHED_BYTES and len(_RangeCache.ranges) > 1:
            _, dropped = _RangeCache.ranges.popitem(last=False)
            _RangeCache.size -= 24 * len(dropped[0])


def _save(file: Path, index: TarIndex) -> None:
    """Store an index; if that fails, it is created again the next time."""
    from kindsight.files import replacing

    facts = json.dumps({"ignored": index.ignored, "damage": index.damage}).encode()
    every = {**index.members.to_bytes(), _FACTS: facts}
    buffer = io.BytesIO()
    np.savez(buffer, **{name: _packed(data) for name, data in every.items()})  # type: ignore[arg-type]
    with suppress(OSError), replacing(file) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def _packed(data: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(zlib.compress(data, 1), np.uint8)


def _unpacked(data: NDArray[np.uint8]) -> bytes:
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(data.tobytes(), _MAX_INDEX_BYTES)
    if not unpacker.eof:
        raise ValueError("too large")
    return text


def _load(file: Path) -> TarIndex | None:
    """Return a stored index; None if there is none, or it is damaged."""
    try:
        if file.stat().st_size > _MAX_INDEX_BYTES:
            return None
        with np.load(file, allow_pickle=False) as stored:
            every = {name: _unpacked(data) for name, data in stored.items()}
        facts = json.loads(every[_FACTS])
        ignored = [(str(name), str(reason)) for name, reason in facts["ignored"]]
        with suppress(OSError):
            os.utime(file)  # the least recently used are deleted first
        return TarIndex(Members.from_bytes(every), ignored, str(facts["damage"]))
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
        zlib.error,
    ):
        return None
