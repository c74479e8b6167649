"""Columns of texts that are all different: paths as UTF-8, digests as bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.columns.base import BLOCK_BYTES, Column, Rows, blocks

__all__ = ["BytesColumn", "TextColumn"]


class TextColumn(Column[Any]):
    """Texts, or None, as UTF-8.

    Parameters
    ----------
    data : uint8 array
        The texts one after the other.
    offsets : int64 array, (rows + 1,)
        Where each text begins in `data`, and the end.
    missing : bool array, (rows,), optional
        True where the value is None.
    """

    __slots__ = ("data", "missing", "offsets")

    def __init__(
        self,
        data: NDArray[np.uint8],
        offsets: NDArray[np.int64],
        missing: NDArray[np.bool_] | None = None,
    ) -> None:
        self.data, self.offsets, self.missing = data, offsets, missing

    @classmethod
    def of(cls, texts: Iterable[str | None]) -> TextColumn:
        """Return the column of some texts."""
        data, lengths, missing = bytearray(), [np.zeros(1, np.int64)], []
        for block in blocks(texts):
            known = [text or "" for text in block]
            joined = "".join(known)
            encoded = joined.encode("utf-8", "surrogatepass")
            if len(encoded) > len(joined):
                known = [text.encode("utf-8", "surrogatepass") for text in known]  # type: ignore[misc]
            lengths.append(np.fromiter(map(len, known), np.int64, len(known)))
            missing.append(np.fromiter((text is None for text in block), bool, len(block)))
            data += encoded
        absent = np.concatenate([*missing, np.zeros(0, bool)])
        return cls(
            np.frombuffer(data, np.uint8),
            np.cumsum(np.concatenate(lengths)),
            absent if absent.any() else None,
        )

    @classmethod
    def joined(cls, columns: Sequence[TextColumn]) -> TextColumn:
        """Return columns one after the other."""
        lengths = np.concatenate([[0], *(column.lengths for column in columns)])
        data = np.concatenate([column.data for column in columns])
        return cls(data, np.cumsum(lengths, dtype=np.int64), _joined_missing(columns))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Bytes of each text."""
        return np.diff(self.offsets)

    def values(self, start: int, stop: int) -> list[Any]:
        """Return the rows from `start` up to `stop` as texts."""
        ends = (self.offsets[start : stop + 1] - self.offsets[start]).tolist()
        data = self.data[self.offsets[start] : self.offsets[stop]].tobytes()
        text = data.decode("utf-8", "surrogatepass")
        pairs = pairwise(ends)
        if len(text) == len(data):
            found = [text[a:b] for a, b in pairs]
        else:
            found = [data[a:b].decode("utf-8", "surrogatepass") for a, b in pairs]
        if self.missing is None:
            return found
        absent = self.missing[start:stop].tolist()
        return [None if gone else one for one, gone in zip(found, absent, strict=True)]

    def take(self, rows: Rows) -> TextColumn:
        """Return some rows."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                stop = max(start, stop)
                ends = self.offsets[start : stop + 1]
                missing = None if self.missing is None else self.missing[start:stop]
                return TextColumn(self.data[ends[0] : ends[-1]], ends - ends[0], missing)
            rows = np.arange(start, stop, step)
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        data = np.empty(int(offsets[-1]), np.uint8)
        for first, last in self._gather_blocks(offsets):
            index = _positions(self.offsets[rows[first:last]], lengths[first:last])
            data[offsets[first] : offsets[last]] = self.data[index]
        return TextColumn(data, offsets, None if self.missing is None else self.missing[rows])

    @staticmethod
    def _gather_blocks(offsets: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """Yield ranges of rows of some megabytes, at least one row each."""
        first, rows = 0, len(offsets) - 1
        while first < rows:
            end = offsets[first] + BLOCK_BYTES
            last = max(first + 1, int(np.searchsorted(offsets, end, "right")) - 1)
            yield first, min(last, rows)
            first = last

    def contains(self, text: str) -> NDArray[np.bool_]:
        """Return which rows contain an ASCII text: bool (rows,)."""
        found = np.zeros(len(self), bool)
        sought, n = text.encode(), len(text)
        for first, last in self._gather_blocks(self.offsets):
            data = self.data[self.offsets[first] : self.offsets[last]]
            hit = np.ones(max(0, len(data) - n + 1), bool)
            for k, byte in enumerate(sought):
                hit &= data[k : len(data) - n + 1 + k] == byte
            starts = np.flatnonzero(hit) + self.offsets[first]
            row = np.searchsorted(self.offsets, starts, "right") - 1
            found[row[starts + n <= self.offsets[row + 1]]] = True
        return found

    def hashes(self) -> NDArray[np.uint64]:
        """Return a hash of each text, by random numbers of this call: uint64 (rows,).

        A hash is a sum of bytes times random numbers by position, so no file can be crafted to
        collide.
        """
        longest = int(self.lengths.max(initial=0))
        random = np.random.default_rng()
        factors = random.integers(1, 2**64 - 1, longest + 1, np.uint64) | np.uint64(1)
        result = np.empty(len(self), np.uint64)
        with np.errstate(over="ignore"):
            for first, last in self._gather_blocks(self.offsets):
                starts = self.offsets[first : last + 1] - self.offsets[first]
                data = self.data[self.offsets[first] : self.offsets[last]]
                places = np.arange(len(data)) - np.repeat(starts[:-1], np.diff(starts))
                products = (data.astype(np.uint64) + np.uint64(1)) * factors[places]
                sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(products)])
                result[first:last] = sums[starts[1:]] - sums[starts[:-1]]
        if self.missing is not None:
            result[self.missing] = random.integers(0, 2**64 - 1, dtype=np.uint64)
        return result


class BytesColumn(Column[Any]):
    """Hexadecimal digests of one length, or None, as bytes.

    Parameters
    ----------
    data : uint8 array, (rows, bytes)
        The digests.
    missing : bool array, (rows,), optional
        True where the value is None.
    """

    __slots__ = ("data", "missing")

    def __init__(self, data: NDArray[np.uint8], missing: NDArray[np.bool_] | None = None) -> None:
        self.data, self.missing = data, missing

    @classmethod
    def of(cls, digests: Iterable[str | None]) -> BytesColumn | None:
        """Return the column of some digests; None if they are not hexadecimal, of one length."""
        parts, missing, width = [], [], 0
        for block in blocks(digests):
            width = width or next((len(one) for one in block if one), 0)
            if not width or width % 2:
                return None
            filled = [one or "0" * width for one in block]
            try:
                data = bytes.fromhex("".join(filled))
            except ValueError:
                return None
            if {*map(len, filled)} != {width} or data.hex() != "".join(filled) or "" in block:
                return None
            parts.append(np.frombuffer(data, np.uint8).reshape(-1, width // 2))
            missing.append(np.fromiter((one is None for one in block), bool, len(block)))
        if not parts:
            return None
        absent = np.concatenate(missing)
        return cls(np.concatenate(parts), absent if absent.any() else None)

    @classmethod
    def joined(cls, columns: Sequence[BytesColumn]) -> BytesColumn:
        """Return columns of digests of one length one after the other."""
        return cls(np.concatenate([column.data for column in columns]), _joined_missing(columns))

    def __len__(self) -> int:
        return len(self.data)

    def values(self, start: int, stop: int) -> list[Any]:
        """Return the rows from `start` up to `stop` as hexadecimal texts."""
        text, width = self.data[start:stop].tobytes().hex(), 2 * self.data.shape[1]
        found = [text[at : at + width] for at in range(0, len(text), width)]
        if self.missing is None:
            return found
        absent = self.missing[start:stop].tolist()
        return [None if gone else one for one, gone in zip(found, absent, strict=True)]

    def take(self, rows: Rows) -> BytesColumn:
        """Return some rows."""
        return BytesColumn(self.data[rows], None if self.missing is None else self.missing[rows])

    def hashes(self) -> NDArray[np.uint64]:
        """Return a hash of each digest, as :meth:`TextColumn.hashes`: uint64 (rows,)."""
        random = np.random.default_rng()
        result = np.zeros(len(self), np.uint64)
        with np.errstate(over="ignore"):
            for column in self.data.T:
                factor = random.integers(1, 2**64 - 1, dtype=np.uint64) | np.uint64(1)
                result += (column.astype(np.uint64) + np.uint64(1)) * factor
        if self.missing is not None:
            result[self.missing] = random.integers(0, 2**64 - 1, dtype=np.uint64)
        return result


def _positions(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the indices of ranges, one after the other."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - ends + lengths, lengths)


def _joined_missing(columns: Sequence[TextColumn | BytesColumn]) -> NDArray[np.bool_] | None:
    if all(column.missing is None for column in columns):
        return None
    return np.concatenate(
        [np.zeros(len(c), bool) if c.missing is None else c.missing for c in columns]
    )
