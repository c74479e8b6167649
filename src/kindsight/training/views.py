"""The cut's cache: what the frozen lower part of a network gives for views of pictures, kept.

A view is the picture as it is (view 0), a flipped version of it, or one augmented besides, drawn by
an address: the seed, the policy, the number of the view, and the picture's content. So a view is
the same whatever other pictures there are, in whatever order and by however many workers it is
made; and what was made of it once is found again by the next training.
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
from kindsight.catalog.places import PlacedRow, PlaceTable, PlaceWriter
from kindsight.errors import CacheError
from kindsight.models.views import flip
from kindsight.runtime import InterpreterPool
from kindsight.threads import map_ordered, single_threaded_opencv
from kindsight.training.cut_file import CutFile, record_type
from kindsight.training.view_plan import ViewPlan

__all__ = ["CutViews", "store_views"]

# What a kill -9 can lose, in seconds of work.
FLUSH_SECONDS = 2.0

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class CutViews:
    """Views of pictures at the cut; to be closed.

    Parameters
    ----------
    file : pathlib.Path
        Where they are; see :func:`.cut_file.map_records`.
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
    file: CutFile,
    plan: ViewPlan,
    counts: Rows,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    deadline: float | None = None,
) -> CutViews:
    """Find or make views of pictures at the cut.

    Parameters
    ----------
    file : CutFile
        Where they are kept, of which pictures, and what these are run through.
    plan : ViewPlan
        What the views are.
    counts : array
        int64 (pictures,): how many views beside the picture as it is; -1 for a picture of which
        nothing is needed.
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
    start = time.monotonic()
    file.make_room(file.every([(plan, counts)]))
    pool = InterpreterPool(file.lower.tflite, workers)
    with ExitStack() as stack:
        table = file.open()
        stack.callback(table.close)
        makers = _Makers(file, plan, pool, table)
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
            places[rows, view] = _places(table, file.names(plan, view, rows))
        file.cache.prune(keep=file.path)
        os.utime(file.path)
        stack.pop_all()
    seconds = time.monotonic() - start
    return CutViews(table.pixels, places, computed, done - computed, seconds, table)


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

    file: CutFile
    plan: ViewPlan
    pool: InterpreterPool
    table: PlaceTable

    def make(self, view: int, rows: Rows) -> Iterator[tuple[int, int]]:
        """Make the missing ones; yield how many are there, and how many of them were made."""
        stored, lower, seed = self.file.stored, self.file.lower, self.file.seed
        names = self.file.names(self.plan, view, rows)
        known = self.table.known(names)
        missing = {
            name: row for name, row in zip(names, rows.tolist(), strict=True) if name not in known
        }
        yield len(rows) - len(missing), 0
        kind, flushed = record_type(lower.low, lower.shape), time.monotonic()

        def run(item: tuple[str, int]) -> PlacedRow:
            name, row = item
            pixels = flip(stored.pixels(np.array([row]))[0], self.plan.flip(view))
            if self.plan.is_drawn(view):
                index = np.array([_index(str(stored.catalog.digest[row]))])
                (pixels,) = augment_pictures(
                    pixels[None], self.plan.policy, seed=seed, epoch=view, index=index,
                    workers=1,
                )  # fmt: skip
            numbers = self.pool.run(pixels)
            record = np.empty(1, kind)
            record["low"] = numbers[: lower.low]
            record["map"] = numbers[lower.low :].reshape(lower.shape)
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
