"""Batches: random parameters are drawn in order, then the images are processed on all cores.

The fast path draws for the whole batch at once and writes each image into the result. The general
path calls the generator's methods image by image, as Keras does. It is used where foreign code may
draw random numbers: in a preprocessing function, or in methods of a subclass.
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
from kindsight.preprocessing._affine import Fill, affine_matrices, warp_into
from kindsight.preprocessing._random_parameters import GLOBAL, BatchParameters, Source, draw_many
from kindsight.preprocessing._transforms import brighten_into, constant_factor, shift_channels_into
from kindsight.threads import count_cores

# Limits of the memory that is held for reuse, for the whole process.
MAX_BYTES = 64 * 2**20
MAX_BATCHES = 4
# Smaller arrays come from memory that the process already has.
MIN_BYTES = 2**18


class BatchMemory:
    """Allocates arrays and reuses the memory of batches that are no longer referenced.

    Allocating megabytes costs a good part of the time needed to fill them, since the system hands
    out and clears each page. `count`, such as :func:`sys.getrefcount`, shows whether an array,
    tensor or buffer is still in use; without it, every array is newly allocated.
    """

    def __init__(self, count: Callable[[object], int] | None) -> None:
        self._count = count
        self._lock = threading.Lock()
        self._arrays: list[NDArray[np.uint8]] = []
        # The count of an array that only the list refers to, measured as below.
        self._idle = [0]
        if count is not None:
            self._idle = [count(owner) for owner in [np.empty(0, np.uint8)]]

    def empty(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return an uninitialised array, as :func:`numpy.empty` does."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if self._count is None or not MIN_BYTES <= size <= MAX_BYTES // 2:
            return np.empty(shape, dtype)
        with self._lock:
            counts = [self._count(owner) for owner in self._arrays]
            for index, count in enumerate(counts):
                if count == self._idle[0] and self._arrays[index].nbytes == size:
                    return _shaped(self._arrays[index], shape, dtype)
            owner = np.empty(size, np.uint8)
            self._arrays.append(owner)
            while (
                len(self._arrays) > MAX_BATCHES or sum(o.nbytes for o in self._arrays) > MAX_BYTES
            ):
                del self._arrays[0]
            return _shaped(owner, shape, dtype)

    def after_fork(self) -> None:
        """Drop the arrays of the parent process, and a lock that one of its threads may hold."""
        self._lock, self._arrays = threading.Lock(), []


def _shaped(owner: NDArray[np.uint8], shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    array: NDArray[Any] = owner.view(dtype).reshape(shape)
    return array


def _counter() -> Callable[[object], int] | None:
    """Return the function that counts references if the counts are exact, else None."""
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return getattr(sys, "getrefcount", None) if has_gil else None


batch_memory = BatchMemory(_counter())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=batch_memory.after_fork)


# Calls that take less than this, in seconds, are made by one thread: several would spend more time
# on handing over Python's lock than they save.
_LIGHT = 5e-5


class _Pool:
    """A thread pool for the process, started when it is first used."""

    def __init__(self) -> None:
        # The calling thread works too.
        self._reset(count_cores() - 1)

    def _reset(self, helpers: int) -> None:
        self.lock = threading.Lock()
        self.executor: ThreadPoolExecutor | None = None
        self.helpers = helpers

    def submit(self, task: Callable[[], None]) -> Future[None] | None:
        """Start a task on a thread; return None if no thread is available."""
        try:
            with self.lock:
                if self.executor is None:
                    self.executor = ThreadPoolExecutor(self.helpers, "kindsight-images")
                return self.executor.submit(task)
        except RuntimeError:  # the interpreter is shutting down
            return None

    def after_fork(self) -> None:
        """Use no threads in a forked process: it has none, and shares the cores with others."""
        self._reset(0)


_pool = _Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.after_fork)


def has_helpers() -> bool:
    """Return whether there are threads besides the calling one."""
    return _pool.helpers > 0


class Work:
    """Calls ``function(0)`` to ``function(count - 1)`` on several threads."""

    def __init__(self, count: int, function: Callable[[int], None]) -> None:
        self._count, self._function = count, function
        self._numbers = itertools.count()
        self._failures: list[tuple[int, BaseException]] = []
        self._stopped = False
        self._helpers: list[Future[None]] = []
        self._seconds = 0.0

    @property
    def is_light(self) -> bool:
        """Whether the finished calls were too short for several threads."""
        return self._count > 0 and self._seconds < _LIGHT * self._count

    def start(self) -> None:
        """Start the other threads and return."""
        for _ in range(min(_pool.helpers, self._count) - len(self._helpers)):
            if (helper := _pool.submit(self._join_in)) is not None:
                self._helpers.append(helper)

    def finish(self) -> None:
        """Work on the calling thread, too, until all calls are done; raise the first error.

        Without :meth:`start`, the other threads join after the first call that is not short. After
        an error, later calls may be omitted.
        """
        self._join_in(alone=not self._helpers)
        for helper in self._helpers:
            # A helper that has not started has nothing left to do.
            if not helper.cancel():
                helper.result()
        if self._failures:
            raise min(self._failures, key=lambda failure: failure[0])[1]

    def stop(self) -> None:
        """Make no further calls, since the result is not needed."""
        self._stopped = True

    def _join_in(self, alone: bool = False) -> None:
        # CPU time of this thread: waiting for the lock does not count.
        started = time.thread_time()
        while not self._stopped and (number := next(self._numbers)) < self._count:
            called = time.perf_counter()
            try:
                self._function(number)
            except BaseException as error:  # raised again by finish()
                self._failures.append((number, error))
                self._stopped = True
            if alone and time.perf_counter() - called > _LIGHT:
                alone = False
                self.start()
        self._seconds += time.thread_time() - started


def for_each(count: int, function: Callable[[int], None]) -> None:
    """Call ``function(0)`` to ``function(count - 1)`` on all cores; see `Work.finish`."""
    work = Work(count, function)
    if count > 1:
        work.start()
    work.finish()


Pixels = NDArray[Any]
_SLACK = 1e-3  # of 255; see brighten_into


@dataclass(frozen=True)
class Batch:
    """The images of a batch and how they are processed.

    ``fetch(i)`` returns image i with shape (height, width, channels), which must not be modified.
    `channels_first` is the layout of the result, `pixel_type` the dtype of the computation.
    """

    generator: Any
    count: int
    fetch: Callable[[int], Pixels]
    shape: tuple[int, int, int]
    channels_first: bool
    pixel_type: str
    result_type: str

    def transposed(self, image: Pixels) -> Pixels:
        """Return a NumPy view of an image with the axes in the order of the result."""
        return image.transpose(2, 0, 1) if self.channels_first else image

    def empty(self) -> Pixels:
        """Return an uninitialised array for the result."""
        height, width, channels = self.shape
        shape = (channels, height, width) if self.channels_first else self.shape
        return batch_memory.empty((self.count, *shape), self.result_type)


class PendingBatch:
    """A batch that is being processed; `assemble` adds the labels when the work is done."""

    def __init__(self, work: Work, assemble: Callable[[], Any]) -> None:
        self.work, self._assemble = work, assemble

    def __call__(self) -> Any:
        """Finish the work and return the batch."""
        self.work.finish()
        return self._assemble()


def start_batch(batch: Batch, source: Source = GLOBAL) -> tuple[Pixels, Work]:
    """Draw the parameters; return the array for the images and the work that fills it."""
    generator = batch.generator
    if not generator:
        return _convert(batch)
    if not getattr(generator, "_draws_without_foreign_code", False):
        return _one_by_one(batch), Work(0, lambda _: None)
    shape = batch.transposed(np.empty(batch.shape, np.bool_)).shape
    if generator._draws_by_default:
        draws = draw_many(generator, shape, batch.count, source)
    else:
        draws = BatchParameters.of(
            [generator.get_random_transform(shape) for _ in range(batch.count)]
        )
    if batch.pixel_type != "float32" or _brightness_raises(batch, draws):
        return _by_methods(batch, draws)
    return _fast_path(batch, draws)


def can_draw_ahead(generator: Any) -> bool:
    """Return whether a generator can draw from another source than NumPy's global state."""
    own = getattr(generator, "_draws_without_foreign_code", False)
    return not generator or bool(own and generator._draws_by_default)


