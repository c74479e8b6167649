"""LiteRT: the bundle's network, from pixels to probabilities, without TensorFlow.

In float32 and float16, kindsight itself rewrites the weights in the file; ai-edge-quantizer writes
int8.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.bundle import Bundle
from kindsight.errors import KindsightError
from kindsight.export.target import (
    FLOAT16,
    FLOAT32,
    INT8,
    OOD_SCORE,
    PROBABILITIES,
    Bounds,
    Calibration,
    Outputs,
    converter_process,
    describe,
    require,
    version_of,
)
from kindsight.models.formats.assemble import METADATA_NAME, PIXELS
from kindsight.models.formats.tflite import (
    SIGNATURE,
    aligned_buffer,
    compact,
    pack_whole,
    read_tflite,
    read_whole,
)
from kindsight.models.runtime import InterpreterPool, schema
from kindsight.threads import count_cores, map_ordered

__all__ = [
    "DYNAMIC_TARGET",
    "FLOAT16_TARGET",
    "FLOAT32_TARGET",
    "INT8_TARGET",
    "MODEL_FILE",
    "LiteRT",
    "LiteRTModel",
    "count_convolutions",
    "count_int8_weights",
    "float16_tflite",
    "probabilities_tflite",
    "to_float16",
]

WEIGHTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
"""Operators whose second input may have float16 weights."""

SMALL = 1024
"""Minimum number of weights for float16: converting fewer would not save space."""


def to_float16(content: bytes) -> bytes:
    """Return a LiteRT file with the weights of its layers in float16.

    LiteRT converts them to float32 when it loads the file and computes in float32. Biases and the
    small tables between layers stay float32.
    """
    types, model = schema(), read_whole(content)
    wanted = {getattr(types.BuiltinOperator, name) for name in WEIGHTS}
    code = _dequantize_code(model)
    for graph in model.subgraphs:
        replaced: dict[int, int] = {}
        conversions = []
        for operator in graph.operators:
            if _builtin(model, operator) not in wanted:
                continue
            weights = int(operator.inputs[1])
            if not _is_large_float(model, graph.tensors[weights]):
                continue
            if weights not in replaced:
                replaced[weights] = _halve(model, graph, weights)
                conversions.append(_conversion(code, replaced[weights], weights))
        # Before the operators that use the weights.
        graph.operators = [*conversions, *graph.operators]
    return pack_whole(model)


def name_tensors_apart(content: bytes) -> bytes:
    """Return a LiteRT file whose tensors have unique names, as ai-edge-quantizer requires."""
    model = read_whole(content)
    for graph in model.subgraphs:
        ends = {*map(int, graph.inputs), *map(int, graph.outputs)}
        taken = {graph.tensors[number].name for number in ends}
        for number, tensor in enumerate(graph.tensors):
            name = tensor.name or b""
            if number not in ends and name in taken:
                tensor.name = name + b"#%d" % number
            taken.add(tensor.name)
    return pack_whole(model)


def count_convolutions(content: bytes) -> tuple[int, int]:
    """Return the number of convolutions with int8 inputs, weights and outputs, and of all.

    For dynamic-range quantisation, with float32 inputs and outputs, see :func:`count_int8_weights`.
    """
    return _count(content, ("CONV_2D", "DEPTHWISE_CONV_2D"), whole=True)


def count_int8_weights(content: bytes) -> tuple[int, int]:
    """Return the number of convolutions with int8 weights, and of all."""
    return _count(content, ("CONV_2D", "DEPTHWISE_CONV_2D"), whole=False)


def _count(content: bytes, names: tuple[str, ...], *, whole: bool) -> tuple[int, int]:
    types, model = schema(), read_whole(content)
    wanted = {getattr(types.BuiltinOperator, name) for name in names}
    found = total = 0
    for graph in model.subgraphs:
        for operator in graph.operators:
            if _builtin(model, operator) not in wanted:
                continue
            total += 1
            ends = [operator.inputs[1]]
            if whole:
                ends += [operator.inputs[0], *operator.outputs]
            found += all(graph.tensors[int(end)].type == types.TensorType.INT8 for end in ends)
    return found, total


def _builtin(model: Any, operator: Any) -> int:
    code = model.operatorCodes[operator.opcodeIndex]
    return int(max(code.builtinCode, code.deprecatedBuiltinCode))


def _is_large_float(model: Any, tensor: Any) -> bool:
    data = model.buffers[tensor.buffer].data
    large = data is not None and len(data) >= 4 * SMALL
    return bool(large and tensor.type == schema().TensorType.FLOAT32)


def _halve(model: Any, graph: Any, number: int) -> int:
    """Add a float16 copy from which a constant tensor is then computed; return its number."""
    types = schema()
    tensor = graph.tensors[number]
    values = np.frombuffer(bytes(model.buffers[tensor.buffer].data), "<f4")
    limit = np.finfo(np.float16).max
    half = values.clip(-limit, limit).astype("<f2")
    model.buffers.append(aligned_buffer(half.view(np.uint8)))
    copy = types.TensorT()
    copy.name, copy.shape = (tensor.name or b"weights") + b"/float16", tensor.shape
    copy.type, copy.buffer, copy.hasRank = types.TensorType.FLOAT16, len(model.buffers) - 1, True
    graph.tensors.append(copy)
    tensor.buffer = 0  # the empty one
    return len(graph.tensors) - 1


def _conversion(code: int, source: int, target: int) -> Any:
    types = schema()
    operator = types.OperatorT()
    operator.opcodeIndex = code
    operator.inputs = np.array([source], np.int32)
    operator.outputs = np.array([target], np.int32)
    operator.builtinOptionsType = types.BuiltinOptions.DequantizeOptions
    operator.builtinOptions = types.DequantizeOptionsT()
    return operator


def _dequantize_code(model: Any) -> int:
    types = schema()
    code = types.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = types.BuiltinOperator.DEQUANTIZE
    code.version = 3  # the first version with float16
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


MODEL_FILE = "model.tflite"

CHUNK = 8
"""Images that a thread runs through the network, one after the other."""


def probabilities_tflite(bundle: Bundle, metadata: Mapping[str, Any]) -> bytes:
    """Return a bundle's LiteRT file with probabilities in place of logits.

    It maps ``"pixels"``, float32 (1, height, width, 3) with values 0-255, to ``"probabilities"``,
    float32 (1, classes), and, if the bundle has one, to ``"ood_score"``, float32 (1, 1).
    `metadata` is stored as JSON under the name ``"kindsight"``.
    """
    graph = read_tflite(bundle.tflite)
    ends = {
        PROBABILITIES: graph.add_operator(
            "SOFTMAX", [graph.output], PROBABILITIES, len(bundle.classes),
            kind="Softmax", beta=1 / bundle.temperature,
        )
    }  # fmt: skip
    if graph.second_output is not None:
        ends[OOD_SCORE] = graph.second_output
    graph.name_ends(PIXELS, ends)
    graph.set_metadata(METADATA_NAME, json.dumps(metadata).encode())
    return compact(bytes(graph.to_bytes()))


def float16_tflite(bundle: Bundle, metadata: Mapping[str, Any]) -> bytes:
    """Return :func:`probabilities_tflite` with weights in float16: half the size."""
    return to_float16(probabilities_tflite(bundle, metadata))


@dataclass(frozen=True)
class LiteRT:
    """A LiteRT file that needs no further package; `make` returns its content."""

    name: str
    title: str
    bounds: Bounds
    make: Callable[[Bundle, Mapping[str, Any]], bytes]
    extra: str | None = None
    needs_calibration: bool = False
    own_process: bool = False

    def check(self, bundle: Bundle) -> None:
        """Do nothing: no further package is needed."""

    def convert(
        self, bundle: Bundle, folder: Path, calibration: Calibration | None
    ) -> tuple[Path, ...]:
        """Write ``model.tflite``."""
        target = folder / MODEL_FILE
        target.write_bytes(self.make(bundle, describe(bundle)))
        return (target,)

    def open(self, folder: Path) -> LiteRTModel | None:
        """Open ``model.tflite``."""
        return LiteRTModel(folder / MODEL_FILE)

    def runtime(self) -> dict[str, str]:
        """Return the version of LiteRT."""
        return version_of("ai-edge-litert")


FLOAT32_TARGET = LiteRT("litert", "LiteRT, float32", FLOAT32, probabilities_tflite)
FLOAT16_TARGET = LiteRT(
    "litert-float16", "LiteRT, float16 weights, half the size", FLOAT16, float16_tflite
)


@dataclass(frozen=True)
class QuantizedLiteRT:
    """A LiteRT file with int8 convolutions.

    The head, the "none of these" score and the statistics of the feature maps stay in floating
    point, with float16 weights: they are a hundredth of the work, and their sums nearly cancel.

    Parameters
    ----------
    name, title, extra, bounds
        See :class:`.target.Exporter`.
    needs_calibration : bool
        Whether activations are int8, too, with ranges measured on training images. If not, only
        weights are int8 in the file, and the runtime measures the ranges of each image (dynamic
        range).
    """

    name: str
    title: str
    needs_calibration: bool
    extra: str | None = "quantize"
    bounds: Bounds = INT8
    own_process: bool = False

    def check(self, bundle: Bundle) -> None:
        """Raise MissingExtraError if ai-edge-quantizer is missing."""
        require(self.name, self.extra, "ai_edge_quantizer")

    def convert(
        self, bundle: Bundle, folder: Path, calibration: Calibration | None
    ) -> tuple[Path, ...]:
        """Write ``model.tflite``; KindsightError if a convolution is not int8 in it."""
        target = folder / MODEL_FILE
        with tempfile.TemporaryDirectory(prefix="kindsight-") as temporary:
            source, out = Path(temporary, "float.tflite"), Path(temporary, "int8.tflite")
            content = probabilities_tflite(bundle, describe(bundle))
            source.write_bytes(name_tensors_apart(content))
            pixels = None
            if calibration is not None:
                pixels = Path(temporary, "pixels.npy")
                np.save(pixels, calibration(), allow_pickle=False)
            with converter_process() as process:
                process.run_job(
                    job="quantize", model=str(source), out=str(out), input=PIXELS,
                    signature=SIGNATURE, pixels=None if pixels is None else str(pixels),
                )  # fmt: skip
            content = to_float16(out.read_bytes())
        count = count_convolutions if self.needs_calibration else count_int8_weights
        integer, total = count(content)
        if integer < total:
            raise KindsightError(
                f"{total - integer} of {total} convolutions are not int8 after quantisation. "
                "Export to litert-float16 instead, and report this with the network's name."
            )
        target.write_bytes(content)
        return (target,)

    def open(self, folder: Path) -> LiteRTModel | None:
        """Open ``model.tflite``."""
        return LiteRTModel(folder / MODEL_FILE)

    def runtime(self) -> dict[str, str]:
        """Return the versions of LiteRT and of the quantizer."""
        return version_of("ai-edge-litert", "ai-edge-quantizer")


DYNAMIC_TARGET = QuantizedLiteRT("litert-dynamic", "LiteRT, int8 weights", False)
INT8_TARGET = QuantizedLiteRT("litert-int8", "LiteRT, int8 convolutions, calibrated", True)


class LiteRTModel:
    """A LiteRT file from pixels to probabilities, on all cores."""

    def __init__(self, path: Path) -> None:
        self._pool = InterpreterPool(path, count_cores())

    def predict(self, pixels: NDArray[Any]) -> Outputs:
        """Return the outputs for resized images; see :class:`.target.ExportedModel`."""
        chunks = [list(pixels[start : start + CHUNK]) for start in range(0, len(pixels), CHUNK)]
        rows = [
            row
            for chunk in map_ordered(self._pool.run_both, chunks, self._pool.workers, 2)
            for row in chunk
        ]
        probabilities = np.array([row[0] for row in rows], np.float32)
        probabilities = probabilities.reshape(len(rows), self._pool.width)
        if not self._pool.second_width:
            return probabilities, None
        return probabilities, np.array([row[1] for row in rows], np.float32).reshape(len(rows))

    def close(self) -> None:
        """Do nothing: the interpreters end with this object."""
