"""Tables of a LiteRT file that are read on first use, and written unread where they are not used.

The schema's classes read and write every number of a file in Python, half a second for a backbone.
Adding a head changes few tables. The others are copied with the file's bytes: a FlatBuffer's
offsets lead forwards, so that new tables in front of a file can refer to those in it.
"""

from __future__ import annotations

import functools
from typing import Any

import flatbuffers
import numpy as np

from kindsight.models.runtime import schema

__all__ = ["ExtendingBuilder", "added_bytes", "aligned_buffer", "read_model"]

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