def _brightness_raises(batch: Batch, draws: BatchParameters) -> bool:
    """Return whether a brightness shift misreads the axes of the image and raises."""
    last = _keras.image_data_format() == "channels_last"
    return last == batch.channels_first and any(value is not None for value in draws.brightness)


def _convert(batch: Batch) -> tuple[Pixels, Work]:
    result = batch.empty()

    def process(index: int) -> None:
        result[index] = batch.transposed(batch.fetch(index)).astype(batch.pixel_type, copy=False)

    return result, Work(batch.count, process)


def _one_by_one(batch: Batch) -> Pixels:
    result, generator = batch.empty(), batch.generator
    fetched: list[Pixels | None] = [None] * batch.count

    def read(index: int) -> None:
        fetched[index] = batch.fetch(index)

    for_each(batch.count, read)
    for index, pixels in enumerate(fetched):
        x = np.array(batch.transposed(np.asarray(pixels)), batch.pixel_type)
        parameters = generator.get_random_transform(x.shape)
        x = generator.apply_transform(x, parameters)
        result[index] = generator.standardize(x)
    return result


def _by_methods(batch: Batch, draws: BatchParameters) -> tuple[Pixels, Work]:
    result, generator = batch.empty(), batch.generator

    def process(index: int) -> None:
        x = np.array(batch.transposed(batch.fetch(index)), batch.pixel_type)
        x = generator.apply_transform(x, draws.parameters(index))
        result[index] = generator.standardize(x)

    return result, Work(batch.count, process)


