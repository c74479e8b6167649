"""Read, extend and write LiteRT's model files without TensorFlow.

A ``.tflite`` file is a FlatBuffer: a list of buffers (weights), one graph of tensors and
operators that refer to them by number, and named signatures. Appending layers means appending to
these lists.

The schema's classes read and write every number of a file in Python, half a second for a backbone.
Adding a head changes few tables. The others are copied with the file's bytes, unread: a
FlatBuffer's offsets lead forwards, so that new tables in front of a file can refer to those in it.
A file of 14 MB is read and written in a hundredth of a second.
"""

from __future__ import annotations

import functools
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from numpy.typing import NDArray

from kindsight.errors import WeightsError
from kindsight.models.runtime import MAX_MODEL_BYTES, schema

__all__ = [
    "TfliteGraph", "compact", "damage_as_weights_error", "pack_whole", "read_tflite", "read_whole",
]  # fmt: skip

# LiteRT reads weights in place; some processors need them at multiples of 16 bytes.
ALIGNMENT = 16
# Maximum bytes of a buffer besides its data.
HEADER_BYTES = 64
_TABLE = "_unread_table"
# Index of the data among the fields of a buffer table.
_DATA = 4


class ExtendingBuilder(flatbuffers.Builder):  # type: ignore[misc] # it has no types
    """A builder that writes in front of a file's bytes.

    Parameters
    ----------
    source : bytes
        The file.
    size : int
        Bytes that will be added; more are possible, but slow.
    """

    def __init__(self, source: bytes, size: int) -> None:
        padding = -len(source) % ALIGNMENT
        super().__init__(size + len(source) + padding)
        self.source = source
        # What follows is placed at multiples of this from the end, and so from the beginning.
        self.minalign = ALIGNMENT
        self.head -= padding + len(source)
        self.Bytes[self.head : self.head + len(source)] = source
        self._end = padding + len(source)

    def offset_of(self, position: int) -> int:
        """Return what the builder calls a table at a position of the file."""
        return self._end - position


def read_model(data: bytes) -> Any:
    """Return the schema's ModelT of a file, whose tensors, operators and buffers are unread.

    ValueError for weights outside the file; what :mod:`flatbuffers` raises for a damaged one.
    """
    types = schema()
    root = _without_lists("Model", "Buffers", "Subgraphs")()
    root.Init(data, types.Model.GetRootAs(data, 0)._tab.Pos)
    model = types.ModelT.InitFromObj(root)
    model.buffers = [_buffer(root.Buffers(number)) for number in range(root.BuffersLength())]
    model.subgraphs = []
    for number in range(root.SubgraphsLength()):
        table = _without_lists("SubGraph", "Tensors", "Operators")()
        table.Init(data, root.Subgraphs(number)._tab.Pos)
        graph = types.SubGraphT.InitFromObj(table)
        graph.tensors = _unread("Tensor", table.Tensors, table.TensorsLength())
        graph.operators = _unread("Operator", table.Operators, table.OperatorsLength())
        model.subgraphs.append(graph)
    return model


def aligned_buffer(data: Any) -> Any:
    """Return the schema's BufferT of bytes, uint8 (n,), that are written at a multiple of 16."""
    return _aligned_buffer_class()(data)


def added_bytes(buffer: Any, source: bytes) -> int:
    """Return the bytes that a buffer will take in front of a file, about; 0 if it is in it."""
    table = vars(buffer).get(_TABLE)
    if table is None:
        return 0 if buffer.data is None else len(buffer.data) + HEADER_BYTES
    return 0 if table._tab.Bytes is source else int(table.DataLength()) + HEADER_BYTES


@functools.cache
def _without_lists(name: str, *lists: str) -> Any:
    """Return the schema's reader of a table to which some lists seem to be missing."""
    missing = {f"{each}IsNone": lambda _: True for each in lists}
    return type(name, (getattr(schema(), name),), missing)


def _unread(name: str, item: Any, count: int) -> list[Any]:
    kind = _unread_class(name)
    return [kind(item(number)) for number in range(count)]


