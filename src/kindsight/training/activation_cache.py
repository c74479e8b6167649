"""The activation cache: outputs of a frozen base for images and their augmented copies.

Copy 0 of an image is the original; the others are flipped or augmented. The random numbers of a
copy depend on the seed, the policy, its number and the image's content only, so it is the same
whatever other images there are, and a later training finds it in the cache.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kindsight.augment import Augment, augment_images
from kindsight.cache.array_file import SlotRow, SlotTable, SlotWriter, map_array
from kindsight.cache.folder import Cache
from kindsight.cache.sqlite_table import LostTableError, array_files, delete_unused
from kindsight.dataset.reading.image_cache import CachedImages
from kindsight.digest import content_digest
from kindsight.images import InputSpec
from kindsight.models.backbones.tta import flip_image
from kindsight.models.networks.frozen_base import FrozenBase
from kindsight.models.runtime import InterpreterPool
from kindsight.models.worker.gpu_pool import NetworkPool
from kindsight.threads import map_ordered, single_threaded_opencv

__all__ = [
    "ActivationFile", "CachedActivations", "CopyPlan", "RequestedCopies", "activation_dtype",
    "bytes_per_copy", "cache_activations", "map_activations",
]  # fmt: skip

FORMAT = 1
"""Increased whenever the same copy would give other activations."""

# Seconds of work that a kill -9 can lose.
FLUSH_SECONDS = 2.0

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class CopyPlan:
    """How the copies of an image are flipped and augmented.

    Parameters
    ----------
    flips : tuple of int
        Indices of :data:`kindsight.models.backbones.tta.FLIPS`, the first 0. The first copies are
        only flipped; further ones repeat these flips and are augmented.
    policy : Augment
    """

    flips: tuple[int, ...]
    policy: Augment

    def flip(self, copy: int) -> int:
        """Return the flip of a copy."""
        return self.flips[copy % len(self.flips)]

    def is_augmented(self, copy: int) -> bool:
        """Whether a copy is augmented by the policy."""
        return copy >= len(self.flips) and self.policy.changes_images

    def most(self, wanted: int) -> int:
        """Return the number of distinct copies besides the original, at most `wanted`."""
        return wanted if self.policy.changes_images else min(wanted, len(self.flips) - 1)

    def key(self, copy: int, seed: int) -> str:
        """Return the key of a copy among all copies of an image; empty for the original."""
        if not copy:
            return ""
        augmentation = [self.policy.to_dict(), seed, copy] if self.is_augmented(copy) else []
        return content_digest(json.dumps([self.flip(copy), *augmentation], sort_keys=True), 12)


RequestedCopies: TypeAlias = tuple[CopyPlan, Rows]
"""A plan, and for each image the number of copies besides the original; -1 for no activations."""


def activation_dtype(features: int, shape: tuple[int, ...]) -> np.dtype[np.void]:
    """Return the record of a copy: ``"features"`` as float32, the activation ``"map"`` as float16.

    float16 rounds values by at most a thousandth.
    """
    return np.dtype([("features", "<f4", (features,)), ("map", "<f2", shape)])


def bytes_per_copy(base: FrozenBase) -> int:
    """Return the size of a copy's record on disk."""
    return int(activation_dtype(base.features, base.shape).itemsize)


def map_activations(file: Path, features: int, shape: tuple[int, ...]) -> NDArray[np.void]:
    """Map a file of activations into memory, read-only: (rows,) of :func:`activation_dtype`."""
    return map_array(file, activation_dtype(features, shape))


@dataclass(frozen=True)
class ActivationFile:
    """The cache file of a frozen base's activations.

    Parameters
    ----------
    stored : CachedImages
        The images.
    base : FrozenBase
    spec : InputSpec
        How the images were resized.
    seed : int
        Of the augmentation.
    cache : Cache
    """

    stored: CachedImages
    base: FrozenBase
    spec: InputSpec
    seed: int
    cache: Cache

    @property
    def path(self) -> Path:
        """The path of the file's index."""
        stage = "".join(c for c in self.base.stage if c.isascii() and (c.isalnum() or c in "_-"))
        name = f"{self.base.digest[:16]}-{stage[:60]}-{self.spec.key()}-{FORMAT}"
        return self.cache.activations_file(name)

    def open(self) -> SlotTable:
        """Open the index; to be closed."""
        return SlotTable(self.path, bytes_per_copy(self.base))

    def names(self, plan: CopyPlan, copy: int, rows: Rows) -> list[str]:
        """Return the names in the index of a copy of each image."""
        digests = [str(self.stored.dataset.digest[row]) for row in rows.tolist()]
        key = plan.key(copy, self.seed)
        return [f"{digest}/{key}" for digest in digests] if key else digests

    def all_names(self, requests: Iterable[RequestedCopies]) -> set[str]:
        """Return the names of all requested copies."""
        return {
            name
            for plan, counts in requests
            for copy in range(int(counts.max(initial=-1)) + 1)
            for name in self.names(plan, copy, np.flatnonzero(counts >= copy))
        }

    def missing(self, names: set[str]) -> int:
        """Return how many copies are not cached yet."""
        if not self.path.exists():
            return len(names)
        with closing(self.open()) as table:
            return len(names - table.known(names))

    def make_room(self, names: set[str]) -> None:
        """Delete the file if the missing copies would make it outgrow the cache.

        Most of its content then belongs to other seeds and images. A file in use is not deleted.
        """
        missing = self.missing(names)
        size = sum(file.stat().st_size for file in array_files(self.path))
        more = missing * bytes_per_copy(self.base)
        if size and more and size + more > self.cache.limit:
            delete_unused(self.path)


