"""Collect a column of texts block by block, while a table is read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.columns.codes import FEW_NAMES, CodeColumn
from kindsight.dataset.columns.texts import TextColumn

__all__ = ["ColumnBuilder"]

_TEXT, _CODE = 8, 4  # bytes of a row, in addition to its text


class ColumnBuilder:
    """A growing column: codes while it has few distinct texts, then the texts themselves.

    Attributes
    ----------
    nbytes : int
        Approximate memory of the column, in bytes.
    """

    def __init__(self) -> None:
        self.nbytes = 0
        self._index: dict[str, int] | None = {}
        self._codes: list[NDArray[np.int32]] = []
        self._data = bytearray()
        self._lengths: list[NDArray[np.int64]] = [np.zeros(1, np.int64)]

    def add(self, texts: Sequence[str]) -> None:
        """Add a block of rows."""
        if self._index is None:
            self._add_texts(TextColumn.of(texts))
            return
        index = self._index
        size = len(index)
        codes = np.fromiter(
            (index.setdefault(text, len(index)) for text in texts), np.int32, len(texts)
        )
        self._add_codes(codes, size)

    def add_coded(self, names: Sequence[str], indices: NDArray[np.integer[Any]], limit: int) -> int:
        """Add a block of rows: the index of each one's text in `names`.

        Returns the bytes that they take. The block is not added if that is more than `limit`.
        """
        before = self.nbytes
        if self._index is None:
            texts = TextColumn.of(names)
            needed = int(texts.lengths[indices].sum()) + _TEXT * len(indices)
            if needed <= limit:
                self._add_texts(texts.take(indices))
            return needed
        index, size = self._index, len(self._index)
        codes = np.fromiter(
            (index.setdefault(name, len(index)) for name in names), np.int32, len(names)
        )
        self._add_codes(codes[indices], size)
        return self.nbytes - before

    def finish(self) -> CodeColumn | TextColumn:
        """Return the column."""
        if self._index is not None:
            return CodeColumn(
                np.concatenate([np.zeros(0, np.int32), *self._codes]), tuple(self._index)
            )
        return TextColumn(
            np.frombuffer(self._data, np.uint8), np.cumsum(np.concatenate(self._lengths))
        )

    def _add_codes(self, codes: NDArray[np.int32], known: int) -> None:
        assert self._index is not None
        self._codes.append(codes)
        self.nbytes += _CODE * len(codes) + sum(map(len, islice(self._index, known, None)))
        if len(self._index) > FEW_NAMES:
            names = TextColumn.of(self._index)
            self._index, self.nbytes = None, 0
            for block in self._codes:
                self._add_texts(names.take(block))
            self._codes = []

    def _add_texts(self, texts: TextColumn) -> None:
        self._data += texts.data.data
        self._lengths.append(texts.lengths)
        self.nbytes += len(texts.data) + _TEXT * len(texts)
