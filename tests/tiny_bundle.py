"""A bundle whose answers can be worked out by hand: logits are the mean red, green and blue.

The network is written with the schema's own objects, without the code under test: the mean over
height and width, then a matrix that puts the channels in the order of the class names and divides
by 50. An image of one colour (r, g, b) so has the logits (b, g, r) / 50.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from PIL import Image

CLASSES = ("blue", "green", "red")
SIDE = 8
SCALE = 50.0
# Held-out scores from 0 to 0.49 in each class.
SETS: dict[str, Any] = {
    "confidence_level": 0.9, "images": 150, "source": "out-of-fold predictions", "mean_size": 1.0,
    "method": "lac", "per_class": False, "scores": [[number / 100 for number in range(50)]] * 3,
}  # fmt: skip
COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


def _tensor(name: str, shape: tuple[int, ...], buffer: int, kind: int) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.buffer, tensor.type = name, buffer, kind
    tensor.shape = np.array(shape, np.int32)
    tensor.hasRank = True
    return tensor


def _buffer(array: np.ndarray | None = None) -> Any:
    buffer = schema.BufferT()
    if array is not None:
        buffer.data = np.frombuffer(array.tobytes(), np.uint8)
    return buffer


def _code(builtin: int) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = builtin
    code.version = 1
    return code


def _operator(place: int, inputs: list[int], output: int, kind: int, options: Any) -> Any:
    operator = schema.OperatorT()
    operator.opcodeIndex = place
    operator.inputs = np.array(inputs, np.int32)
    operator.outputs = np.array([output], np.int32)
    operator.builtinOptionsType, operator.builtinOptions = kind, options
    return operator


def tflite_bytes(outputs: int = 3, kernel: np.ndarray | None = None) -> bytes:
    """Return the network as a LiteRT file, with its own kernel or with float32 (outputs, 3)."""
    if kernel is None:
        kernel = np.zeros((outputs, 3), np.float32)
        for place, channel in enumerate((2, 1, 0)[:outputs]):
            kernel[place, channel] = 1 / SCALE
    float32, int32 = schema.TensorType.FLOAT32, schema.TensorType.INT32
    graph = schema.SubGraphT()
    graph.tensors = [
        _tensor("pixels", (1, SIDE, SIDE, 3), 0, float32),
        _tensor("axes", (2,), 1, int32),
        _tensor("mean", (1, 3), 0, float32),
        _tensor("kernel", (outputs, 3), 2, float32),
        _tensor("bias", (outputs,), 3, float32),
        _tensor("logits", (1, outputs), 0, float32),
    ]
    graph.inputs, graph.outputs = np.array([0], np.int32), np.array([5], np.int32)
    dense = schema.FullyConnectedOptionsT()
    graph.operators = [
        _operator(0, [0, 1], 2, schema.BuiltinOptions.ReducerOptions, schema.ReducerOptionsT()),
        _operator(1, [2, 3, 4], 5, schema.BuiltinOptions.FullyConnectedOptions, dense),
    ]
    model = schema.ModelT()
    model.version, model.description = 3, "mean colour"
    model.operatorCodes = [
        _code(schema.BuiltinOperator.MEAN),
        _code(schema.BuiltinOperator.FULLY_CONNECTED),
    ]
    model.subgraphs = [graph]
    model.buffers = [
        _buffer(),
        _buffer(np.array([1, 2], np.int32)),
        _buffer(kernel),
        _buffer(np.zeros(outputs, np.float32)),
    ]
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def write_bundle(
    folder: Path,
    classes: tuple[str, ...] = CLASSES,
    temperature: float = 1.0,
    uncertainty: dict[str, Any] | None = None,
) -> Path:
    """Write a bundle; the classes stand for the mean blue, green and red."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.tflite").write_bytes(tflite_bytes(len(classes)))
    content = {
        "format": 1,
        "classes": list(classes),
        "input": {"height": SIDE, "width": SIDE, "fit": "stretch", "interpolation": "area"},
        "temperature": temperature,
        "backbone": "mean-colour",
        **({} if uncertainty is None else {"uncertainty": uncertainty}),
    }
    (folder / "bundle.json").write_text(json.dumps(content), "utf-8")
    return folder


def probabilities(colour: tuple[int, int, int], temperature: float = 1.0) -> dict[str, float]:
    """Work out the classes' probabilities for an image of one colour (red, green, blue)."""
    logits = [channel / SCALE / temperature for channel in reversed(colour)]
    powers = [math.exp(logit) for logit in logits]
    return {name: power / sum(powers) for name, power in zip(CLASSES, powers, strict=True)}


def write_image(path: Path, colour: tuple[int, int, int], side: int = SIDE) -> Path:
    """Write an image of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), colour).save(path)
    return path