def _changes_colour(draws: BatchParameters, index: int) -> bool:
    return draws.channel_shift[index] is not None or draws.brightness[index] is not None


def _fast_path(batch: Batch, draws: BatchParameters) -> tuple[Pixels, Work]:
    result, generator = batch.empty(), batch.generator
    height, width, _ = batch.shape
    matrices, unchanged = affine_matrices(draws.affine, height, width)
    fill = Fill(generator.fill_mode, generator.cval, generator.interpolation_order)
    in_place = result.dtype == np.float32 and not batch.channels_first
    factor = constant_factor(generator) if in_place else None

    def process(index: int) -> None:
        out = result[index] if in_place else np.empty(batch.shape, np.float32)
        transposed, source = batch.transposed(out), batch.fetch(index)
        horizontal, vertical = draws.flips[index].tolist()
        rounded = False
        if factor is not None and unchanged[index] and not _changes_colour(draws, index):
            flipped = source[:: -1 if vertical else 1, :: -1 if horizontal else 1]
            # Two passes, since the image stays in the CPU cache between them; a single pass with
            # mixed types goes through a small buffer of NumPy, which takes 1.5 times as long.
            np.copyto(out, flipped, casting="unsafe")
            np.multiply(out, factor, out=out)
            return
        if unchanged[index]:
            out[...] = source[:: -1 if vertical else 1, :: -1 if horizontal else 1]
        else:
            rounded = warp_into(out, source, matrices[index], fill, (horizontal, vertical))
        if (intensity := draws.channel_shift[index]) is not None:
            shift_channels_into(out, intensity)
        if (brightness := draws.brightness[index]) is not None:
            brighten_into(transposed, brightness, _SLACK if rounded else 0)
        standard = generator.standardize(transposed)
        if standard is not transposed or not in_place:
            result[index] = standard

    return result, Work(batch.count, process)
