"""Run a LiteRT model on images, on all cores."""

from __future__ import annotations

import os
import queue
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import BundleError, WeightsError
from kindsight.models.formats.litert import make_interpreter
from kindsight.threads import count_cores

__all__ = ["Interpreter", "InterpreterPool"]


class Interpreter:
    """A LiteRT model that is run on one image at a time.

    The file maps float32 (1, height, width, 3) with values 0-255 to float32 (1, n). `threads` are
    used by one run. ``size`` is (height, width), ``width`` is n. BundleError for any other file.
    """

    def __init__(self, model: str | os.PathLike[str], threads: int = 1) -> None:
        self.path = Path(model)
        try:
            self._interpreter = make_interpreter(self.path, threads)
            (input_,) = self._interpreter.get_input_details()
            (output,) = self._interpreter.get_output_details()
        except (WeightsError, ValueError) as error:
            raise BundleError(
                f"{self.path} cannot be loaded as a LiteRT model of one input and one output: "
                f"{str(error)[:200]}"
            ) from error
        shape = tuple(int(size) for size in input_["shape"])
        if len(shape) != 4 or shape[0] != 1 or shape[3] != 3 or input_["dtype"] != np.float32:
            raise BundleError(
                f"{self.path} must take float32 images of shape (1, height, width, 3); it takes "
                f"{np.dtype(input_['dtype']).name} {shape}."
            )
        shape_out = tuple(int(size) for size in output["shape"])
        if len(shape_out) != 2 or shape_out[0] != 1 or output["dtype"] != np.float32:
            raise BundleError(
                f"{self.path} must return float32 values of shape (1, n); it returns "
                f"{np.dtype(output['dtype']).name} {shape_out}."
            )
        self._input, self._output = input_["index"], output["index"]
        self.size = (shape[1], shape[2])
        self.width = shape_out[1]

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the output, float32 (n,), for an image of the model's size, uint8.

        BundleError for an image of another shape.
        """
        if image.shape != (*self.size, 3):
            raise BundleError(
                f"{self.path} takes images of shape {(*self.size, 3)}; got {image.shape}."
            )
        # Copied into the model's own memory; no reference to it may exist during the run.
        np.copyto(self._interpreter.tensor(self._input)(), image[None])
        self._interpreter.invoke()
        result: NDArray[np.float32] = self._interpreter.get_tensor(self._output)[0]
        return result


class InterpreterPool:
    """Interpreters of one model for several threads, created when first needed.

    Two runs in parallel use two cores better than one run with two threads. `workers` is the number
    of parallel runs; default: the number of cores.
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

    def run(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the model on one image, waiting for a free interpreter."""
        return self.run_all([image])[0]

    def run_all(self, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        """Run the model on several images, one after the other, on one interpreter."""
        if not images:
            return []
        interpreter = self._free.get()
        try:
            if interpreter is None:
                interpreter = Interpreter(self._model)
            return [interpreter(image) for image in images]
        finally:
            self._free.put(interpreter)
