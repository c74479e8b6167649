"""The file of the cut's cache: what one lower part gives for views of pictures, and where it is.

A view is found by what makes it: the picture's content, and for other views than the picture as it
is the flip, the policy, the seed and the view's number. The map at the cut is kept as float16, a
thousandth of whose value is lost in the rounding, the features of the lower part beside it as
float32.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kindsight.cache import Cache
from kindsight.catalog.places import PlaceTable
from kindsight.catalog.store import StoredPictures
from kindsight.models.lower import LowerPart
from kindsight.pictures import InputSpec
from kindsight.training.view_plan import ViewPlan

__all__ = ["CutFile", "Wanted", "bytes_of_view", "map_records", "record_type"]

FORMAT = 1
"""Raised whenever the same view would give other numbers."""

Rows = NDArray[np.int64]

Wanted: TypeAlias = tuple[ViewPlan, Rows]
"""What the views are, and of each picture how many beside it as it is; -1 for nothing of it."""


def record_type(low: int, shape: tuple[int, ...]) -> np.dtype[np.void]:
    """Return how a view is kept: ``"low"`` features as float32, the ``"map"`` as float16."""
    return np.dtype([("low", "<f4", (low,)), ("map", "<f2", shape)])


def bytes_of_view(lower: LowerPart) -> int:
    """Return how many bytes a view takes on disk."""
    return int(record_type(lower.low, lower.shape).itemsize)


def map_records(file: Path, low: int, shape: tuple[int, ...]) -> NDArray[np.void]:
    """Map a file of views into memory, only to be read: (places,) of :func:`record_type`."""
    kind = record_type(low, shape)
    return np.memmap(file, kind, "r", shape=(file.stat().st_size // kind.itemsize,))


@dataclass(frozen=True)
class CutFile:
    """Where views of pictures at a cut are kept.

    Parameters
    ----------
    stored : StoredPictures
        The pictures.
    lower : LowerPart
        What they are run through.
    spec : InputSpec
        How the pictures were resized.
    seed : int
        Where the views' chance is found.
    cache : Cache
        Under whose rules they are kept.
    """

    stored: StoredPictures
    lower: LowerPart
    spec: InputSpec
    seed: int
    cache: Cache

    @property
    def path(self) -> Path:
        """The table's path."""
        stage = "".join(c for c in self.lower.stage if c.isascii() and (c.isalnum() or c in "_-"))
        name = f"{self.lower.digest[:16]}-{stage[:60]}-{self.spec.key()}-{FORMAT}"
        return self.cache.views_file(name)

    def open(self) -> PlaceTable:
        """Open the table; to be closed."""
        return PlaceTable(self.path, bytes_of_view(self.lower))

    def names(self, plan: ViewPlan, view: int, rows: Rows) -> list[str]:
        """Return by what a view of each picture is found: nothing of it is other pictures'."""
        digests = [str(self.stored.catalog.digest[row]) for row in rows.tolist()]
        address = plan.address(view, self.seed)
        return [f"{digest}/{address}" for digest in digests] if address else digests

    def every(self, wanted: Iterable[Wanted]) -> set[str]:
        """Return the names of all views that are wanted."""
        return {
            name
            for plan, counts in wanted
            for view in range(int(counts.max(initial=-1)) + 1)
            for name in self.names(plan, view, np.flatnonzero(counts >= view))
        }

    def missing(self, names: set[str]) -> int:
        """Return how many of some views are not there yet."""
        if not self.path.exists():
            return len(names)
        with closing(self.open()) as table:
            return len(names - table.known(names))

    def make_room(self, names: set[str]) -> None:
        """Begin the file anew if it would outgrow the cache by the views that are missing.

        What is in it then are mostly views of other seeds and pictures, and would stay as long as
        the file does. One that is in use is left as it is.
        """
        pixels = self.path.with_suffix(".pixels")
        there, missing = pixels.stat().st_size if pixels.exists() else 0, self.missing(names)
        more = missing * bytes_of_view(self.lower)
        if there and more and there + more > self.cache.limit:
            self.cache.drop(self.path)
