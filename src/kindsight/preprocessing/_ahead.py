"""The next batch, made while the caller is busy with this one, without disturbing chance.

What the next batch's numbers will be is known if nobody draws in the meantime. So they are drawn
from a copy of NumPy's global state, and the batch is made on the other threads. When it is asked
for, it is given out only if the global state, the iterator and the generator are what they were;
the global state is then set to what drawing would have made of it. Otherwise it is forgotten, and
the batch is drawn for as usual. So the answers are always those of an iterator that never looks
ahead, and the user's own draws see the state that they would have seen.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kindsight.preprocessing import _keras
from kindsight.preprocessing._batches import Making
from kindsight.preprocessing._threads import has_helpers

if TYPE_CHECKING:
    from kindsight.preprocessing._iterators import Iterator

__all__ = ["Ahead"]

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
