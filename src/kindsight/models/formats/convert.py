"""Convert a Keras model to a LiteRT file and compare their outputs. Needs TensorFlow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import ParityError
from kindsight.models.formats.litert import make_interpreter

__all__ = ["check_agreement", "convert_to_litert", "make_images", "run_litert", "write_both_forms"]

TOLERANCE = 1e-3
"""Largest difference allowed, as a fraction of the largest value."""

CHECKED_IMAGES = 8


def convert_to_litert(model: Any) -> bytes:
    """Convert a model from pixels, float32 (batch, height, width, 3), to one vector per image.

    The LiteRT file is in float32 for a batch of one, the fastest on a CPU; the batch can be resized
    if every layer allows it.
    """
    import tensorflow as tf

    # Private: tf.lite converts variables itself, but in three times the time (see below).
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    spec = tf.TensorSpec((1, *model.input_shape[1:]), tf.float32, name="pixels")
    function = tf.function(lambda pixels: model(pixels, training=False), autograph=False)
    # With its weights as constants, a function converts in a third of the time of a saved model,
    # and the optimiser can fold batch normalisations into convolutions.
    frozen = convert_variables_to_constants_v2(function.get_concrete_function(spec))
    return bytes(tf.lite.TFLiteConverter.from_concrete_functions([frozen]).convert())


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


def run_litert(model: bytes, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run images (n, height, width, 3) one by one through a LiteRT file; return (n, d)."""
    interpreter = make_interpreter(model)
    source = interpreter.get_input_details()[0]["index"]
    target = interpreter.get_output_details()[0]["index"]
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
    expected = np.asarray(model(images, training=False))
    got = run_litert(converted, images)
    difference = float(np.abs(got - expected).max() / np.abs(expected).max())
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
