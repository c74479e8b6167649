"""TIFF directories (TIFF 6.0, section 2, and BigTIFF), as in TIFF files, EXIF data and MPF indexes.

Reads are bounded and never leave the data, so that a hostile file costs neither time nor memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from kindsight.errors import ImageError
from kindsight.images.formats import truncated

__all__ = ["MAX_FRAMES", "SHORT", "Directory", "Entry", "Tiff", "check_tiff", "tiff_frames"]

MAX_FRAMES = 10_000
"""Limit up to which the frames of a file are counted."""

ASCII, SHORT, LONG = 2, 3, 4
"""Types of entries."""

_TYPE_BYTES = {
    **{1: 1, ASCII: 1, SHORT: 2, LONG: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8},
    **{13: 4, 16: 8, 17: 8, 18: 8},
}

# Bits per sample, and the offsets and lengths of strips and tiles: decoding needs all of them.
_REQUIRED_TAGS = frozenset((258, 273, 279, 324, 325))
_SUBFILE_TYPE = 254
_SUBFILES, _DNG_VERSION = 330, 50706


class Directory(NamedTuple):
    """Position of a directory in the data."""

    start: int  # offset of the first entry
    stated: int  # number of entries that the directory states
    complete: bool  # whether all of them lie within the data
    following: int  # offset of the next directory; 0 if there is none or the data end before it


class Entry(NamedTuple):
    """One entry of a directory."""

    tag: int
    kind: int  # type
    values: int  # number of values
    field: int  # the value field as an unsigned number: an offset, or the value itself left-aligned
    position: int  # offset of the value field

    @property
    def size(self) -> int:
        """Bytes of all values; 0 for unknown types."""
        return self.values * _TYPE_BYTES.get(self.kind, 0)


class Tiff:
    """Data that begin with a TIFF header, of at least 8 bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.order = "<" if data[:2] == b"II" else ">"
        self._big = data[2:4] in (b"+\0", b"\0+")
        self.field_bytes = 8 if self._big else 4
        self._offset = self.order + ("Q" if self._big else "I")
        self._entry = struct.Struct(self.order + ("HHQQ" if self._big else "HHII"))

    @classmethod
    def parse(cls, data: bytes) -> Tiff | None:
        """Return the reader for classic TIFF or EXIF data; None without a valid header."""
        return cls(data) if data[:4] in (b"II*\0", b"MM\0*") and len(data) >= 8 else None

    @property
    def first(self) -> int:
        """Offset of the first directory; 0 if the data end before it."""
        return self._number_at(8 if self._big else 4)

    def directory(self, offset: int) -> Directory | None:
        """Return the directory at an offset; None if the data end before its entries."""
        count_format = self.order + ("Q" if self._big else "H")
        start = offset + struct.calcsize(count_format)
        if not 0 <= offset <= start <= len(self.data):
            return None
        (count,) = struct.unpack_from(count_format, self.data, offset)
        end = start + count * self._entry.size
        return Directory(start, count, end <= len(self.data), self._number_at(end))

    def entries(self, directory: Directory, limit: int | None = None) -> Iterator[Entry]:
        """Yield the entries that lie within the data, at most `limit`."""
        size = self._entry.size
        whole = min(directory.stated, max(0, len(self.data) - directory.start) // size)
        whole = whole if limit is None else min(whole, limit)
        table = self.data[directory.start : directory.start + whole * size]
        position = directory.start + size - self.field_bytes
        for tag, kind, values, field in self._entry.iter_unpack(table):
            yield Entry(tag, kind, values, field, position)
            position += size

    def short(self, entry: Entry) -> int:
        """Return the first value of an entry of type SHORT that is stored in its field."""
        return (
            entry.field & 0xFFFF if self.order == "<" else entry.field >> 8 * self.field_bytes - 16
        )

    def is_outside(self, entry: Entry) -> bool:
        """Return whether an entry's values are stored elsewhere and exceed the data."""
        return entry.size > self.field_bytes and entry.field + entry.size > len(self.data)

    def _number_at(self, offset: int) -> int:
        if offset + self.field_bytes > len(self.data):
            return 0
        number: int = struct.unpack_from(self._offset, self.data, offset)[0]
        return number


def check_tiff(data: bytes) -> None:
    """Raise ``truncated`` if the first directory or required values lie beyond the file's end.

    Many writers put the directory last. A decoder calls a file that lost it damaged or unknown.

    Raise ``unsupported`` for camera raw files (DNG, NEF, CR2, ARW), of which a decoder would read
    the thumbnail: they put that first, and the photo into a subfile.
    """
    tiff = Tiff(data)
    directory = tiff.directory(tiff.first) if len(data) >= 8 else None
    if directory is None or not directory.complete:
        raise truncated("TIFF")
    tags = {entry.tag for entry in tiff.entries(directory)}
    thumbnail_first = _SUBFILES in tags and _is_reduced(tiff, directory)
    if _DNG_VERSION in tags or thumbnail_first or data[8:10] == b"CR":
        raise ImageError(
            "unsupported",
            "The file is a camera raw file, which is not supported: save it as JPEG or PNG.",
        )
    if any(
        entry.tag in _REQUIRED_TAGS and tiff.is_outside(entry) for entry in tiff.entries(directory)
    ):
        raise truncated("TIFF")


def tiff_frames(data: bytes) -> int:
    """Count the pages, up to MAX_FRAMES; smaller versions of a page do not count."""
    tiff = Tiff(data)
    offset, frames = tiff.first, 0
    seen: set[int] = set()
    while offset and offset not in seen and len(seen) < MAX_FRAMES:
        seen.add(offset)
        directory = tiff.directory(offset)
        if directory is None:
            break
        frames += not _is_reduced(tiff, directory)
        offset = directory.following
    return frames


def _is_reduced(tiff: Tiff, directory: Directory) -> bool:
    # NewSubfileType has the lowest tag, and entries are sorted. Its lowest bit marks a smaller
    # version. A big-endian LONG stands in the upper half of a BigTIFF field.
    entry = next(tiff.entries(directory, 1), None)
    if entry is None or entry.tag != _SUBFILE_TYPE:
        return False
    shift = 8 * tiff.field_bytes - 32 if tiff.order == ">" else 0
    return bool(entry.field >> shift & 1)