def _buffer(table: Any) -> Any:
    """Return a buffer, read if its data is in the wrong place for LiteRT."""
    # Weights outside the FlatBuffer (files above 2 GB) are not supported.
    if table.Offset() > 1 or table.Size() > 1:
        raise ValueError("its weights are outside the FlatBuffer")
    field = table._tab.Offset(_DATA)
    if field and table._tab.Vector(field) % ALIGNMENT:
        return aligned_buffer(table.DataAsNumpy())
    return _unread_class("Buffer")(table)


@functools.cache
def _aligned_buffer_class() -> Any:
    """Return the schema's BufferT with its data aligned: the writer ignores ``force_align: 16``."""
    types = schema()

    class AlignedBuffer(types.BufferT):  # type: ignore[misc, name-defined]
        def Pack(self, builder: Any) -> int:  # noqa: N802 - the schema's name
            data = None
            if self.data is not None and len(self.data):
                payload = np.ascontiguousarray(self.data).data
                builder.StartVector(1, len(payload), ALIGNMENT)
                builder.head -= len(payload)
                builder.Bytes[builder.head : builder.head + len(payload)] = payload
                data = builder.EndVector()
            types.BufferStart(builder)
            if data is not None:
                types.BufferAddData(builder, data)
            return int(types.BufferEnd(builder))

    return AlignedBuffer


@functools.cache
def _unread_class(name: str) -> Any:
    base = _aligned_buffer_class() if name == "Buffer" else getattr(schema(), f"{name}T")

    class Unread(base):  # type: ignore[misc, valid-type]
        def __init__(self, table: Any) -> None:
            self.__dict__[_TABLE] = table

        def _read(self) -> None:
            table = self.__dict__.pop(_TABLE)
            super().__init__()
            self._UnPack(table)

        def __getattr__(self, field: str) -> Any:
            # Called for a missing attribute, which was not read yet.
            if _TABLE not in self.__dict__:
                raise AttributeError(field)
            self._read()
            return getattr(self, field)

        def __setattr__(self, field: str, value: Any) -> None:
            if _TABLE in self.__dict__:
                self._read()
            super().__setattr__(field, value)

        def Pack(self, builder: Any) -> int:  # noqa: N802 - the schema's name
            table = self.__dict__.get(_TABLE)
            if table is not None and table._tab.Bytes is builder.source:
                return int(builder.offset_of(table._tab.Pos))
            return int(super().Pack(builder))

    return Unread


IDENTIFIER = b"TFL3"
SIGNATURE = "serving_default"
# Above any network of this project (an ensemble of Lite0, Lite1 and Lite2 with 24 TTA variants
# has 21,000 tensors), far below what takes long to read.
MAX_ITEMS = 100_000
# Number of bytes, besides weights, that can be added to a file without a second copy of it.
ADDED_BYTES = 2**19
# Bytes for all but the weights when a whole file is written; more are possible, but slow.
SPARE_BYTES = 2**20


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


def compact(content: bytes) -> bytes:
    """Return a LiteRT file without bytes that nothing refers to, its weights aligned.

    TensorFlow's converter does not align large weights as LiteRT needs them. Adding layers to such
    a file copies these weights and leaves the old ones: a third of the file.
    """
    return pack_whole(read_whole(content))


def read_whole(content: bytes) -> Any:
    """Return the schema's ModelT of a LiteRT file, also with weights behind the FlatBuffer."""
    model = schema().ModelT.InitFromPackedBuf(content, 0)
    for buffer in model.buffers:
        if buffer.offset > 1:  # ai-edge-quantizer writes them so
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def pack_whole(model: Any) -> bytes:
    """Return the file of a model of :func:`read_whole`, with each used buffer once, aligned."""
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


def read_tflite(path: str | os.PathLike[str], content: bytes | None = None) -> TfliteGraph:
    """Read a model file of one graph with one float32 input and one float32 output.

    `content` is that of the file, which then is not read. WeightsError for a file that is missing,
    damaged, too large, or of another form.
    """
    data = content or _read(Path(path))
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
