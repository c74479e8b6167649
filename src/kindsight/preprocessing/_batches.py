"""The images of one batch: drawn for in order, then made on all cores.

Two ways lead to a batch. The short one draws for the whole batch at once and writes each image
into its place in the result. The long one calls the generator's methods image by image as Keras
does; it is taken where somebody else's code has a say in the order of draws: a preprocessing
function that may draw numbers itself, or a subclass with methods of its own.
"""

from __future__ import annotations

import itertools
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.preprocessing import _keras
from kindsight.preprocessing._draws import GLOBAL, Draws, Source, draw_many
from kindsight.preprocessing._functions import brighten_into, shift_channels_into
from kindsight.preprocessing._standards import only_factor
from kindsight.preprocessing._warp import Fill, affine_matrices, warp_into
from kindsight.threads import count_cores

__all__ = [
    "Batch",
    "Making",
    "Room",
    "Work",
    "begin_batch",
    "can_draw_ahead",
    "for_each",
    "has_helpers",
    "room",
]

# SECTION: Room for batches: memory that nobody looks at any more is written to again.
#
# A new batch of megabytes costs the system a good part of the time that it takes to fill: its pages
# are handed out one by one, and zeroed. So the memory of the last few batches is kept, and given
# out
# again once no array, tensor or buffer refers to it: Python counts these, and whoever still holds a
# batch, or a part of one, keeps it.

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


# SECTION: One pool of threads for the whole process, and the work on the images of a batch in it.

# Calls that take less than this, in seconds, are done by one thread: several would spend more time
# on handing Python's lock to each other than they save.
_LIGHT = 5e-5


class _Pool:
    """The threads, started when first needed."""

    def __init__(self) -> None:
        # The caller works too, so one thread less than there are cores.
        self._begin(count_cores() - 1)

    def _begin(self, helpers: int) -> None:
        self.lock = threading.Lock()
        self.executor: ThreadPoolExecutor | None = None
        self.helpers = helpers

    def submit(self, task: Callable[[], None]) -> Future[None] | None:
        """Hand a task to a thread; None where there are none to be had."""
        try:
            with self.lock:
                if self.executor is None:
                    self.executor = ThreadPoolExecutor(self.helpers, "kindsight-images")
                return self.executor.submit(task)
        except RuntimeError:  # Python is on its way out.
            return None

    def after_fork(self) -> None:
        """Do without the parent's threads, which a child process does not have.

        A child is one of several workers that share the cores, so it starts none of its own.
        """
        self._begin(0)


_pool = _Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.after_fork)


def has_helpers() -> bool:
    """Whether there are threads besides the caller's."""
    return _pool.helpers > 0


class Work:
    """Calls of a function with 0, 1, 2, ... on whatever threads join in.

    Parameters
    ----------
    count : int
        How many.
    function : callable
        What is called, from several threads at once.
    """

    def __init__(self, count: int, function: Callable[[int], None]) -> None:
        self._count, self._function = count, function
        self._numbers = itertools.count()
        self._failures: list[tuple[int, BaseException]] = []
        self._stopped = False
        self._helpers: list[Future[None]] = []
        self._seconds = 0.0

    @property
    def is_light(self) -> bool:
        """Whether the calls, which have been made, were too short for several threads."""
        return self._count > 0 and self._seconds < _LIGHT * self._count

    def start(self) -> None:
        """Let the other threads begin; the caller goes on."""
        for _ in range(min(_pool.helpers, self._count) - len(self._helpers)):
            if (helper := _pool.submit(self._join_in)) is not None:
                self._helpers.append(helper)

    def finish(self) -> None:
        """Join in until all is done, with the other threads from the first call that takes long.

        Raises
        ------
        Exception
            What the first of the calls, in their order, raised. Those after it may not have been
            made.
        """
        self._join_in(alone=not self._helpers)
        for helper in self._helpers:
            # One that has not begun would find nothing left to do.
            if not helper.cancel():
                helper.result()
        if self._failures:
            raise min(self._failures, key=lambda failure: failure[0])[1]

    def stop(self) -> None:
        """Make no further calls: nobody wants the result."""
        self._stopped = True

    def _join_in(self, alone: bool = False) -> None:
        # The thread's own time: waiting for the lock makes a call no heavier.
        began = time.thread_time()
        while not self._stopped and (number := next(self._numbers)) < self._count:
            called = time.perf_counter()
            try:
                self._function(number)
            except BaseException as error:  # raised by finish(), on the caller's thread
                self._failures.append((number, error))
                self._stopped = True
            if alone and time.perf_counter() - called > _LIGHT:
                alone = False
                self.start()
        self._seconds += time.thread_time() - began


def for_each(count: int, function: Callable[[int], None]) -> None:
    """Call ``function(0)`` to ``function(count - 1)`` on all cores; raises as `Work.finish`."""
    work = Work(count, function)
    if count > 1:
        work.start()
    work.finish()


Pixels = NDArray[Any]
_SLACK = 1e-3  # in units of 255, see brighten_into


