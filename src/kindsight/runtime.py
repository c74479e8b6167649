"""Running a network: a LiteRT file, pixels in, numbers out; many pictures by all cores."""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import BundleError, WeightsError
from kindsight.models.litert import make_interpreter

__all__ = ["Interpreter", "InterpreterPool", "count_cores", "map_ordered", "single_threaded_opencv"]

Item = TypeVar("Item")
Result = TypeVar("Result")

# Results computed ahead of the one that is waited for, per thread: enough to ride out one slow
# picture, small enough that memory does not depend on the number of pictures.
AHEAD = 8


def count_cores() -> int:
    """How many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


class Interpreter:
    """A model of one input and one output, ready to run on one picture at a time.

    Parameters
    ----------
    model : path
        A ``.tflite`` file: float32 (1, height, width, 3) with values 0-255 to float32 (1, n).
    threads : int
        How many threads one run uses.

    Raises
    ------
    BundleError
        For a file that is not such a model.
    """

    def __init__(self, model: str | os.PathLike[str], threads: int = 1) -> None:
        self.path = Path(model)
        try:
            self._interpreter = make_interpreter(self.path, threads)
            (input_,) = self._interpreter.get_input_details()
            (output,) = self._interpreter.get_output_details()
        except (WeightsError, ValueError) as error:
            raise BundleError(
                f"{self.path} must be a LiteRT model of one input and one output that can be "
                f"loaded. Received: {str(error)[:200]}"
            ) from error
        shape = tuple(int(size) for size in input_["shape"])
        if len(shape) != 4 or shape[0] != 1 or shape[3] != 3 or input_["dtype"] != np.float32:
            raise BundleError(
                f"{self.path} must take float32 pictures of shape (1, height, width, 3). "
                f"It takes {np.dtype(input_['dtype']).name} {shape}."
            )
        given = tuple(int(size) for size in output["shape"])
        if len(given) != 2 or given[0] != 1 or output["dtype"] != np.float32:
            raise BundleError(
                f"{self.path} must give float32 numbers of shape (1, n). "
                f"It gives {np.dtype(output['dtype']).name} {given}."
            )
        self._input, self._output = input_["index"], output["index"]
        self.size = (shape[1], shape[2])
        self.width = given[1]

    def __call__(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the model on one picture.

        Parameters
        ----------
        picture : array
            uint8 (height, width, 3) of the model's size.

        Returns
        -------
        array
            float32 (n,)
        """
        self._interpreter.set_tensor(self._input, picture[None].astype(np.float32))
        self._interpreter.invoke()
        result: NDArray[np.float32] = self._interpreter.get_tensor(self._output)[0]
        return result


class InterpreterPool:
    """Interpreters of one model for several threads, one thread of computation each.

    Two runs side by side keep two cores busier than one run on two threads does, and need no
    waiting on each other. Interpreters are made when first needed.

    Parameters
    ----------
    model : path
        A ``.tflite`` file.
    workers : int, optional
        How many runs at once; the number of cores if omitted.
    """

    def __init__(self, model: str | os.PathLike[str], workers: int | None = None) -> None:
        self.workers = workers or count_cores()
        self._model = model
        first = Interpreter(model)
        self.size, self.width = first.size, first.width
        self._free: queue.LifoQueue[Interpreter | None] = queue.LifoQueue()
        for _ in range(self.workers - 1):
            self._free.put(None)
        self._free.put(first)

    def run(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the model on one picture, waiting while all interpreters are at work."""
        interpreter = self._free.get()
        try:
            if interpreter is None:
                interpreter = Interpreter(self._model)
            return interpreter(picture)
        finally:
            self._free.put(interpreter)


def map_ordered(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Iterator[Result]:
    """Apply `function` to `items` on several threads; yield the results in the items' order.

    Only a bounded number of items is taken ahead of the result that is yielded, so `items` may be
    endless. Left early (by an error, or Ctrl-C), it waits only for what is under way.

    Parameters
    ----------
    function : callable
        Called on any thread; what it raises is raised here, at that item's turn.
    items : iterable
        Taken on the caller's thread.
    threads : int
        How many.
    """
    waiting: deque[Future[Result]] = deque()
    executor = ThreadPoolExecutor(threads, thread_name_prefix="kindsight")
    try:
        for item in items:
            waiting.append(executor.submit(function, item))
            # What is done goes out at once: the next item may be long in coming.
            while waiting and (len(waiting) >= AHEAD * threads or waiting[0].done()):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


class _OpenCV:
    """How many hold OpenCV to one thread, and how many threads it had before the first of them."""

    lock = threading.Lock()
    holders = 0
    before = 1


@contextmanager
def single_threaded_opencv() -> Iterator[None]:
    """Keep OpenCV from starting threads of its own while ours already use every core.

    The setting is the whole process's; it is put back when the last of several blocks, one within
    another or side by side on several threads, has ended.
    """
    import cv2

    with _OpenCV.lock:
        if not _OpenCV.holders:
            _OpenCV.before = cv2.getNumThreads()
            cv2.setNumThreads(1)
        _OpenCV.holders += 1
    try:
        yield
    finally:
        with _OpenCV.lock:
            _OpenCV.holders -= 1
            if not _OpenCV.holders:
                cv2.setNumThreads(_OpenCV.before)