@dataclass(frozen=True)
class CachedActivations:
    """Cached activations of images; to be closed.

    Parameters
    ----------
    file : pathlib.Path
        See :func:`map_activations`.
    rows : array
        int64 (images, 1 + copies): the row in the file of each copy, the original first; -1 for
        copies that were not requested.
    computed, reused : int
        Copies computed now, and found in the cache.
    seconds : float
        Time taken.
    """

    file: Path
    rows: Rows
    computed: int
    reused: int
    seconds: float
    _table: SlotTable

    def close(self) -> None:
        """Allow the cache to prune the file."""
        self._table.close()


def cache_activations(
    file: ActivationFile,
    plan: CopyPlan,
    counts: Rows,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    deadline: float | None = None,
    open_network: Callable[[int], NetworkPool] | None = None,
) -> CachedActivations:
    """Find or compute the activations of images and their copies.

    Parameters
    ----------
    file : ActivationFile
    plan : CopyPlan
    counts : array
        int64 (images,): copies besides the original; -1 for an image without activations.
    workers : int, optional
        Threads; the number of cores if omitted.
    progress : callable, optional
        Called with (copies done, copies) from the calling thread.
    deadline : float, optional
        Value of ``time.monotonic()`` after which no further round of copies is started.
    open_network : callable, optional
        From the number of copies to compute to what runs the frozen base; default: LiteRT.

    Raises
    ------
    CacheError
        If the cache is not usable. A file that is damaged or deleted meanwhile is computed again.
    """
    given = file, plan, counts, workers, progress, deadline, open_network
    with suppress(LostTableError):
        return _cache_activations(*given)
    return _cache_activations(*given)


def _cache_activations(
    file: ActivationFile,
    plan: CopyPlan,
    counts: Rows,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
    deadline: float | None,
    open_network: Callable[[int], NetworkPool] | None,
) -> CachedActivations:
    start = time.monotonic()
    names = file.all_names([(plan, counts)])
    file.make_room(names)
    if open_network is None:
        pool: NetworkPool = InterpreterPool(file.base.tflite, workers)
    else:
        pool = open_network(file.missing(names))
    with ExitStack() as stack:
        table = file.open()
        stack.callback(table.close)
        total, done, computed = int((counts + 1).sum()), 0, 0
        last = int(counts.max())
        for copy in range(last + 1):
            if copy > 1 and deadline is not None and time.monotonic() > deadline:
                last = copy - 1
                break
            images = np.flatnonzero(counts >= copy)
            for ready, new in _compute_missing(file, plan, pool, table, copy, images):
                done, computed = done + ready, computed + new
                if progress is not None:
                    progress(done, total)
        rows = np.full((len(counts), last + 1), -1, np.int64)
        for copy in range(last + 1):
            images = np.flatnonzero(counts >= copy)
            rows[images, copy] = table.slots(file.names(plan, copy, images))
        file.cache.prune(keep=file.path)
        with suppress(OSError):
            os.utime(file.path)
        stack.pop_all()
    seconds = time.monotonic() - start
    return CachedActivations(table.pixels, rows, computed, done - computed, seconds, table)


def _compute_missing(
    file: ActivationFile,
    plan: CopyPlan,
    pool: NetworkPool,
    table: SlotTable,
    copy: int,
    images: Rows,
) -> Iterator[tuple[int, int]]:
    """Compute one copy of many images; yield how many are ready, and how many of them are new."""
    stored, base = file.stored, file.base
    names = file.names(plan, copy, images)
    known = table.known(names)
    missing = {
        name: row for name, row in zip(names, images.tolist(), strict=True) if name not in known
    }
    yield len(images) - len(missing), 0
    dtype, flushed = activation_dtype(base.features, base.shape), time.monotonic()

    def compute(item: tuple[str, int]) -> SlotRow:
        name, row = item
        pixels = flip_image(stored.pixels(np.array([row]))[0], plan.flip(copy))
        if plan.is_augmented(copy):
            index = np.array([_random_index(str(stored.dataset.digest[row]))])
            (pixels,) = augment_images(
                pixels[None], plan.policy, seed=file.seed, epoch=copy, index=index, workers=1
            )
        outputs = pool.run(pixels)
        record = np.empty(1, dtype)
        record["features"] = outputs[: base.features]
        record["map"] = outputs[base.features :].reshape(base.shape)
        return writer.make(name, record.view(np.uint8), (0, 0))

    with closing(SlotWriter(table)) as writer, single_threaded_opencv():
        ready: list[SlotRow] = []
        for placed in map_ordered(compute, missing.items(), pool.workers):
            ready.append(placed)
            if time.monotonic() - flushed > FLUSH_SECONDS:
                table.put(ready)
                yield len(ready), len(ready)
                ready, flushed = [], time.monotonic()
        table.put(ready)
        yield len(ready), len(ready)


def _random_index(digest: str) -> int:
    """Return the index of an image's random numbers, derived from its content."""
    return int.from_bytes(bytes.fromhex(content_digest(digest, 8)), "little") >> 1