@dataclass(frozen=True)
class Batch:
    """What a batch is made of.

    Parameters
    ----------
    generator : ImageDataGenerator or None
        What draws, transforms and standardises.
    count : int
        How many images.
    fetch : callable
        The pixels of the i-th, an array of shape (height, width, channels) that is not written to.
    shape : tuple of int
        (height, width, channels).
    channels_first : bool
        Whether the result has the channels before the rows.
    pixel_type, result_type : str
        What is computed in, and what comes out.
    """

    generator: Any
    count: int
    fetch: Callable[[int], Pixels]
    shape: tuple[int, int, int]
    channels_first: bool
    pixel_type: str
    result_type: str

    def laid_out(self, image: Pixels) -> Pixels:
        """Return a view of an image with the channels where the result has them."""
        return image.transpose(2, 0, 1) if self.channels_first else image

    def empty(self) -> Pixels:
        """Return an array for the result."""
        height, width, channels = self.shape
        shape = (channels, height, width) if self.channels_first else self.shape
        return room.empty((self.count, *shape), self.result_type)


class Making:
    """A batch that has been drawn for, and is being made.

    Parameters
    ----------
    work : Work
        What makes it.
    answer : callable
        What returns it, called when the work is done.
    """

    def __init__(self, work: Work, answer: Callable[[], Any]) -> None:
        self.work, self._answer = work, answer

    def __call__(self) -> Any:
        """Join in the work until it is done, and return the batch."""
        self.work.finish()
        return self._answer()


def begin_batch(batch: Batch, source: Source = GLOBAL) -> tuple[Pixels, Work]:
    """Draw what has to be drawn.

    Returns
    -------
    result : array
        Where the images will be.
    work : Work
        What puts them there, image by image, on whatever threads.
    """
    generator = batch.generator
    if not generator:
        return _convert(batch)
    if not getattr(generator, "_draws_alone", False):
        return _one_by_one(batch), Work(0, lambda _: None)
    shape = batch.laid_out(np.empty(batch.shape, np.bool_)).shape
    if generator._draws_as_usual:
        draws = draw_many(generator, shape, batch.count, source)
    else:
        draws = Draws.of([generator.get_random_transform(shape) for _ in range(batch.count)])
    if batch.pixel_type != "float32" or _refused(batch, draws):
        return _by_methods(batch, draws)
    return _directly(batch, draws)


def can_draw_ahead(generator: Any) -> bool:
    """Whether a batch can be drawn for from another source than NumPy's global state."""
    if not generator:
        return True
    return bool(getattr(generator, "_draws_alone", False) and generator._draws_as_usual)


def _refused(batch: Batch, draws: Draws) -> bool:
    """Whether a brightness shift will misread the image's axes, and complain."""
    last = _keras.image_data_format() == "channels_last"
    return last == batch.channels_first and any(value is not None for value in draws.brightness)


def _convert(batch: Batch) -> tuple[Pixels, Work]:
    result = batch.empty()

    def make(place: int) -> None:
        result[place] = batch.laid_out(batch.fetch(place)).astype(batch.pixel_type, copy=False)

    return result, Work(batch.count, make)


def _one_by_one(batch: Batch) -> Pixels:
    result, generator = batch.empty(), batch.generator
    fetched: list[Pixels | None] = [None] * batch.count

    def read(place: int) -> None:
        fetched[place] = batch.fetch(place)

    for_each(batch.count, read)
    for place, pixels in enumerate(fetched):
        x = np.array(batch.laid_out(np.asarray(pixels)), batch.pixel_type)
        parameters = generator.get_random_transform(x.shape)
        x = generator.apply_transform(x, parameters)
        result[place] = generator.standardize(x)
    return result


def _by_methods(batch: Batch, draws: Draws) -> tuple[Pixels, Work]:
    result, generator = batch.empty(), batch.generator

    def make(place: int) -> None:
        x = np.array(batch.laid_out(batch.fetch(place)), batch.pixel_type)
        x = generator.apply_transform(x, draws.parameters(place))
        result[place] = generator.standardize(x)

    return result, Work(batch.count, make)


def _coloured(draws: Draws, place: int) -> bool:
    return draws.channel_shift[place] is not None or draws.brightness[place] is not None


def _directly(batch: Batch, draws: Draws) -> tuple[Pixels, Work]:
    result, generator = batch.empty(), batch.generator
    height, width, _ = batch.shape
    matrices, still = affine_matrices(draws.affine, height, width)
    fill = Fill(generator.fill_mode, generator.cval, generator.interpolation_order)
    in_place = result.dtype == np.float32 and not batch.channels_first
    factor = only_factor(generator) if in_place else None

    def make(place: int) -> None:
        out = result[place] if in_place else np.empty(batch.shape, np.float32)
        laid_out, source = batch.laid_out(out), batch.fetch(place)
        horizontal, vertical = draws.flips[place].tolist()
        rounded = False
        if factor is not None and still[place] and not _coloured(draws, place):
            turned = source[:: -1 if vertical else 1, :: -1 if horizontal else 1]
            # In two walks, as an image stays in the processor's cache between them: mixing the
            # types in one makes NumPy go through a small buffer, which takes half as long again.
            np.copyto(out, turned, casting="unsafe")
            np.multiply(out, factor, out=out)
            return
        if still[place]:
            out[...] = source[:: -1 if vertical else 1, :: -1 if horizontal else 1]
        else:
            rounded = warp_into(out, source, matrices[place], fill, (horizontal, vertical))
        if (intensity := draws.channel_shift[place]) is not None:
            shift_channels_into(out, intensity)
        if (brightness := draws.brightness[place]) is not None:
            brighten_into(laid_out, brightness, _SLACK if rounded else 0)
        standard = generator.standardize(laid_out)
        if standard is not laid_out or not in_place:
            result[place] = standard

    return result, Work(batch.count, make)
