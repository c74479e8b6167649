"""The cut's cache: what the frozen lower part of a network gives for views of images, kept.

A view is the image as it is (view 0), a flipped version of it, or one augmented besides, drawn by
an address: the seed, the policy, the number of the view, and the image's content. So a view is
the same whatever other images there are, in whatever order and by however many workers it is
made; and what was made of it once is found again by the next training.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kindsight.augment import Augment, augment_images
from kindsight.cache.array_file import PlacedRow, PlaceTable, PlaceWriter
from kindsight.cache.folder import Cache
from kindsight.dataset.reading.image_cache import CachedImages
from kindsight.digest import content_digest
from kindsight.errors import CacheError
from kindsight.images import InputSpec
from kindsight.models.backbones.tta import flip_image
from kindsight.models.networks.frozen_base import FrozenBase
from kindsight.models.runtime import InterpreterPool
from kindsight.threads import map_ordered, single_threaded_opencv

__all__ = [
    "ActivationFile",
    "CachedActivations",
    "CopyPlan",
    "Wanted",
    "activation_dtype",
    "bytes_per_copy",
    "cache_activations",
    "map_activations",
]

# SECTION: What the views of an image are, and by what each is known.


@dataclass(frozen=True)
class CopyPlan:
    """What the views of an image are.

    Parameters
    ----------
    flips : tuple of int
        Which of :data:`kindsight.models.backbones.tta.FLIPS`, the first being 0, the image as it
        is: so
        many views are no more than flipped, the rest are these in turn, augmented.
    policy : Augment
        What is done to those, drawn for each.
    """

    flips: tuple[int, ...]
    policy: Augment

    def flip(self, view: int) -> int:
        """Return how a view is flipped."""
        return self.flips[view % len(self.flips)]

    def is_drawn(self, view: int) -> bool:
        """Whether a view is augmented besides."""
        return view >= len(self.flips) and self.policy.changes_images

    def most(self, wanted: int) -> int:
        """Return how many views there are beside the image as it is, `wanted` at most."""
        return wanted if self.policy.changes_images else min(wanted, len(self.flips) - 1)

    def address(self, view: int, seed: int) -> str:
        """Return what a view is known by, whatever image it is of; empty for view 0."""
        if not view:
            return ""
        drawn = [self.policy.to_dict(), seed, view] if self.is_drawn(view) else []
        told = json.dumps([self.flip(view), *drawn], sort_keys=True)
        return content_digest(told, 12)


# SECTION: The file of the cut's cache: what one lower part gives for views of images, and where
# it is.
#
# A view is found by what makes it: the image's content, and for other views than the image as it
# is the flip, the policy, the seed and the view's number. The map at the cut is kept as float16, a
# thousandth of whose value is lost in the rounding, the features of the lower part beside it as
# float32.

FORMAT = 1
"""Raised whenever the same view would give other numbers."""

Rows = NDArray[np.int64]

Wanted: TypeAlias = tuple[CopyPlan, Rows]
"""What the views are, and of each image how many beside it as it is; -1 for nothing of it."""


def activation_dtype(low: int, shape: tuple[int, ...]) -> np.dtype[np.void]:
    """Return how a view is kept: ``"low"`` features as float32, the ``"map"`` as float16."""
    return np.dtype([("low", "<f4", (low,)), ("map", "<f2", shape)])


def bytes_per_copy(lower: FrozenBase) -> int:
    """Return how many bytes a view takes on disk."""
    return int(activation_dtype(lower.low, lower.shape).itemsize)


def map_activations(file: Path, low: int, shape: tuple[int, ...]) -> NDArray[np.void]:
    """Map a file of views into memory, only to be read: (places,) of :func:`activation_dtype`."""
    kind = activation_dtype(low, shape)
    return np.memmap(file, kind, "r", shape=(file.stat().st_size // kind.itemsize,))


@dataclass(frozen=True)
class ActivationFile:
    """Where views of images at a cut are kept.

    Parameters
    ----------
    stored : CachedImages
        The images.
    lower : FrozenBase
        What they are run through.
    spec : InputSpec
        How the images were resized.
    seed : int
        Where the views' chance is found.
    cache : Cache
        Under whose rules they are kept.
    """

    stored: CachedImages
    lower: FrozenBase
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
        return PlaceTable(self.path, bytes_per_copy(self.lower))

    def names(self, plan: CopyPlan, view: int, rows: Rows) -> list[str]:
        """Return by what a view of each image is found: nothing of it is other images'."""
        digests = [str(self.stored.dataset.digest[row]) for row in rows.tolist()]
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

        What is in it then are mostly views of other seeds and images, and would stay as long as
        the file does. One that is in use is left as it is.
        """
        pixels = self.path.with_suffix(".pixels")
        there, missing = pixels.stat().st_size if pixels.exists() else 0, self.missing(names)
        more = missing * bytes_per_copy(self.lower)
        if there and more and there + more > self.cache.limit:
            self.cache.drop(self.path)


# What a kill -9 can lose, in seconds of work.
FLUSH_SECONDS = 2.0


@dataclass(frozen=True)
class CachedActivations:
    """Views of images at the cut; to be closed.

    Parameters
    ----------
    file : pathlib.Path
        Where they are; see :func:`.cut_file.map_activations`.
    places : array
        int64 (images, 1 + views): where in the file each view of each image is; -1 for those
        that were not asked for. The first is the image as it is.
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


def cache_activations(
    file: ActivationFile,
    plan: CopyPlan,
    counts: Rows,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    deadline: float | None = None,
) -> CachedActivations:
    """Find or make views of images at the cut.

    Parameters
    ----------
    file : ActivationFile
        Where they are kept, of which images, and what these are run through.
    plan : CopyPlan
        What the views are.
    counts : array
        int64 (images,): how many views beside the image as it is; -1 for an image of which
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
    return CachedActivations(table.pixels, places, computed, done - computed, seconds, table)


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
    """Makes what is missing of one view of many images."""

    file: ActivationFile
    plan: CopyPlan
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
        kind, flushed = activation_dtype(lower.low, lower.shape), time.monotonic()

        def run(item: tuple[str, int]) -> PlacedRow:
            name, row = item
            pixels = flip_image(stored.pixels(np.array([row]))[0], self.plan.flip(view))
            if self.plan.is_drawn(view):
                index = np.array([_index(str(stored.dataset.digest[row]))])
                (pixels,) = augment_images(
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
    """Return the number by which an image's chance is found, from what is in it."""
    return int.from_bytes(bytes.fromhex(content_digest(digest, 8)), "little") >> 1
