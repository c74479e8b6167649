"""Rewrite LiteRT files: without dead bytes, with float16 weights; count integer convolutions."""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np

from kindsight.models.formats.tflite import IDENTIFIER, aligned_buffer
from kindsight.models.runtime import schema

__all__ = [
    "compact", "count_convolutions", "count_int8_weights", "name_tensors_apart", "read_whole",
    "to_float16",
]  # fmt: skip

WEIGHTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
"""Operators whose second input may have float16 weights."""

SMALL = 1024
"""Weights of fewer numbers stay float32: they take no space, and a conversion does."""

SPARE_BYTES = 2**20
"""Bytes for all but the weights when a file is written; more are possible, but slow."""


def compact(content: bytes) -> bytes:
    """Return a LiteRT file without bytes that nothing refers to.

    TensorFlow's converter does not align large weights as LiteRT needs them. Adding layers to such
    a file copies these weights and leaves the old ones: a third of the file.
    """
    return _pack(read_whole(content))


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
    return _pack(model)


def name_tensors_apart(content: bytes) -> bytes:
    """Return a LiteRT file whose tensors have different names: ai-edge-quantizer needs that."""
    model = read_whole(content)
    for graph in model.subgraphs:
        ends = {*map(int, graph.inputs), *map(int, graph.outputs)}
        taken = {graph.tensors[number].name for number in ends}
        for number, tensor in enumerate(graph.tensors):
            name = tensor.name or b""
            if number not in ends and name in taken:
                tensor.name = name + b"#%d" % number
            taken.add(tensor.name)
    return _pack(model)


def read_whole(content: bytes) -> Any:
    """Return the schema's ModelT of a LiteRT file, also with weights behind the FlatBuffer."""
    model = schema().ModelT.InitFromPackedBuf(content, 0)
    for buffer in model.buffers:
        if buffer.offset > 1:  # ai-edge-quantizer writes them so
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def count_convolutions(content: bytes) -> tuple[int, int]:
    """Return how many convolutions have int8 inputs, weights and outputs, and how many there are.

    Of dynamic-range quantisation, with float32 inputs and outputs, see :func:`count_int8_weights`.
    """
    return _count(content, ("CONV_2D", "DEPTHWISE_CONV_2D"), whole=True)


def count_int8_weights(content: bytes) -> tuple[int, int]:
    """Return how many convolutions have int8 weights, and how many there are."""
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
    """Add a float16 copy of a constant tensor, which becomes computed; return the copy's number."""
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
    code.version = 3  # the first with float16
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _pack(model: Any) -> bytes:
    """Return the file of a model, with each used buffer once, aligned."""
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    used |= {entry.buffer for entry in model.metadata or []}
    buffers = []
    for number, buffer in enumerate(model.buffers):
        data = buffer.data if number in used else None
        buffers.append(aligned_buffer(None if data is None else np.frombuffer(data, np.uint8)))
    model.buffers = buffers
    size = sum(0 if buffer.data is None else len(buffer.data) for buffer in buffers)
    builder = flatbuffers.Builder(size + SPARE_BYTES)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())
