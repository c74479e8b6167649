"""Room for batches: memory that nobody looks at any more is written to again.

A new batch of megabytes costs the system a good part of the time that it takes to fill: its pages
are handed out one by one, and zeroed. So the memory of the last few batches is kept, and given out
again once no array, tensor or buffer refers to it: Python counts these, and whoever still holds a
batch, or a part of one, keeps it.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Room", "room"]

# What is kept at most, for the whole process, and as how many batches.
MOST_BYTES = 64 * 2**20
MOST_BATCHES = 4
# Smaller arrays come from memory that the process has already.
LEAST_BYTES = 2**18


class Room:
    """Arrays whose memory may have been another's, and is nobody's now.

    Parameters
    ----------
    count : callable or None
        How many refer to an object, as :func:`sys.getrefcount` says; None where that cannot be
        known, and then every array is new.
    """

    def __init__(self, count: Callable[[object], int] | None) -> None:
        self._count = count
        self._lock = threading.Lock()
        self._kept: list[NDArray[np.uint8]] = []
        # What the count is of an array that only the list holds, as it is asked for below.
        self._idle = [0]
        if count is not None:
            self._idle = [count(owner) for owner in [np.empty(0, np.uint8)]]

    def empty(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return an array as :func:`numpy.empty` does, to be written to as a whole."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if self._count is None or not LEAST_BYTES <= size <= MOST_BYTES // 2:
            return np.empty(shape, dtype)
        with self._lock:
            counts = [self._count(owner) for owner in self._kept]
            for place, count in enumerate(counts):
                if count == self._idle[0] and self._kept[place].nbytes == size:
                    return _shaped(self._kept[place], shape, dtype)
            owner = np.empty(size, np.uint8)
            self._kept.append(owner)
            while len(self._kept) > MOST_BATCHES or sum(o.nbytes for o in self._kept) > MOST_BYTES:
                del self._kept[0]
            return _shaped(owner, shape, dtype)

    def after_fork(self) -> None:
        """Forget what another process has, and the lock that a thread of it may hold."""
        self._lock, self._kept = threading.Lock(), []


def _shaped(owner: NDArray[np.uint8], shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    array: NDArray[Any] = owner.view(dtype).reshape(shape)
    return array


def _counter() -> Callable[[object], int] | None:
    """Return what counts references, where the count is exact."""
    shared = getattr(sys, "_is_gil_enabled", lambda: True)()
    return getattr(sys, "getrefcount", None) if shared else None


room = Room(_counter())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=room.after_fork)
