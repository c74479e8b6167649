"""A convolutional classifier of two stages, written by hand, and the same network in NumPy.

Stage 1 is a 3 x 3 convolution with ReLU, stage 2 another with stride 2. The head pools the maximum
and the mean of stage 1 and the mean of stage 2, followed by one dense layer: the logits.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

CLASSES = ("green", "red")
SIDE = 16


class Weights(NamedTuple):
    """The kernels, (3, 3, inputs, outputs), and the head's, (features, classes)."""

    first: np.ndarray
    second: np.ndarray
    head: np.ndarray


def random_weights(seed: int) -> Weights:
    """Return random weights: two maps of stage 1, three of stage 2."""
    random = np.random.default_rng(seed)
    return Weights(
        random.normal(size=(3, 3, 3, 2)).astype(np.float32),
        random.normal(size=(3, 3, 2, 3)).astype(np.float32),
        random.normal(size=(7, 2)).astype(np.float32),
    )


def colour_weights() -> Weights:
    """Return weights that tell a red from a green patch: the maps are of either colour."""
    first, second = np.zeros((3, 3, 3, 2), np.float32), np.zeros((3, 3, 2, 3), np.float32)
    first[1, 1] = [[-1, 1], [1, -1], [-0.2, -0.2]]  # red, green, blue -> green, red
    second[1, 1] = [[1, 0, 0], [0, 1, 0]]
    head = np.zeros((7, 2), np.float32)
    for row, column in ((0, 0), (1, 1), (2, 0), (3, 1), (4, 0), (5, 1)):
        head[row, column] = 0.1
    return Weights(first, second, head)


def convolve(values: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """Return a 3 x 3 convolution, padded as TensorFlow's SAME, with ReLU; one pixel at a time."""
    height, width = values.shape[:2]
    before = 1 if stride == 1 else 0
    padded = np.pad(values.astype(np.float64), ((before, 1), (before, 1), (0, 0)))
    out = np.zeros((height // stride, width // stride, kernel.shape[3]))
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            patch = padded[y * stride : y * stride + 3, x * stride : x * stride + 3]
            out[y, x] = np.tensordot(patch, kernel, 3)
    return np.maximum(out, 0)


def stages(weights: Weights, pixels: np.ndarray) -> list[np.ndarray]:
    """Return the maps of both stages."""
    one = convolve(pixels, weights.first, 1)
    return [one, convolve(one, weights.second, 2)]


def head_logits(weights: Weights, maps: list[np.ndarray]) -> np.ndarray:
    """Return the logits of the maps of both stages."""
    one, two = maps
    features = [one.max(axis=(0, 1)), one.mean(axis=(0, 1)), two.mean(axis=(0, 1))]
    return np.concatenate(features) @ weights.head


def tflite_bytes(weights: Weights) -> bytes:
    """Return the network as a LiteRT file."""
    arrays = {
        "axes": np.array([1, 2], np.int32),
        "first": np.ascontiguousarray(np.moveaxis(weights.first, 3, 0)),
        "first_bias": np.zeros(2, np.float32),
        "second": np.ascontiguousarray(np.moveaxis(weights.second, 3, 0)),
        "second_bias": np.zeros(3, np.float32),
        "head": np.ascontiguousarray(weights.head.T),
        "head_bias": np.zeros(2, np.float32),
    }
    computed = {
        "pixels": (1, SIDE, SIDE, 3), "one": (1, SIDE, SIDE, 2),
        "two": (1, SIDE // 2, SIDE // 2, 3), "one_max": (1, 2), "one_mean": (1, 2),
        "two_mean": (1, 3), "features": (1, 7), "logits": (1, 2),
    }  # fmt: skip
    number = {name: index for index, name in enumerate([*computed, *arrays])}
    graph, model = schema.SubGraphT(), schema.ModelT()
    model.buffers = [schema.BufferT()]
    graph.tensors = []
    for name, shape in [*computed.items(), *((k, v.shape) for k, v in arrays.items())]:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name, np.array(shape, np.int32), 0
        tensor.type, tensor.hasRank = schema.TensorType.FLOAT32, True
        if name in arrays:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(arrays[name].tobytes(), np.uint8)
            model.buffers.append(buffer)
            tensor.buffer = len(model.buffers) - 1
            if arrays[name].dtype == np.int32:
                tensor.type = schema.TensorType.INT32
        graph.tensors.append(tensor)
    codes = ["CONV_2D", "REDUCE_MAX", "MEAN", "CONCATENATION", "FULLY_CONNECTED"]
    model.operatorCodes = []
    for name in codes:
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
        code.version = 1
        model.operatorCodes.append(code)

    def operator(code: str, inputs: str, output: str, kind: str, **options: Any) -> Any:
        made = schema.OperatorT()
        made.opcodeIndex = codes.index(code)
        made.inputs = np.array([number[name] for name in inputs.split()], np.int32)
        made.outputs = np.array([number[output]], np.int32)
        made.builtinOptionsType = getattr(schema.BuiltinOptions, f"{kind}Options")
        made.builtinOptions = getattr(schema, f"{kind}OptionsT")()
        for name, value in options.items():
            setattr(made.builtinOptions, name, value)
        return made

    def convolution(inputs: str, output: str, stride: int) -> Any:
        return operator(
            "CONV_2D", inputs, output, "Conv2D", padding=schema.Padding.SAME, strideW=stride,
            strideH=stride, dilationWFactor=1, dilationHFactor=1,
            fusedActivationFunction=schema.ActivationFunctionType.RELU,
        )  # fmt: skip

    graph.operators = [
        convolution("pixels first first_bias", "one", 1),
        operator("REDUCE_MAX", "one axes", "one_max", "Reducer"),
        operator("MEAN", "one axes", "one_mean", "Reducer"),
        convolution("one second second_bias", "two", 2),
        operator("MEAN", "two axes", "two_mean", "Reducer"),
        operator("CONCATENATION", "one_max one_mean two_mean", "features", "Concatenation", axis=1),
        operator("FULLY_CONNECTED", "features head head_bias", "logits", "FullyConnected"),
    ]
    graph.inputs = np.array([number["pixels"]], np.int32)
    graph.outputs = np.array([number["logits"]], np.int32)
    model.version, model.subgraphs = 3, [graph]
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def write_bundle(folder: Path, weights: Weights, fit: str = "stretch") -> Path:
    """Write a bundle of the network."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.tflite").write_bytes(tflite_bytes(weights))
    content = {
        "format": 1,
        "classes": list(CLASSES),
        "input": {"height": SIDE, "width": SIDE, "fit": fit, "interpolation": "area"},
        "temperature": 1.0,
        "backbone": "tiny",
    }
    (folder / "bundle.json").write_text(json.dumps(content), "utf-8")
    return folder


def patched(quarter: int, colour: tuple[int, int, int], side: int = SIDE) -> np.ndarray:
    """Return a dark image with a coloured patch in one of four quarters, row by row."""
    image = np.full((side, side, 3), 20, np.uint8)
    top, left = quarter // 2 * side // 2, quarter % 2 * side // 2
    margin = side // 8
    image[top + margin : top + side // 2 - margin, left + margin : left + side // 2 - margin] = (
        colour
    )
    return image
