"""The cut's cache: what the frozen lower part of a network gives for views of pictures, kept.

A view is the picture as it is (view 0), a flipped version of it, or one augmented besides, drawn by
an address: the seed, the policy, the number of the view, and the picture's content. So a view is
the same whatever other pictures there are, in whatever order and by however many workers it is
made; and what was made of it once is found again by the next training.

The map at the cut is kept as float16, a thousandth of whose value is lost in the rounding, the
features of the lower part beside it as float32: a head's answer to view 0 is as without the cut,
but for that rounding.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kindsight.augment import augment_pictures
from kindsight.cache import Cache
from kindsight.catalog.places import PlacedRow, PlaceTable, PlaceWriter
from kindsight.catalog.store import StoredPictures
from kindsight.errors import CacheError
from kindsight.models.lower import LowerPart
from kindsight.models.views import flip
from kindsight.pictures import InputSpec
from kindsight.runtime import InterpreterPool
from kindsight.threads import map_ordered, single_threaded_opencv
from kindsight.training.view_plan import ViewPlan

__all__ = [
    "CutViews",
    "bytes_of_view",
    "map_records",
    "record_type",
    "store_views",
]

FORMAT = 1
"""Raised whenever the same view would give other numbers."""

# What a kill -9 can lose, in seconds of work.
FLUSH_SECONDS = 2.0

Rows = NDArray[np.int64]


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
class CutViews:
    """Views of pictures at the cut; to be closed.

    Parameters
    ----------
    file : pathlib.Path
        Where they are; see :func:`map_records`.
    places : array
        int64 (pictures, 1 + views): where in the file each view of each picture is; -1 for those
        that were not asked for. The first is the picture as it is.
    computed, reused : int
        How many were made, and how many did not have to be.
    seconds : float
        That making them took.
    """

    file: Path
    places: Rows
    computed: int
    reused: int
    seconds: float
    _table: PlaceTable

    def close(self) -> None:
        """Let the cache prune them, if it wants to."""
        self._table.close()


def store_views(
    stored: StoredPictures,
    lower: LowerPart,
    plan: ViewPlan,
    counts: Rows,
    *,
    spec: InputSpec,
    seed: int,
    cache: Cache,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    deadline: float | None = None,
) -> CutViews:
    """Find or make views of pictures at the cut.

    Parameters
    ----------
    stored : StoredPictures
        The pictures.
    lower : LowerPart
        What they are run through.
    plan : ViewPlan
        What the views are.
    counts : array
        int64 (pictures,): how many views beside the picture as it is; -1 for a picture of which
        nothing is needed.
    spec : InputSpec
        How the pictures were resized.
    seed : int
        Where the views' chance is found.
    cache : Cache
        Where they are kept, under its rules of how much and for how long.
    workers : int, optional
        How many are run at once; the number of cores if omitted.
    progress : callable, optional
        Called with (views done, views in all), from the calling thread.
    deadline : float, optional
        Of ``time.monotonic()``: whole rounds of views that would begin after it are left out.

    Raises
    ------
    CacheError
        Where the cache cannot be used.
    """
    name = f"{lower.digest[:16]}-{_word(lower.stage)}-{spec.key()}-{FORMAT}"
    path, start = cache.views_file(name), time.monotonic()
    pool = InterpreterPool(lower.tflite, workers)
    with ExitStack() as stack:
        table = PlaceTable(path, bytes_of_view(lower))
        stack.callback(table.close)
        makers = _Makers(stored, lower, plan, seed, pool, table)
        if _outgrows(makers, counts, cache.limit):
            # Views of other seeds and pictures, most of them: these would stay as long as it does.
            stack.close()
            cache.drop(path)
            table = PlaceTable(path, bytes_of_view(lower))
            stack.callback(table.close)
            makers = _Makers(stored, lower, plan, seed, pool, table)
        total, done, computed = int((counts + 1).sum()), 0, 0
        last = int(counts.max())
        for view in range(last + 1):
            if view > 1 and deadline is not None and time.monotonic() > deadline:
                last = view - 1
                break
            for here, made in makers.make(view, np.flatnonzero(counts >= view)):
                done, computed = done + here, computed + made
                if progress is not None:
                    progress(done, total)
        places = np.full((len(counts), last + 1), -1, np.int64)
        for view in range(last + 1):
            rows = np.flatnonzero(counts >= view)
            places[rows, view] = _places(table, makers.names(view, rows))
        cache.prune(keep=path)
        os.utime(path)
        stack.pop_all()
    seconds = time.monotonic() - start
    return CutViews(table.pixels, places, computed, done - computed, seconds, table)


def _outgrows(makers: _Makers, counts: Rows, limit: int) -> bool:
    """Whether a file with what is missing besides would be larger than all that is kept."""
    table, missing = makers.table, 0
    for view in range(int(counts.max()) + 1):
        names = set(makers.names(view, np.flatnonzero(counts >= view)))
        missing += len(names) - len(table.known(names))
    there = table.pixels.stat().st_size if table.pixels.exists() else 0
    return missing > 0 and there > 0 and there + missing * table.bytes_each > limit


def _word(stage: str) -> str:
    """Return what of a layer's name may stand in a file's."""
    return "".join(c for c in stage if c.isascii() and (c.isalnum() or c in "_-"))[:60]


def _places(table: PlaceTable, names: list[str]) -> Rows:
    try:
        return table.places(names)
    except KeyError as error:
        raise CacheError(
            f"What is in the cache must stay there while it is used. Received: {table.path}, from "
            "which views have gone: was the cache cleared just now? The same command makes them "
            "again."
        ) from error


@dataclass(frozen=True)
class _Makers:
    """Makes what is missing of one view of many pictures."""

    stored: StoredPictures
    lower: LowerPart
    plan: ViewPlan
    seed: int
    pool: InterpreterPool
    table: PlaceTable

    def names(self, view: int, rows: Rows) -> list[str]:
        """Return by what a view of each picture is found: nothing of it is other pictures'."""
        digests = [str(self.stored.catalog.digest[row]) for row in rows.tolist()]
        address = self.plan.address(view, self.seed)
        return [f"{digest}/{address}" for digest in digests] if address else digests

    def make(self, view: int, rows: Rows) -> Iterator[tuple[int, int]]:
        """Make the missing ones; yield how many are there, and how many of them were made."""
        names = self.names(view, rows)
        known = self.table.known(names)
        missing = {
            name: row for name, row in zip(names, rows.tolist(), strict=True) if name not in known
        }
        yield len(rows) - len(missing), 0
        kind, flushed = record_type(self.lower.low, self.lower.shape), time.monotonic()

        def run(item: tuple[str, int]) -> PlacedRow:
            name, row = item
            pixels = flip(self.stored.pixels(np.array([row]))[0], self.plan.flip(view))
            if self.plan.is_drawn(view):
                index = np.array([_index(str(self.stored.catalog.digest[row]))])
                (pixels,) = augment_pictures(
                    pixels[None], self.plan.policy, seed=self.seed, epoch=view, index=index,
                    workers=1,
                )  # fmt: skip
            numbers = self.pool.run(pixels)
            record = np.empty(1, kind)
            record["low"] = numbers[: self.lower.low]
            record["map"] = numbers[self.lower.low :].reshape(self.lower.shape)
            return writer.make(name, record.view(np.uint8), (0, 0))

        with closing(PlaceWriter(self.table)) as writer, single_threaded_opencv():
            ready: list[PlacedRow] = []
            for row in map_ordered(run, missing.items(), self.pool.workers):
                ready.append(row)
                if time.monotonic() - flushed > FLUSH_SECONDS:
                    self.table.put(ready)
                    yield len(ready), len(ready)
                    ready, flushed = [], time.monotonic()
            self.table.put(ready)
            yield len(ready), len(ready)


def _index(digest: str) -> int:
    """Return the number by which a picture's chance is found, from what is in it."""
    return int.from_bytes(hashlib.blake2b(digest.encode(), digest_size=8).digest(), "little") >> 1
