"""LiteRT: run a model on images, on all cores, and convert a Keras model to it.

``ai-edge-litert`` is small and starts fast. Where it has no build, the same interpreter and file
schema come from TensorFlow, which takes seconds to import. Only the conversion always needs
TensorFlow.
"""

from __future__ import annotations

import importlib
import os
import platform
import queue
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import BundleError, KindsightError, ParityError, WeightsError
from kindsight.files import standard_error_hidden
from kindsight.threads import count_cores

__all__ = [
    "MAX_MODEL_BYTES", "Interpreter", "InterpreterPool", "check_agreement", "convert_to_litert",
    "make_images", "make_interpreter", "run_litert", "schema", "write_both_forms",
]  # fmt: skip

MAX_MODEL_BYTES = 2**30
_first_interpreter = threading.Lock()
_message_printed = threading.Event()

TOLERANCE = 1e-3
"""Largest difference allowed, as a fraction of the largest value."""

CHECKED_IMAGES = 8

# The operations that are missing, in the converter's message.
_UNSUPPORTED = re.compile(r"'(tf\.\w+)' op")


def _tensorflow() -> Any:
    """Import TensorFlow in place of LiteRT; KindsightError if there is neither."""
    try:
        return importlib.import_module("tensorflow")
    except ImportError as error:
        raise KindsightError(
            f"Networks cannot be run: ai-edge-litert is not installed ({platform.system()} on "
            f"{platform.machine()}, Python {platform.python_version()}). Run: pip install "
            "ai-edge-litert. It exists for Linux, Macs with Apple silicon, and Windows on x86-64."
        ) from error


def make_interpreter(model: Path | bytes, threads: int = 1) -> Any:
    """Return an interpreter of a LiteRT file, or of its content, with its tensors allocated.

    TensorFlow's interpreter has the same methods. WeightsError for a file that is missing, damaged,
    or uses unsupported operators.
    """
    try:
        interpreter_class = importlib.import_module("ai_edge_litert.interpreter").Interpreter
    except ImportError:
        interpreter_class = _tensorflow().lite.Interpreter
    try:
        source = {"model_content": model} if isinstance(model, bytes) else _source(model)
        with _delegate_message_hidden():
            interpreter = interpreter_class(num_threads=threads, **source)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError, OSError) as error:
        name = "the model" if isinstance(model, bytes) else str(model)
        raise WeightsError(f"LiteRT cannot run {name}: {error}") from None
    return interpreter


def _source(model: Path) -> dict[str, Any]:
    """Return the path of a model, or its content if the path is not Unicode, as LiteRT requires."""
    try:
        return {"model_path": str(model.absolute()).encode().decode()}
    except UnicodeEncodeError:
        with model.open("rb") as file:
            return {"model_content": file.read(MAX_MODEL_BYTES)}


@contextmanager
def _delegate_message_hidden() -> Iterator[None]:
    """Hide "Created XNNPACK delegate", which LiteRT writes once per process to descriptor 2."""
    if _message_printed.is_set():
        yield
        return
    with _first_interpreter:
        with standard_error_hidden():
            yield
        _message_printed.set()


def schema() -> Any:
    """Return the generated module that reads and writes LiteRT's file format."""
    try:
        return importlib.import_module("ai_edge_litert.schema_py_generated")
    except ImportError:
        return importlib.import_module("tensorflow.lite.python.schema_py_generated")


