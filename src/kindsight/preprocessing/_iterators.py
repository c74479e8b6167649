"""The base class of the iterators: the order of images, and prefetching of the next batch.

An iterator is a Keras ``PyDataset`` (indexed, from any thread) and an endless Python iterator. Both
draw from NumPy's global state at the same moments as Keras.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator as Iterating
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import UsageError
from kindsight.preprocessing import _keras
from kindsight.preprocessing._batches import PendingBatch, Work, has_helpers
from kindsight.preprocessing._keras import PyDataset
from kindsight.preprocessing._random_parameters import GLOBAL, Source, draw_lock
from kindsight.preprocessing._warnings import warn_trap

Facts = dict[str, Any]
_PROGRESS = ("batch_index", "total_batches_seen", "index_array")
_PLAIN = (bool, float, int, str, tuple, type(None))
_MAX_MISSES = 6
_spare = np.random.RandomState(0)  # only used by the thread that holds the draw lock


@dataclass(frozen=True)
class _Prefetched:
    """A prefetched batch, the state it depends on, and the state to set when it is returned."""

    process: int
    index: int | None
    facts: Facts
    state: Any
    progress: Facts
    state_after: Any
    pending: PendingBatch


class Prefetcher:
    """Prepares the next batch on the other threads while the caller uses the current one.

    The random parameters are drawn from a copy of NumPy's global state. The batch is returned only
    if the global state, the iterator and the generator are unchanged; the global state is then set
    to the state after these draws. Otherwise the batch is discarded and drawn as usual, so results
    are always those of an iterator without prefetching. After repeated misses, since somebody else
    draws random numbers in between, more and more batches are skipped before the next attempt.
    """

    def __init__(self) -> None:
        self._prefetched: _Prefetched | None = None
        self._misses, self._pause, self._is_light = 0, 0, False

    def take(self, iterator: Iterator, index: int | None) -> PendingBatch | None:
        """Return the prefetched batch if it is still valid; `index` is None for plain iteration."""
        prefetched, self._prefetched = self._prefetched, None
        # A forked process does not have the threads that process the batch.
        if prefetched is None or prefetched.process != os.getpid():
            return None
        fits = prefetched.index == index and _unchanged(prefetched.facts, _facts(iterator))
        # With a seed, a batch does not depend on the previous state.
        seeded = iterator.seed is not None
        if not fits or not (seeded or _same_state(prefetched.state, np.random.get_state())):
            prefetched.pending.work.stop()
            self._misses = min(self._misses + 1, _MAX_MISSES)
            self._pause = 2**self._misses - 1
            return None
        self._misses = 0
        iterator.__dict__.update(prefetched.progress)
        np.random.set_state(prefetched.state_after)
        return prefetched.pending

    def note(self, pending: PendingBatch) -> None:
        """Record whether a finished batch was so little work that prefetching does not pay off."""
        self._is_light = pending.work.is_light

    def prepare(self, iterator: Iterator, index: int | None) -> None:
        """Draw a batch from a copy of the global state and process it on the other threads."""
        if self._pause:
            self._pause -= 1
            return
        if self._is_light:
            return
        state: Any = np.random.get_state()
        # A bit generator set by the user has another kind of state.
        if not has_helpers() or not isinstance(state, tuple) or not iterator._can_prefetch():
            return
        facts = _facts(iterator)
        before = {name: getattr(iterator, name) for name in _PROGRESS}
        _spare.set_state(state)
        try:
            if index is None:
                indices = iterator._next_indices(_spare)
            else:
                indices = iterator._indices_of(index, _spare)
            pending = iterator._start(indices, _spare)
            progress = {name: getattr(iterator, name) for name in _PROGRESS}
        except Exception:  # raised again when the batch is requested
            return
        finally:
            iterator.__dict__.update(before)
        pending.work.start()
        after = _spare.get_state()
        self._prefetched = _Prefetched(os.getpid(), index, facts, state, progress, after, pending)


def _facts(iterator: Iterator) -> Facts:
    """Return everything that a batch depends on besides the random state and the files."""
    generator = getattr(iterator, "image_data_generator", None)
    facts: Facts = {"floatx": _keras.floatx(), "format": _keras.image_data_format()}
    for owner, attributes in (
        ("iterator", vars(iterator)),
        ("generator", vars(generator or object)),
    ):
        for name, value in attributes.items():
            if name != "_prefetcher":
                # Ranges may be lists that are modified in place.
                is_range = isinstance(value, list) and len(value) <= 4
                facts[f"{owner}.{name}"] = tuple(value) if is_range else value
    return facts


def _unchanged(before: Facts, after: Facts) -> bool:
    return before.keys() == after.keys() and all(
        value is after[name] or (isinstance(value, _PLAIN) and value == after[name])
        for name, value in before.items()
    )


def _same_state(before: Any, after: Any) -> bool:
    return (
        isinstance(after, tuple)
        and before[2:] == after[2:]
        and before[0] == after[0]
        and np.array_equal(before[1], after[1])
    )


Index = NDArray[np.int64]


class Iterator(PyDataset):  # type: ignore[misc]
    """Base class of the iterators over images.

    A subclass implements ``_get_batches_of_transformed_samples(index_array)``, which returns the
    batch of the images with these indices.

    Parameters
    ----------
    n : int
        Number of images.
    batch_size : int
        Images in a batch; the last batch of an epoch may be smaller.
    shuffle : bool
        Whether to shuffle in each epoch.
    seed : int, optional
        Before each batch, NumPy's global state is seeded with this plus the number of batches.
    **kwargs
        `workers`, `use_multiprocessing` and `max_queue_size` of ``keras.utils.PyDataset``.

    Attributes
    ----------
    batch_index : int
        Index of the next batch of the epoch in plain iteration.
    total_batches_seen : int
        Number of batches returned so far.
    index_array : int64 array or None
        Order of the images in this epoch; None before the first batch.
    """

    white_list_formats = ("png", "jpg", "jpeg", "bmp", "ppm", "tif", "tiff")

    def __init__(
        self, n: int, batch_size: int, shuffle: bool, seed: int | None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.n = n
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.batch_index = 0
        self.total_batches_seen = 0
        self.index_array: Index | None = None
        self.lock = threading.Lock()
        self.index_generator = self._flow_index()
        self._prefetcher = Prefetcher()
        if self.use_multiprocessing:
            warn_trap("forked-random-state")

    @property
    def use_multiprocessing(self) -> bool:
        """Whether Keras's ``fit`` creates the batches in worker processes."""
        return bool(super().use_multiprocessing)

    @use_multiprocessing.setter
    def use_multiprocessing(self, value: bool) -> None:
        if value:
            warn_trap("forked-random-state")
        self._use_multiprocessing = value

    def __len__(self) -> int:
        """Return the number of batches per epoch."""
        return (self.n + self.batch_size - 1) // self.batch_size

    def __getitem__(self, idx: int) -> Any:
        if idx >= len(self):
            raise UsageError(
                f"Asked to retrieve element {idx}, but the Sequence has length {len(self)}. "
                "Batches are numbered from 0."
            )
        with draw_lock():
            pending = self._prefetcher.take(self, idx)
            if pending is None:
                pending = self._start(self._indices_of(idx))
            if idx + 1 < len(self):
                self._prefetcher.prepare(self, idx + 1)
        batch = pending()
        self._prefetcher.note(pending)
        return batch

    def __iter__(self) -> Iterator:
        return self

    def __next__(self) -> Any:
        with self.lock, draw_lock():
            pending = self._prefetcher.take(self, None)
            if pending is None:
                pending = self._start(next(self.index_generator))
            self._prefetcher.prepare(self, None)
        batch = pending()
        self._prefetcher.note(pending)
        return batch

    def next(self) -> Any:
        """Return ``next(iterator)``, as in older versions of Keras."""
        return self.__next__()

    def reset(self) -> None:
        """Restart the epoch of plain iteration."""
        self.batch_index = 0

    def on_epoch_end(self) -> None:
        """Set the order of the next epoch; called by Keras."""
        with draw_lock():
            self._set_index_array()

    def _set_index_array(self, source: Source = GLOBAL) -> None:
        self.index_array = source.permutation(self.n) if self.shuffle else np.arange(self.n)

    def _seed_batch(self, source: Source) -> None:
        if self.seed is not None:
            source.seed(self.seed + self.total_batches_seen)
        self.total_batches_seen += 1

    def _indices_of(self, idx: int, source: Source = GLOBAL) -> Index:
        """Return the image indices of batch `idx`."""
        self._seed_batch(source)
        if self.index_array is None:
            self._set_index_array(source)
        order: Any = self.index_array
        indices: Index = order[self.batch_size * idx : self.batch_size * (idx + 1)]
        return indices

    def _next_indices(self, source: Source = GLOBAL) -> Index:
        """Return the image indices of the next batch in plain iteration."""
        self._seed_batch(source)
        if self.batch_index == 0:
            self._set_index_array(source)
        order: Any = self.index_array
        start = (self.batch_index * self.batch_size) % self.n if self.n else 0
        more = self.n > start + self.batch_size
        self.batch_index = self.batch_index + 1 if more else 0
        indices: Index = order[start : start + self.batch_size]
        return indices

    def _flow_index(self, restart: bool = True) -> Iterating[Index]:
        if restart:
            self.reset()
        while True:
            yield self._next_indices()

    def _can_prefetch(self) -> bool:
        """Return whether a batch can be created before it is requested."""
        return False

    def _start(self, index_array: Index, source: Source = GLOBAL) -> PendingBatch:
        """Draw the parameters of a batch; the caller holds the draw lock."""
        del source
        nothing = Work(0, lambda _: None)
        return PendingBatch(nothing, lambda: self._get_batches_of_transformed_samples(index_array))

    def _get_batches_of_transformed_samples(self, index_array: Index) -> Any:
        """Return the batch of the images with these indices, an int array of shape (k,)."""
        raise NotImplementedError(
            f"{type(self).__name__} has no method _get_batches_of_transformed_samples. "
            "Implement it in the subclass."
        )

    def __getstate__(self) -> dict[str, Any]:
        # Worker processes that are not forked get copies, which need the same order.
        if self.index_array is None:
            self.on_epoch_end()
        state = dict(vars(self))
        del state["lock"], state["index_generator"], state["_prefetcher"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.lock = threading.Lock()
        self._prefetcher = Prefetcher()
        self.index_generator = self._flow_index(restart=False)


def is_overridden(iterator: object, own: type) -> bool:
    """Return whether a subclass of `own` overrides the method that creates batches."""
    name = "_get_batches_of_transformed_samples"
    return getattr(type(iterator), name) is not getattr(own, name)
