"""List the files in a tar archive with their byte ranges, without reading the files themselves.

The formats are those of :mod:`tarfile` (ustar, GNU, pax). Archives are not trusted: sizes are
limited, links and devices are reported and ignored, nothing is written.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field

from kindsight.encoding import printable
from kindsight.storage.members import Members

__all__ = ["MAX_MEMBERS", "TarIndex", "index_tar"]

MAX_MEMBERS = 2_000_000
"""Limit of entries in one archive."""

MAX_TEXT_BYTES = 1 << 16
MAX_TEXTS_BYTES = 1 << 28
"""Limits of a metadata file, and of all of an archive; their contents are in the index."""

_MAX_NAME_BYTES = 1 << 16
_MAX_PAX_BYTES = 1 << 20
_BLOCK = 512

_PAX_RECORD = re.compile(rb"(\d{1,9}) ([^=\n]{1,256})=")
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_EXTENDED = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE),
)
_REASONS = {
    **dict.fromkeys((tarfile.LNKTYPE, tarfile.SYMTYPE), "link in an archive"),
    **dict.fromkeys((tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE), "device in an archive"),
    tarfile.GNUTYPE_SPARSE: "sparse file in an archive",
}


@dataclass
class TarIndex:
    """The files in an archive."""

    members: Members = field(default_factory=Members)  # with the contents of small metadata files
    # names of ignored entries, and why
    ignored: list[tuple[str, str]] = field(default_factory=list)
    damage: str = ""  # what is wrong with the archive: the predicate of a sentence


@dataclass
class _ExtendedHeader:
    """Values from extended headers that apply to the next entry, or to all."""

    name: str | None = None
    size: int | None = None
    sparse: bool = False


class _Damaged(Exception):  # noqa: N818 (never leaves this module)
    """A header that cannot be read."""


class _Blocks:
    """Reads an archive in large blocks and returns small pieces, mostly in order."""

    def __init__(self, read: Callable[[int, int], bytes], chunk: int) -> None:
        self._read, self._chunk = read, chunk
        self._start, self._data = 0, b""

    def get(self, start: int, size: int) -> bytes:
        """Return `size` bytes from `start`, fewer at the archive's end."""
        if not self._start <= start or start + size > self._start + len(self._data):
            self._start, self._data = start, self._read(start, start + max(size, self._chunk))
        return self._data[start - self._start : start - self._start + size]


def index_tar(
    read: Callable[[int, int], bytes],
    size: int,
    is_text: Callable[[str], bool] = lambda name: False,
    chunk: int = 1 << 16,
) -> TarIndex:
    """Return the files in an archive; of a damaged one, those before the damage.

    - `read`: returns the bytes between two positions, fewer at the end.
    - `size`: bytes of the archive.
    - `is_text`: returns whether the content of a file of this name is wanted.
    - `chunk`: bytes to read at once.
    """
    walk = _Walk(_Blocks(read, chunk), size, is_text)
    try:
        walk.run()
    except _Damaged as error:
        walk.index.damage = str(error)
    return walk.index