class Interpreter:
    """A LiteRT model that is run on one image at a time.

    The file maps float32 (1, height, width, 3) with values 0-255 to float32 (1, n), and maybe to a
    second output, float32 (1, m), such as an out-of-distribution score. `threads` are used by one
    run. `content` is that of the file, which then is not read. ``size`` is (height, width),
    ``width`` is n, ``second_width`` is m, 0 without a second output. BundleError for any other
    file.
    """

    def __init__(
        self, model: str | os.PathLike[str], threads: int = 1, content: bytes | None = None
    ) -> None:
        self.path = Path(model)
        try:
            self._interpreter = make_interpreter(content or self.path, threads)
            (input_,) = self._interpreter.get_input_details()
            output, *more = self._interpreter.get_output_details()
            if len(more) > 1:
                raise ValueError(f"it has {1 + len(more)} outputs")
        except (WeightsError, ValueError) as error:
            raise BundleError(
                f"{self.path} cannot be loaded as a LiteRT model of one input and one output, and "
                f"maybe a score: {str(error)[:200]}"
            ) from error
        shape = tuple(int(size) for size in input_["shape"])
        if len(shape) != 4 or shape[0] != 1 or shape[3] != 3 or input_["dtype"] != np.float32:
            raise BundleError(
                f"{self.path} must take float32 images of shape (1, height, width, 3); it takes "
                f"{np.dtype(input_['dtype']).name} {shape}."
            )
        widths = []
        for each in (output, *more):
            shape_out = tuple(int(size) for size in each["shape"])
            if len(shape_out) != 2 or shape_out[0] != 1 or each["dtype"] != np.float32:
                raise BundleError(
                    f"{self.path} must return float32 values of shape (1, n); it returns "
                    f"{np.dtype(each['dtype']).name} {shape_out}."
                )
            widths.append(shape_out[1])
        self._input, self._output = input_["index"], output["index"]
        self._second = more[0]["index"] if more else None
        self.size = (shape[1], shape[2])
        self.width, self.second_width = [*widths, 0][:2]

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the output, float32 (n,), for an image of the model's size, uint8.

        BundleError for an image of another shape.
        """
        return self.run(image)[0]

    def run(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the output and the second one, float32 (m,); see :meth:`__call__`."""
        if image.shape != (*self.size, 3):
            raise BundleError(
                f"{self.path} takes images of shape {(*self.size, 3)}; got {image.shape}."
            )
        # Copied into the model's own memory; no reference to it may exist during the run.
        np.copyto(self._interpreter.tensor(self._input)(), image[None])
        self._interpreter.invoke()
        result: NDArray[np.float32] = self._interpreter.get_tensor(self._output)[0]
        if self._second is None:
            return result, np.empty(0, np.float32)
        return result, self._interpreter.get_tensor(self._second)[0]


