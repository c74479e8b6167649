"""The base of the iterators: which images come next, and who draws when.

An iterator is a Keras ``PyDataset`` (asked by number, from any thread) and a plain, endless Python
iterator. Both ways draw from NumPy's global state at the moment when Keras does.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator as Iterating
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import UsageError
from kindsight.preprocessing import _keras
from kindsight.preprocessing._batches import Making, Work, has_helpers
from kindsight.preprocessing._draws import GLOBAL, Source, drawing
from kindsight.preprocessing._keras import PyDataset
from kindsight.preprocessing._messages import warn_of

if TYPE_CHECKING:
    pass

__all__ = [
    "Ahead",
    "Index",
    "Iterator",
    "is_overridden",
]

# SECTION: The next batch, made while the caller is busy with this one, without disturbing chance.
#
# What the next batch's numbers will be is known if nobody draws in the meantime. So they are drawn
# from a copy of NumPy's global state, and the batch is made on the other threads. When it is asked
# for, it is given out only if the global state, the iterator and the generator are what they were;
# the global state is then set to what drawing would have made of it. Otherwise it is forgotten, and
# the batch is drawn for as usual. So the answers are always those of an iterator that never looks
# ahead, and the user's own draws see the state that they would have seen.

Facts = dict[str, Any]
_PROGRESS = ("batch_index", "total_batches_seen", "index_array")
_PLAIN = (bool, float, int, str, tuple, type(None))
_MOST_MISSES = 6
_spare = np.random.RandomState(0)  # used by one thread at a time: whose turn it is to draw


@dataclass(frozen=True)
class _Prepared:
    """A batch, what it was made for, and what has to be set when it is given out."""

    process: int
    asked: int | None
    facts: Facts
    state: Any
    progress: Facts
    state_after: Any
    making: Making


class Ahead:
    """The batch that an iterator has prepared, if any.

    Where batches are forgotten again and again, since somebody draws in between, ever more
    are left unprepared before the next attempt.
    """

    def __init__(self) -> None:
        self._prepared: _Prepared | None = None
        self._misses, self._pause, self._light = 0, 0, False

    def take(self, iterator: Iterator, asked: int | None) -> Making | None:
        """Return the batch that is asked for if it is the one prepared, drawn for as it should be.

        Parameters
        ----------
        iterator : Iterator
            Whose batch it is.
        asked : int or None
            Its number, or None for plain iteration.
        """
        prepared, self._prepared = self._prepared, None
        # The threads that were at it are not there in a fork.
        if prepared is None or prepared.process != os.getpid():
            return None
        fits = prepared.asked == asked and _alike(prepared.facts, _facts(iterator))
        # With a seed of its own a batch does not depend on the state before it.
        seeded = iterator.seed is not None
        if not fits or not (seeded or _same_state(prepared.state, np.random.get_state())):
            prepared.making.work.stop()
            self._misses = min(self._misses + 1, _MOST_MISSES)
            self._pause = 2**self._misses - 1
            return None
        self._misses = 0
        iterator.__dict__.update(prepared.progress)
        np.random.set_state(prepared.state_after)
        return prepared.making

    def note(self, making: Making) -> None:
        """Remember whether a batch, now made, was so little work that the next is best not begun.

        The other thread would be in the way of the caller's more than it helps.
        """
        self._light = making.work.is_light

    def prepare(self, iterator: Iterator, asked: int | None) -> None:
        """Draw for a batch from a copy of the global state, and let the other threads make it."""
        if self._pause:
            self._pause -= 1
            return
        if self._light:
            return
        state: Any = np.random.get_state()
        # A bit generator that the user has put in NumPy's place has another kind of state.
        if not has_helpers() or not isinstance(state, tuple) or not iterator._can_prepare():
            return
        facts = _facts(iterator)
        before = {name: getattr(iterator, name) for name in _PROGRESS}
        _spare.set_state(state)
        try:
            if asked is None:
                indices = iterator._next_indices(_spare)
            else:
                indices = iterator._indices_of(asked, _spare)
            making = iterator._begin(indices, _spare)
            progress = {name: getattr(iterator, name) for name in _PROGRESS}
        except Exception:  # It will come again when the batch is asked for.
            return
        finally:
            iterator.__dict__.update(before)
        making.work.start()
        after = _spare.get_state()
        self._prepared = _Prepared(os.getpid(), asked, facts, state, progress, after, making)


def _facts(iterator: Iterator) -> Facts:
    """Gather what a batch depends on besides chance and the files."""
    generator = getattr(iterator, "image_data_generator", None)
    facts: Facts = {"floatx": _keras.floatx(), "format": _keras.image_data_format()}
    for owner, found in (("iterator", vars(iterator)), ("generator", vars(generator or object))):
        for name, value in found.items():
            if name != "_ahead":
                # A range may be a list, and lists may be changed.
                few = isinstance(value, list) and len(value) <= 4
                facts[f"{owner}.{name}"] = tuple(value) if few else value
    return facts


def _alike(before: Facts, after: Facts) -> bool:
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
    """The base class of the iterators over images.

    A subclass has a method ``_get_batches_of_transformed_samples(index_array)``, which returns what
    belongs to the numbers that it is given.

    Parameters
    ----------
    n : int
        How many images there are.
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
        """Return the images of a batch that is asked for by number."""
        self._seed_batch(source)
        if self.index_array is None:
            self._set_index_array(source)
        order: Any = self.index_array
        indices: Index = order[self.batch_size * idx : self.batch_size * (idx + 1)]
        return indices

    def _next_indices(self, source: Source = GLOBAL) -> Index:
        """Return the images of the next batch of plain iteration."""
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
        """Return the batch of these images.

        Parameters
        ----------
        index_array : int array of shape (k,)
            The numbers of the images.
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
