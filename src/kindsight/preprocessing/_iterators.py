"""The base of the iterators: which pictures come next, and who draws when.

An iterator is a Keras ``PyDataset`` (asked by number, from any thread) and a plain, endless Python
iterator. Both ways draw from NumPy's global state at the moment when Keras does.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator as Iterating
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import UsageError
from kindsight.preprocessing._ahead import Ahead
from kindsight.preprocessing._batches import Making
from kindsight.preprocessing._draws import GLOBAL, Source, drawing
from kindsight.preprocessing._keras import PyDataset
from kindsight.preprocessing._threads import Work
from kindsight.preprocessing._traps import warn_of

__all__ = ["Index", "Iterator", "is_overridden"]

Index = NDArray[np.int64]


class Iterator(PyDataset):  # type: ignore[misc]
    """The base class of the iterators over pictures.

    A subclass has a method ``_get_batches_of_transformed_samples(index_array)``, which returns what
    belongs to the numbers that it is given.

    Parameters
    ----------
    n : int
        How many pictures there are.
    batch_size : int
        How many a batch has; the last of an epoch may have fewer.
    shuffle : bool
        Whether each epoch has another order.
    seed : int, optional
        NumPy's global state is seeded with this plus the number of batches so far, before each.
    **kwargs
        Those of ``keras.utils.PyDataset``: `workers`, `use_multiprocessing`, `max_queue_size`.

    Attributes
    ----------
    batch_index : int
        Of the next batch of this epoch, for plain iteration.
    total_batches_seen : int
        Batches given out so far, whichever way they were asked for.
    index_array : int64 array or None
        The order of this epoch; None before the first batch.
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
        self._ahead = Ahead()
        if self.use_multiprocessing:
            warn_of("forked-chance")

    @property
    def use_multiprocessing(self) -> bool:
        """Whether Keras's ``fit`` makes the batches in processes of its own."""
        return bool(super().use_multiprocessing)

    @use_multiprocessing.setter
    def use_multiprocessing(self, value: bool) -> None:
        if value:
            warn_of("forked-chance")
        self._use_multiprocessing = value

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return (self.n + self.batch_size - 1) // self.batch_size

    def __getitem__(self, idx: int) -> Any:
        if idx >= len(self):
            raise UsageError(
                f"The number of a batch must be below {len(self)}, the batches of an epoch. "
                f"Received: {idx}."
            )
        with drawing():
            making = self._ahead.take(self, idx)
            if making is None:
                making = self._begin(self._indices_of(idx))
            if idx + 1 < len(self):
                self._ahead.prepare(self, idx + 1)
        batch = making()
        self._ahead.note(making)
        return batch

    def __iter__(self) -> Iterator:
        return self

    def __next__(self) -> Any:
        with self.lock, drawing():
            making = self._ahead.take(self, None)
            if making is None:
                making = self._begin(next(self.index_generator))
            self._ahead.prepare(self, None)
        batch = making()
        self._ahead.note(making)
        return batch

    def next(self) -> Any:
        """Return the next batch, as in old Keras: the same as ``next(iterator)``."""
        return self.__next__()

    def reset(self) -> None:
        """Begin the epoch anew, for plain iteration."""
        self.batch_index = 0

    def on_epoch_end(self) -> None:
        """Take a new order; called by Keras."""
        with drawing():
            self._set_index_array()

    def _set_index_array(self, source: Source = GLOBAL) -> None:
        self.index_array = source.permutation(self.n) if self.shuffle else np.arange(self.n)

    def _seed_batch(self, source: Source) -> None:
        if self.seed is not None:
            source.seed(self.seed + self.total_batches_seen)
        self.total_batches_seen += 1

    def _indices_of(self, idx: int, source: Source = GLOBAL) -> Index:
        """Return the pictures of a batch that is asked for by number."""
        self._seed_batch(source)
        if self.index_array is None:
            self._set_index_array(source)
        order: Any = self.index_array
        indices: Index = order[self.batch_size * idx : self.batch_size * (idx + 1)]
        return indices

    def _next_indices(self, source: Source = GLOBAL) -> Index:
        """Return the pictures of the next batch of plain iteration."""
        self._seed_batch(source)
        if self.batch_index == 0:
            self._set_index_array(source)
        order: Any = self.index_array
        start = (self.batch_index * self.batch_size) % self.n if self.n else 0
        more = self.n > start + self.batch_size
        self.batch_index = self.batch_index + 1 if more else 0
        indices: Index = order[start : start + self.batch_size]
        return indices

    def _flow_index(self, anew: bool = True) -> Iterating[Index]:
        if anew:
            self.reset()
        while True:
            yield self._next_indices()

    def _can_prepare(self) -> bool:
        """Whether a batch can be made before it is asked for."""
        return False

    def _begin(self, index_array: Index, source: Source = GLOBAL) -> Making:
        """Draw for a batch; called with the turn to draw."""
        del source
        nothing = Work(0, lambda _: None)
        return Making(nothing, lambda: self._get_batches_of_transformed_samples(index_array))

    def _get_batches_of_transformed_samples(self, index_array: Index) -> Any:
        """Return the batch of these pictures.

        Parameters
        ----------
        index_array : int array of shape (k,)
            The numbers of the pictures.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must have a method _get_batches_of_transformed_samples."
        )

    def __getstate__(self) -> dict[str, Any]:
        # Worker processes that are not forked get a copy: they must agree on the order.
        if self.index_array is None:
            self.on_epoch_end()
        state = dict(vars(self))
        del state["lock"], state["index_generator"], state["_ahead"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.lock = threading.Lock()
        self._ahead = Ahead()
        self.index_generator = self._flow_index(anew=False)


def is_overridden(iterator: object, own: type) -> bool:
    """Whether a subclass makes batches in its own way, in place of the class `own`'s."""
    name = "_get_batches_of_transformed_samples"
    return getattr(type(iterator), name) is not getattr(own, name)
