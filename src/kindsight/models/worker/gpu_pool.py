"""Frozen networks on the GPU of the Keras worker process, once they agree with LiteRT."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import KindsightError
from kindsight.models.runtime import CHECKED_IMAGES, InterpreterPool, make_images
from kindsight.models.worker.process import GPU_TOLERANCE, KerasProcess

__all__ = ["GPU_THREADS", "GpuPool", "NetworkPool", "open_pool"]

GPU_THREADS = 64
"""Threads that read images for a GPU, and most images of a batch."""

NetworkPool: TypeAlias = "InterpreterPool | GpuPool"


@dataclass
class _Waiting:
    """An image that waits for its output."""

    image: NDArray[np.uint8]
    output: NDArray[np.float32] | None = None
    done: bool = False


class GpuPool:
    """A network on the worker's GPU, with the interface of :class:`.runtime.InterpreterPool`.

    A batch holds the images of all threads that waited while the previous batch was computed. If
    the GPU fails, LiteRT computes the remaining images.

    Parameters
    ----------
    process : KerasProcess
        With a GPU.
    keras : Path
        From pixels 0-255 to one vector per image.
    stage : str
        A layer whose flattened activations are the output instead; empty for none.
    litert : InterpreterPool
        The same network.
    """

    def __init__(
        self, process: KerasProcess, keras: Path, stage: str, litert: InterpreterPool
    ) -> None:
        self.workers = GPU_THREADS
        self._process, self._keras, self._stage, self._litert = process, keras, stage, litert
        self._queue: deque[_Waiting] = deque()
        self._turn = threading.Lock()
        self._failed = False

    def run(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the network's output for one image, float32 (width,)."""
        own = _Waiting(image)
        if not self._failed:
            self._queue.append(own)
            with self._turn:
                # Another thread may have computed it meanwhile.
                while not own.done:
                    self._run_batch()
        return self._litert.run(image) if own.output is None else own.output

    def _run_batch(self) -> None:
        """Compute the images that wait; they stay without output if the GPU fails."""
        batch = [self._queue.popleft() for _ in range(min(len(self._queue), GPU_THREADS))]
        try:
            if not self._failed:
                pixels = np.stack([each.image for each in batch])
                outputs = self._process.run_network(self._keras, pixels, self._stage)
                for each, output in zip(batch, outputs, strict=True):
                    each.output = output
        except KindsightError as error:
            self._failed = True
            self._process.leave_gpu(error)
        finally:
            for each in batch:
                each.done = True


def open_pool(
    process: KerasProcess | None,
    keras: Path,
    tflite: Path,
    *,
    workers: int,
    images: int,
    stage: str = "",
) -> NetworkPool:
    """Return a pool that runs a network on the GPU, or with LiteRT on the CPU.

    The GPU is used if the process has one, there are enough images, and both agree.

    Parameters
    ----------
    process : KerasProcess, optional
        The CPU is used without one.
    keras, tflite : Path
        The two files of the network.
    workers : int
        Parallel runs on the CPU.
    images : int
        How many images are to be computed.
    stage : str
        A layer of the Keras file whose flattened activations are the output of the LiteRT file.

    Raises
    ------
    KindsightError
        If the device is ``"gpu"`` and it fails.
    """
    litert = InterpreterPool(tflite, workers)
    if process is None or not process.wants_gpu(images) or not process.find_gpu():
        return litert
    pixels = make_images(CHECKED_IMAGES, litert.size).astype(np.uint8)
    expected = np.stack(litert.run_all(list(pixels)))
    try:
        outputs = process.run_network(keras, pixels, stage)
    except KindsightError as error:
        process.leave_gpu(error)
        return litert
    difference = float(np.abs(outputs - expected).max() / np.abs(expected).max())
    # A NaN fails, too.
    if not difference <= GPU_TOLERANCE:
        process.leave_gpu(
            f"its features differ from LiteRT's by {difference:.1g} of the largest value; "
            f"{GPU_TOLERANCE:g} is allowed."
        )
        return litert
    process.record_difference(difference)
    return GpuPool(process, keras, stage, litert)
