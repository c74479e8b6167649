"""Read, extend and write LiteRT's model files without TensorFlow.

A ``.tflite`` file is a FlatBuffer: a list of buffers (weights), one graph of tensors and
operators that refer to them by number, and named signatures. Appending layers means appending to
these lists. What is not changed is copied as bytes (:mod:`.unread_tables`), so that a file of 14 MB
is read and written in a hundredth of a second.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import WeightsError
from kindsight.models.formats.unread_tables import (
    ExtendingBuilder,
    added_bytes,
    aligned_buffer,
    read_model,
)
from kindsight.models.runtime import MAX_MODEL_BYTES, schema

__all__ = ["TfliteGraph", "damage_as_weights_error", "read_tflite"]

IDENTIFIER = b"TFL3"
SIGNATURE = "serving_default"
# Above any network of this project (an ensemble of Lite0, Lite1 and Lite2 with 24 TTA variants
# has 21,000 tensors), far below what takes long to read.
MAX_ITEMS = 100_000
# Bytes added to a file, beside weights, that need no second copy of it.
ADDED_BYTES = 2**19


class TfliteGraph:
    """The graph of a model file (`model`, the schema's ModelT), to which operators can be added.

    `data` is the file's content.
    """

    def __init__(self, data: bytes) -> None:
        self._schema, self._data = schema(), data
        self.model = model = read_model(data)
        _check(model)
        self._graph = model.subgraphs[0]

    @property
    def table(self) -> Any:
        """The schema's reader of the graph as it is in the file (SubGraph), without additions."""
        return self._schema.Model.GetRootAs(self._data, 0).Subgraphs(0)

    @property
    def input(self) -> int:
        """The number of the input tensor."""
        return int(self._graph.inputs[0])

    @property
    def output(self) -> int:
        """The number of the first output tensor."""
        return int(self._graph.outputs[0])

    @property
    def second_output(self) -> int | None:
        """The number of the second output tensor, if there is one."""
        return int(self._graph.outputs[1]) if len(self._graph.outputs) > 1 else None

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Return a tensor's shape, the batch first."""
        return tuple(int(size) for size in self._graph.tensors[tensor].shape)

    def add_constant(self, name: str, array: NDArray[Any]) -> int:
        """Add an array as a constant tensor, int32 or float32; return its number."""
        whole = np.asarray(array).dtype.kind in "iu"
        data = np.ascontiguousarray(array, "<i4" if whole else "<f4")
        self.model.buffers.append(aligned_buffer(data.reshape(-1).view(np.uint8)))
        number = self._tensor(name, data.shape, len(self.model.buffers) - 1)
        if whole:
            self._graph.tensors[number].type = self._schema.TensorType.INT32
        return number

    def add_operator(
        self, code: str, inputs: Sequence[int], name: str, *shape: int, **options: Any
    ) -> int:
        """Add an operator with a float32 output (1, *shape); return the output tensor's number.

        `code` is its name in the schema, for example ``"FULLY_CONNECTED"``. The options are
        ``kind``, for example ``"FullyConnected"``, and fields of the operator's options.
        """
        output = self._tensor(name, (1, *shape), 0)
        operator = self._schema.OperatorT()
        operator.opcodeIndex = self._code(getattr(self._schema.BuiltinOperator, code))
        operator.inputs = np.array(inputs, np.int32)
        operator.outputs = np.array([output], np.int32)
        kind = f"{options.pop('kind')}Options"
        operator.builtinOptionsType = getattr(self._schema.BuiltinOptions, kind)
        operator.builtinOptions = getattr(self._schema, f"{kind}T")()
        for field, value in options.items():
            setattr(operator.builtinOptions, field, value)
        self._graph.operators.append(operator)
        return output

    def name_ends(self, input_name: str, outputs: Mapping[str, int]) -> None:
        """Make tensors the outputs, by name, and name them and the input, also in the signature."""
        types = self._schema
        pixels = int(self._graph.inputs[0])
        self._graph.outputs = np.array([*outputs.values()], np.int32)
        for name, tensor in ((input_name, pixels), *outputs.items()):
            self._graph.tensors[tensor].name = name
        signature = types.SignatureDefT()
        signature.signatureKey = SIGNATURE
        signature.subgraphIndex = 0
        ends = []
        for name, tensor in ((input_name, pixels), *outputs.items()):
            end = types.TensorMapT()
            end.name, end.tensorIndex = name, tensor
            ends.append(end)
        signature.inputs, signature.outputs = ends[:1], ends[1:]
        self.model.signatureDefs = [signature]

    def set_metadata(self, name: str, content: bytes) -> None:
        """Store bytes in the file under a name; LiteRT itself ignores them."""
        entry = self._schema.MetadataT()
        entry.name, entry.buffer = name, len(self.model.buffers)
        self.model.buffers.append(aligned_buffer(np.frombuffer(content, np.uint8)))
        others = [old for old in self.model.metadata or [] if old.name not in (name, name.encode())]
        self.model.metadata = [*others, entry]

    def to_bytes(self) -> memoryview:
        """Return the file's content."""
        size = sum(added_bytes(buffer, self._data) for buffer in self.model.buffers)
        # The full size from the start: growing would copy the whole file each time.
        builder = ExtendingBuilder(self._data, size + ADDED_BYTES)
        builder.Finish(self.model.Pack(builder), file_identifier=IDENTIFIER)
        return memoryview(builder.Bytes)[builder.Head() :]

    def _tensor(self, name: str, shape: Sequence[int], buffer: int) -> int:
        tensor = self._schema.TensorT()
        tensor.name, tensor.buffer = name, buffer
        tensor.type = self._schema.TensorType.FLOAT32
        tensor.shape = np.array(shape, np.int32)
        tensor.hasRank = True
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def _code(self, builtin: int) -> int:
        """Return the number of an operator's code in this file, added if needed."""
        codes = self.model.operatorCodes
        for number, code in enumerate(codes):
            if builtin == max(code.builtinCode, code.deprecatedBuiltinCode) and code.version == 1:
                return number
        code = self._schema.OperatorCodeT()
        code.builtinCode, code.version = builtin, 1
        # Old readers know one byte only; 127 refers them to the newer field.
        code.deprecatedBuiltinCode = min(builtin, 127)
        codes.append(code)
        return len(codes) - 1


def read_tflite(path: str | os.PathLike[str]) -> TfliteGraph:
    """Read a model file of one graph with one float32 input and one float32 output.

    WeightsError for a file that is missing, damaged, too large, or of another form.
    """
    data = _read(Path(path))
    with damage_as_weights_error(path):
        root = schema().Model.GetRootAs(data, 0)
        counts = [root.OperatorCodesLength(), root.BuffersLength(), root.SignatureDefsLength()]
        counts.append(root.MetadataLength())
        if root.SubgraphsLength() == 1 and max(counts) <= MAX_ITEMS:
            graph = root.Subgraphs(0)
            counts += [graph.TensorsLength(), graph.OperatorsLength()]
        if root.SubgraphsLength() != 1 or max(counts) > MAX_ITEMS:
            raise ValueError("it does not have one graph of a bounded number of tensors")
        return TfliteGraph(data)


@contextmanager
def damage_as_weights_error(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise WeightsError for what the schema's code raises on a damaged file."""
    try:
        yield
    except (
        struct.error, AttributeError, IndexError, OverflowError, TypeError, ValueError,
    ) as error:  # fmt: skip
        raise WeightsError(
            f"{path} is damaged or is not the LiteRT file of one network: {error}."
        ) from None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(MAX_MODEL_BYTES + 1) if size <= MAX_MODEL_BYTES else b""
    except OSError as error:
        raise WeightsError(f"The model file {path} cannot be read: {error.strerror}.") from None
    if data[4:8] != IDENTIFIER or len(data) > MAX_MODEL_BYTES:
        raise WeightsError(
            f"{path} must be a LiteRT file of at most {MAX_MODEL_BYTES} bytes; it has {size} bytes "
            f"and starts with {data[:8]!r}."
        )
    return data


def _check(model: Any) -> None:
    """Raise ValueError for a graph that this module cannot add to."""
    (graph,) = model.subgraphs
    if graph is None or len(graph.inputs) != 1 or not 1 <= len(graph.outputs) <= 2:
        raise ValueError("its graph does not have one input and one or two outputs")
    tensors = graph.tensors
    for number in (int(graph.inputs[0]), *map(int, graph.outputs)):
        if not 0 <= number < len(tensors) or tensors[number] is None:
            raise ValueError(f"its graph has no tensor {number}")
        if tensors[number].type != schema().TensorType.FLOAT32 or tensors[number].shape is None:
            raise ValueError("its input or output is not float32 or has no shape")
    items = [*model.operatorCodes, *(model.metadata or [])]
    if any(item is None for item in items) or not model.buffers:
        raise ValueError("it has incomplete lists")