class InterpreterPool:
    """Interpreters of one model for several threads, created when first needed.

    Two runs in parallel use two cores better than one run with two threads. `workers` is the number
    of parallel runs; default: the number of cores. `content` is as for :class:`Interpreter`.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        workers: int | None = None,
        content: bytes | None = None,
    ) -> None:
        self.workers = workers or count_cores()
        self._model, self._content = model, content
        first = Interpreter(model, content=content)
        self.size, self.width, self.second_width = first.size, first.width, first.second_width
        self._free: queue.LifoQueue[Interpreter | None] = queue.LifoQueue()
        for _ in range(self.workers - 1):
            self._free.put(None)
        self._free.put(first)

    def load_all(self) -> None:
        """Create all interpreters now, before the first run."""
        taken = [self._free.get() for _ in range(self.workers)]
        for interpreter in taken:
            self._free.put(interpreter or self._make())

    def _make(self) -> Interpreter:
        return Interpreter(self._model, content=self._content)

    def run(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the model on one image, waiting for a free interpreter."""
        return self.run_all([image])[0]

    def run_all(self, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        """Run the model on several images, one after the other, on one interpreter."""
        return [output for output, _ in self.run_both(images)]

    def run_both(
        self, images: Sequence[NDArray[np.uint8]]
    ) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Return both outputs of several images, as :meth:`Interpreter.run`."""
        if not images:
            return []
        interpreter = self._free.get()
        try:
            if interpreter is None:
                interpreter = self._make()
            return [interpreter.run(image) for image in images]
        finally:
            self._free.put(interpreter)


def convert_to_litert(model: Any) -> bytes:
    """Convert a model from pixels, float32 (batch, height, width, 3), to one vector per image.

    The LiteRT file is in float32 for a batch of one, the fastest on a CPU; the batch can be resized
    if every layer allows it. WeightsError for a model with operations that LiteRT does not have.
    """
    import tensorflow as tf

    # Private: tf.lite converts variables itself, but in three times the time (see below).
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    spec = tf.TensorSpec((1, *model.input_shape[1:]), tf.float32, name="pixels")
    function = tf.function(lambda pixels: model(pixels, training=False), autograph=False)
    # With its weights as constants, a function converts in a third of the time of a saved model,
    # and the optimiser can fold batch normalisations into convolutions.
    frozen = convert_variables_to_constants_v2(function.get_concrete_function(spec))
    try:
        return bytes(tf.lite.TFLiteConverter.from_concrete_functions([frozen]).convert())
    except Exception as error:  # the converter has its own error class, and raises others, too
        found = dict.fromkeys(_UNSUPPORTED.findall(str(error)))
        operations = f": {', '.join(found)[:200]}" if found else ""
        raise WeightsError(
            f"The network {model.name!r} cannot be converted for LiteRT, which lacks operations "
            f"of its layers{operations}. Replace these layers, and save the model again."
        ) from error


def make_images(count: int, size: tuple[int, int]) -> NDArray[np.float32]:
    """Generate images that differ in brightness, colour, direction and frequency.

    float32 (count, height, width, 3) with values 0-255; the same in every call.
    """
    height, width = size
    y, x = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    images = np.empty((count, height, width, 3), np.float32)
    for number in range(count):
        angle = np.pi * number / count
        along = x * np.cos(angle) + y * np.sin(angle)
        for channel in range(3):
            waves = np.sin(2 * np.pi * (1 + number + 3 * channel) * along + channel)
            noise = np.random.default_rng([number, channel]).uniform(-1, 1, (height, width))
            level = 40 + 170 * number / count
            images[number, :, :, channel] = level + 60 * waves + 40 * noise
    images.clip(0, 255, out=images)
    return images


def run_litert(model: bytes, pixels: NDArray[np.float32], output: int = 0) -> NDArray[np.float32]:
    """Run images (n, height, width, 3) one by one through a LiteRT file; return (n, d).

    `output` is the number of the output.
    """
    interpreter = make_interpreter(model)
    source = interpreter.get_input_details()[0]["index"]
    target = interpreter.get_output_details()[output]["index"]
    rows = []
    for image in pixels:
        interpreter.set_tensor(source, image[np.newaxis])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(target)[0])
    return np.stack(rows)


def check_agreement(model: Any, converted: bytes, tolerance: float = TOLERANCE) -> float:
    """Return the largest difference of a model from its LiteRT file on generated images.

    It is a fraction of the largest value.
    ParityError when that is above `tolerance`, or an output is not finite.
    """
    images = make_images(CHECKED_IMAGES, model.input_shape[1:3])
    # One by one: the activations of all layers are in memory at once, 50 MB for an image.
    rows = [model(images[at : at + 1], training=False) for at in range(len(images))]
    by_row = [
        [np.asarray(output) for output in (row if isinstance(row, list) else [row])] for row in rows
    ]
    differences = [
        np.abs(run_litert(converted, images, number) - expected).max() / np.abs(expected).max()
        for number, expected in enumerate(map(np.concatenate, zip(*by_row, strict=True)))
    ]
    difference = float(np.max(differences))
    # A NaN fails, too.
    if not difference <= tolerance:
        raise ParityError(
            f"The outputs of {model.name} in Keras and LiteRT differ by {difference:g} of the "
            f"largest value; {tolerance:g} is allowed. Please report this with the versions of "
            "tensorflow and ai-edge-litert."
        )
    return difference


def write_both_forms(
    model: Any, keras_file: str | os.PathLike[str], tflite_file: str | os.PathLike[str]
) -> float:
    """Write a model as a Keras file and as a LiteRT file; return :func:`check_agreement`."""
    model.save(keras_file)
    converted = convert_to_litert(model)
    Path(tflite_file).write_bytes(converted)
    return check_agreement(model, converted)