class _Walk:
    """One pass over the headers of an archive."""

    def __init__(self, blocks: _Blocks, size: int, is_text: Callable[[str], bool]) -> None:
        self.index = TarIndex()
        self._blocks, self._size, self._is_text = blocks, size, is_text
        self._common, self._next = _ExtendedHeader(), _ExtendedHeader()
        self._text_bytes = 0

    def run(self) -> None:
        position, entries = 0, 0
        while (header := self._blocks.get(position, _BLOCK)) and header.strip(b"\0"):
            entries += 1
            if entries > MAX_MEMBERS:
                raise _Damaged(f"has more than {MAX_MEMBERS:,} entries; the others are not used")
            info = _parsed(header, position)
            if info.type in _EXTENDED:
                position = self._extended(info, position)
            else:
                position = self._entry(info, header, position)
        if header and len(header) < _BLOCK:
            raise _Damaged("is truncated")

    def _extended(self, info: tarfile.TarInfo, position: int) -> int:
        """Read an extended header; return where the next header begins."""
        data = position + _BLOCK
        is_name = info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
        limit = _MAX_NAME_BYTES if is_name else _MAX_PAX_BYTES
        content = _content(self._blocks, data, info.size, limit, position)
        if info.type == tarfile.GNUTYPE_LONGNAME:
            self._next.name = _text(content.split(b"\0", 1)[0])
        elif not is_name:
            found = self._common if info.type == tarfile.XGLTYPE else self._next
            _read_pax(content, found, position)
        return data + _padded(info.size)

    def _entry(self, info: tarfile.TarInfo, header: bytes, position: int) -> int:
        """Add a file or an ignored entry; return where the next header begins."""
        common, own, index = self._common, self._next, self.index
        self._next = _ExtendedHeader()
        sparse = info.type == tarfile.GNUTYPE_SPARSE
        data = position + _BLOCK
        if sparse:
            data = _after_sparse(self._blocks, header, data)
        size = next(n for n in (own.size, common.size, info.size) if n is not None)
        name = own.name or common.name or info.name
        plain = name.removeprefix("./").rstrip("/")
        unknown = info.type not in tarfile.SUPPORTED_TYPES
        has_data = info.type in _REGULAR or sparse or unknown
        if has_data and data + size > self._size:
            index.ignored.append((plain or name, "truncated"))
            raise _Damaged(f"is truncated within '{printable(name)}'")
        reason = _why_ignored(info.type, plain, own.sparse or common.sparse)
        if reason is not None:
            index.ignored.append((plain or name, reason))
        elif info.type != tarfile.DIRTYPE:
            is_small = size <= MAX_TEXT_BYTES and self._text_bytes < MAX_TEXTS_BYTES
            text = self._blocks.get(data, size) if is_small and self._is_text(plain) else None
            index.members.add(plain, data, size, text)
            self._text_bytes += 0 if text is None else size
        return data + (_padded(size) if has_data else 0)


def _parsed(header: bytes, position: int) -> tarfile.TarInfo:
    if len(header) < _BLOCK:
        raise _Damaged("is truncated")
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError, ArithmeticError):
        raise _Damaged(f"is damaged at byte {position:,}") from None
    if info.size < 0:
        raise _Damaged(f"is damaged at byte {position:,}")
    return info


def _content(blocks: _Blocks, data: int, size: int, limit: int, position: int) -> bytes:
    """Return the data of an extended header."""
    content = blocks.get(data, size) if size <= limit else b""
    if len(content) < size:
        raise _Damaged(f"is damaged at byte {position:,}" if size > limit else "is truncated")
    return content


def _read_pax(content: bytes, found: _ExtendedHeader, position: int) -> None:
    """Read the records of a pax header: their length, name and value."""
    start = 0
    while start < len(content) and content[start] != 0:
        match = _PAX_RECORD.match(content, start)
        end = start + int(match[1]) if match else 0
        if match is None or not match.end() < end <= len(content):
            raise _Damaged(f"is damaged at byte {position:,}")
        value = content[match.end() : end - 1]
        key = match[2]
        if key == b"path":
            found.name = _text(value)
        elif key == b"size":
            if not re.fullmatch(rb"\d{1,18}", value):
                raise _Damaged(f"is damaged at byte {position:,}")
            found.size = int(value)
        elif key.startswith(b"GNU.sparse"):
            found.sparse = True
        start = end


def _after_sparse(blocks: _Blocks, header: bytes, data: int) -> int:
    """Return where the data of a sparse file in the old GNU format begin."""
    extended = header[482]
    while extended:
        block = blocks.get(data, _BLOCK)
        if len(block) < _BLOCK:
            raise _Damaged("is truncated")
        extended, data = block[504], data + _BLOCK
    return data


def _why_ignored(kind: bytes, name: str, sparse: bool) -> str | None:
    """Return why an entry is ignored; None for a file or a folder."""
    reason = _REASONS.get(kind)
    if reason is None and kind not in (*_REGULAR, tarfile.DIRTYPE):
        reason = "unknown entry in an archive"
    if kind == tarfile.DIRTYPE or reason is not None:
        return reason
    if sparse:
        return _REASONS[tarfile.GNUTYPE_SPARSE]
    if name.startswith("/") or {"", ".", ".."}.intersection(name.split("/")):
        return "unusable name in an archive"
    return None


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
