"""The files in an archive, as arrays."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Member", "Members"]


class Member(NamedTuple):
    """A file in an archive."""

    name: str  # with ``/``, without a leading ``./``
    offset: int  # of its first byte in the archive
    size: int  # bytes


class Members:
    """The files in an archive, and the contents of some of them.

    No Python object is held per file: one takes 33 bytes, its name, and its content if that is
    held. :class:`Member` objects are created when they are asked for.
    """

    def __init__(self) -> None:
        self._names, self._texts, self._has_text = bytearray(), bytearray(), bytearray()
        self._name_ends, self._text_ends = array("q", [0]), array("q", [0])
        self._offsets, self._sizes = array("q"), array("q")

    def add(self, name: str, offset: int, size: int, text: bytes | None = None) -> None:
        """Add a file; `text` is its content if that is to be held."""
        self._names += name.encode("utf-8", "surrogateescape")
        self._name_ends.append(len(self._names))
        self._offsets.append(offset)
        self._sizes.append(size)
        self._texts += text or b""
        self._text_ends.append(len(self._texts))
        self._has_text.append(text is not None)

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, row: int) -> Member:
        return Member(self.name(row), self._offsets[row], self._sizes[row])

    def __iter__(self) -> Iterator[Member]:
        return (self[row] for row in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Members) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]  # as for lists: files can be added

    def name(self, row: int) -> str:
        """Return the name of a file."""
        start, end = self._name_ends[row], self._name_ends[row + 1]
        return self._names[start:end].decode("utf-8", "surrogateescape")

    def text(self, row: int) -> bytes | None:
        """Return the content of a file; None if it is not held."""
        if not self._has_text[row]:
            return None
        return bytes(self._texts[self._text_ends[row] : self._text_ends[row + 1]])

    def ranges(self) -> NDArray[np.int64]:
        """Return the offset and the size of each file: int64 (files, 2)."""
        return np.stack([np.array(self._offsets), np.array(self._sizes)], axis=1)

    def to_bytes(self) -> dict[str, bytes]:
        """Return the bytes from which :meth:`from_bytes` restores the files, on this machine."""
        return {name: bytes(value) for name, value in vars(self).items()}

    @classmethod
    def from_bytes(cls, stored: Mapping[str, bytes]) -> Members:
        """Return the files of :meth:`to_bytes`; KeyError or ValueError for something else."""
        found = cls()
        for name, value in vars(found).items():
            if isinstance(value, array):
                del value[:]
                value.frombytes(stored[name])
            else:
                value.extend(stored[name])
        found._check()
        return found

    def _check(self) -> None:
        """Raise ValueError if the arrays do not fit together."""
        rows = len(self._sizes)
        pairs = ((self._name_ends, self._names), (self._text_ends, self._texts))
        if {len(self._offsets), len(self._has_text)} != {rows} or any(
            len(ends) != rows + 1
            or (ends[0], ends[-1]) != (0, len(data))
            or (np.diff(np.array(ends)) < 0).any()
            for ends, data in pairs
        ):
            raise ValueError("the arrays are not those of an archive")
