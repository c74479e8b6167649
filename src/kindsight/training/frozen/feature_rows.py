"""Features of many images, in memory or, where they are too large, in the feature cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.checks.context import Vectors
from kindsight.training.frozen.feature_cache import FeatureTable

__all__ = ["FeatureRows"]

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Combine = Callable[[list[Floats]], Floats]

IN_MEMORY = 200_000_000
"""Maximum bytes of features that are held in memory: 9,700 images with EfficientNet-Lite0. Larger
ones remain in the cache and are read in blocks, at 0.1 milliseconds per image."""

BLOCK = 4_096
"""Number of images whose features are read at once: 84 MB with EfficientNet-Lite0."""


@dataclass(frozen=True)
class FeatureRows:
    """The features of some images, float32 (images, width).

    Parameters
    ----------
    read : callable
        Takes rows of the source, int64 (m,); returns their features, float32 (m, source width).
    rows : int64 array (n,)
        The source's row of each image.
    columns : slice
        The source's columns.
    width : int
        Number of features.
    """

    read: Callable[[Rows], Floats]
    rows: Rows
    columns: slice
    width: int

    @classmethod
    def of(cls, features: Vectors) -> FeatureRows:
        """Return the rows of an array, float32 (images, width)."""
        if isinstance(features, FeatureRows):
            return features
        count, width = len(features), features.shape[1]
        return cls(features.__getitem__, np.arange(count), slice(0, width), width)

    @classmethod
    def of_table(cls, table: FeatureTable, digests: Sequence[str | None]) -> FeatureRows:
        """Return the features of `digests`; LostTableError for one that the table lacks.

        They are held in memory unless they are too large.
        """
        path, width = table.path, table.width
        if 4 * len(digests) * width <= IN_MEMORY:
            return cls.of(table.vectors([str(digest) for digest in digests]))
        table.require_known(digests)
        return cls(_TableReader(path, width, digests), np.arange(len(digests)), slice(None), width)

    @classmethod
    def combined(cls, parts: Sequence[FeatureRows], combine: Combine) -> FeatureRows:
        """Return the results of a function of several features of the same images.

        They are held in memory unless they are too large.
        """
        width = combine([part[:0] for part in parts]).shape[1]
        found = cls(_Combined(parts, combine), np.arange(len(parts[0])), slice(None), width)
        return cls.of(found[:]) if 4 * len(found) * width <= IN_MEMORY else found

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int]:
        """(images, width)."""
        return len(self.rows), self.width

    def __getitem__(self, rows: Any) -> Floats:
        """Return the features of some images: a slice, a mask, indices, or one index."""
        chosen = np.asarray(self.rows[rows])
        values = np.ascontiguousarray(self.read(np.atleast_1d(chosen))[:, self.columns])
        return values if chosen.ndim else values[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)

    def take(self, rows: Rows | NDArray[np.bool_] | Sequence[bool]) -> FeatureRows:
        """Return some of the images, without reading them."""
        return replace(self, rows=self.rows[rows])

    def of_columns(self, columns: slice) -> FeatureRows:
        """Return a range of columns, without reading them."""
        first = self.columns.start or 0
        chosen = slice(first + columns.start, first + columns.stop)
        return replace(self, columns=chosen, width=columns.stop - columns.start)

    def blocks(self) -> Iterator[tuple[slice, Floats]]:
        """Yield the features in blocks, each with its slice of rows."""
        for start in range(0, max(1, len(self)), BLOCK):
            place = slice(start, min(start + BLOCK, len(self)))
            yield place, self[place]

    def map(self, function: Callable[[Floats], NDArray[Any]], dtype: Any = None) -> NDArray[Any]:
        """Return the results of a function from features to one row per image, block by block.

        - `dtype`: dtype of the result. Default: that of the function's results.
        """
        out: NDArray[Any] | None = None
        for place, features in self.blocks():
            found = function(features)
            if out is None:
                out = np.empty((len(self), *found.shape[1:]), dtype or found.dtype)
            out[place] = found
        assert out is not None
        return out


@dataclass(frozen=True)
class _TableReader:
    """Reads features from the cache."""

    path: Path
    width: int
    digests: Sequence[str | None]

    def __call__(self, rows: Rows) -> Floats:
        with closing(FeatureTable(self.path, self.width)) as table:
            return table.vectors([str(self.digests[row]) for row in rows.tolist()])


@dataclass(frozen=True)
class _Combined:
    """Computes features from several features of the same images."""

    parts: Sequence[FeatureRows]
    combine: Combine

    def __call__(self, rows: Rows) -> Floats:
        return self.combine([part[rows] for part in self.parts])
