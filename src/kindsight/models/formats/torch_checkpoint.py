"""Read tensors, and nothing else, from a PyTorch file of the older format.

Such a file (``torch.save`` before PyTorch 1.6, or with ``_use_new_zipfile_serialization=False``)
is a run of pickles: a magic number, the format's version, a few facts about the machine that
wrote it, the dictionary of tensors, the list of the storages' keys; then the storages, each as a
count of 8 bytes and the numbers themselves, little-endian. :mod:`.torch_opcodes` interprets the
pickles without being able to run anything.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import WeightsError

__all__ = [
    "GLOBALS",
    "Machine",
    "Storage",
    "Symbol",
    "Tensor",
    "call",
    "make_storage",
    "read_torch_file",
    "refusal",
    "tensor_array",
]

# SECTION: What a PyTorch state dictionary may hold: names, storages, and tensors that are views
# of them.
#
# Nothing here is taken from PyTorch or imports it: a global of the file is a :class:`Symbol`, a
# name from a short list. Every number that the file gives is checked before it is used.

MAX_DIMENSIONS = 16
MAX_ITEMS = 2**40  # also of an empty tensor, whose other dimensions NumPy must be able to count

# PyTorch's names for a flat run of numbers, with NumPy's name for one of them.
ITEM_TYPES = {
    "torch.DoubleStorage": "<f8",
    "torch.FloatStorage": "<f4",
    "torch.HalfStorage": "<f2",
    "torch.LongStorage": "<i8",
    "torch.IntStorage": "<i4",
    "torch.ShortStorage": "<i2",
    "torch.CharStorage": "<i1",
    "torch.ByteStorage": "<u1",
}
ORDERED_DICT = "collections.OrderedDict"
REBUILD_TENSOR = "torch._utils._rebuild_tensor_v2"
GLOBALS = frozenset({*ITEM_TYPES, ORDERED_DICT, REBUILD_TENSOR})


def refusal(what: str) -> WeightsError:
    """Return the error for something that has no place in a weights file."""
    return WeightsError(
        f"A weights file may hold a flat dictionary of tensors and nothing else. Received: {what}."
    )


@dataclass(frozen=True, eq=False)
class Symbol:
    """A global that the file names; it stands for nothing but its name."""

    name: str


@dataclass(frozen=True, eq=False)
class Storage:
    """A flat run of numbers, stored at the end of the file: its key, type and number of items."""

    key: str
    kind: str
    size: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """The little-endian type of one item."""
        return np.dtype(ITEM_TYPES[self.kind])

    @property
    def nbytes(self) -> int:
        """The number of bytes of all items."""
        return self.size * self.dtype.itemsize


@dataclass(frozen=True, eq=False)
class Tensor:
    """A view of a storage, known to lie within it; offset and strides count items, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """The number of bytes of the array that this becomes."""
        return math.prod(self.shape) * self.storage.dtype.itemsize


def make_storage(parts: tuple[Any, ...]) -> Storage:
    """Turn ``("storage", type, key, device, size, None)`` into a :class:`Storage`."""
    if [type(part) for part in parts] != [str, Symbol, str, str, int, type(None)]:
        raise refusal("a storage that is not described by six values of the usual types")
    word, symbol, key, _, size, _ = parts
    if word != "storage" or symbol.name not in ITEM_TYPES or size < 0:
        raise refusal(f"a storage {word!r} of type {symbol.name} with {size} items")
    return Storage(key, symbol.name, size)


def call(function: Symbol, arguments: tuple[Any, ...]) -> dict[str, Any] | Tensor:
    """Do what the file asks for, where that is an empty ordered dictionary or a tensor."""
    if function.name == ORDERED_DICT and not arguments:
        return {}
    if function.name == REBUILD_TENSOR:
        return _make_tensor(arguments)
    raise refusal(f"a call of {function.name} with {len(arguments)} arguments")


def _make_tensor(arguments: tuple[Any, ...]) -> Tensor:
    """Check ``(storage, offset, shape, strides, requires_grad, hooks)``, and the view it gives."""
    if [type(part) for part in arguments] != [Storage, int, tuple, tuple, bool, dict]:
        raise refusal("a tensor that is not described by six values of the usual types")
    storage, offset, shape, strides, _, _ = arguments
    if len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS:
        raise refusal(f"a tensor of {len(shape)} dimensions and {len(strides)} strides")
    if any(type(value) is not int or value < 0 for value in (offset, *shape, *strides)):
        raise refusal("a tensor whose offset, shape and strides are not all whole numbers >= 0")
    if math.prod(max(1, size) for size in shape) > MAX_ITEMS:
        raise refusal(f"a tensor of shape {shape}")
    if 0 not in shape:
        last = offset + sum(
            (size - 1) * stride for size, stride in zip(shape, strides, strict=True)
        )
        if last >= storage.size:
            raise refusal(
                f"a tensor of shape {shape}, strides {strides} and offset {offset}, which does "
                f"not lie within the {storage.size} items of its storage"
            )
    return Tensor(storage, offset, shape, strides)


def tensor_array(tensor: Tensor, items: NDArray[Any]) -> NDArray[Any]:
    """Make a tensor's array from the items of its storage.

    Parameters
    ----------
    tensor : Tensor
        What :func:`call` returned.
    items : array, shape (tensor.storage.size,)
        All items of its storage.

    Returns
    -------
    array of tensor.shape
        A copy in C order and in the machine's own byte order.
    """
    dtype = items.dtype.newbyteorder("=")
    if 0 in tensor.shape:
        return np.empty(tensor.shape, dtype)
    # The stride of a dimension of one item is never taken, and may be anything in the file.
    steps = tuple(
        stride * items.itemsize if size > 1 else 0
        for size, stride in zip(tensor.shape, tensor.strides, strict=True)
    )
    view: NDArray[Any] = np.ndarray(
        tensor.shape, items.dtype, items, tensor.offset * items.itemsize, steps
    )
    return np.array(view, dtype, order="C")


# SECTION: The few pickle opcodes that a PyTorch state dictionary is made of, interpreted without
# pickle.
#
# A pickle is a program for a small stack machine, and Python's own machine can be made to import
# and call anything. This one knows 29 opcodes out of 68, and what they may name or call is in
# :mod:`.torch_values`. Its work is linear in the bytes it reads. Nothing that it builds is ever
# walked through, compared or printed as a whole, so values that contain themselves, or that double
# at every step, do no harm.
#
# The opcodes are described in ``Lib/pickletools.py`` of CPython.

MAX_STEPS = 1_000_000  # opcodes in one file; EfficientNet-Lite2 takes some 15,000
MAX_STACK = 20_000  # values waiting; Python's writer empties the stack every 1,000 entries
MAX_TEXT = 1_000  # bytes in one name

PROTO, STOP = 0x80, ord(".")


class Machine:
    """Interprets the pickles of one file, one after the other.

    Parameters
    ----------
    data : memoryview
        The whole file, as unsigned bytes.
    position : int
        Where the next pickle starts; :meth:`run` moves it on.
    """

    def __init__(self, data: memoryview, position: int = 0) -> None:
        self.data = data
        self.position = position
        self.storages: dict[str, Storage] = {}  # all that were named so far, by key
        self._steps = 0
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: list[Any] = []

    def run(self) -> Any:
        """Interpret one pickle, up to its STOP.

        Returns
        -------
        object
            None, bool, int, str, Symbol, Storage or Tensor, or a tuple, a list or a dict (with
            keys of str) of these.

        Raises
        ------
        WeightsError
            For any other opcode or global, and for a pickle that is damaged or too large.
        """
        self._stack, self._marks, self._memo = [], [], []
        start = self.position
        try:
            if bytes(self.take(2)) != bytes([PROTO, 2]):
                raise refusal("something that is not a pickle of protocol 2")
            while (code := self.take(1)[0]) != STOP:
                start = self.position - 1
                self._step(code)
            result = self.pop()
            if self._stack or self._marks:
                raise refusal("a pickle that ends with values left over")
        except WeightsError as error:
            raise WeightsError(f"{error} (At byte {start:,}.)") from None
        return result

    def _step(self, code: int) -> None:
        action = ACTIONS.get(code)
        if action is None:
            raise refusal(f"the pickle opcode {REFUSED.get(code, hex(code))}")
        action(self)
        self._steps += 1
        if self._steps > MAX_STEPS or len(self._stack) + len(self._marks) > MAX_STACK:
            raise refusal(
                f"a pickle of more than {MAX_STEPS:,} opcodes, or {MAX_STACK:,} values at a time"
            )

    def take(self, count: int) -> memoryview:
        """Return the next ``count`` bytes."""
        if count > len(self.data) - self.position:
            raise WeightsError(
                "A weights file must hold all that it announces. Received: "
                f"{len(self.data):,} bytes, where {count:,} were to follow byte "
                f"{self.position:,}; the file is cut off or damaged."
            )
        self.position += count
        return self.data[self.position - count : self.position]

    def number(self, size: int, *, signed: bool = False) -> int:
        """Read a little-endian whole number of ``size`` bytes."""
        return int.from_bytes(self.take(size), "little", signed=signed)

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self._stack.append(value)

    def pop(self) -> Any:
        """Take the last value from the stack, never one under the last mark."""
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise refusal("a pickle that takes a value from an empty stack")
        return self._stack.pop()

    def pop_of(self, kind: type) -> Any:
        """Take the last value, which must be of this very type."""
        value = self.pop()
        if type(value) is not kind:
            raise refusal(f"{type(value).__name__} in the place of {kind.__name__}")
        return value

    def mark(self) -> None:
        """Remember the height of the stack, for the opcode that takes all above it."""
        self._marks.append(len(self._stack))

    def pop_to_mark(self) -> list[Any]:
        """Take all values above the last mark."""
        if not self._marks:
            raise refusal("a pickle that looks for a mark it has not set")
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def put(self, index: int) -> None:
        """Remember the last value. Writers number these from zero, without a gap."""
        self.push(value := self.pop())
        if index != len(self._memo):
            raise refusal(f"a memo entry out of order, {index}")
        self._memo.append(value)

    def get(self, index: int) -> None:
        """Put a remembered value on the stack."""
        if index >= len(self._memo):
            raise refusal(f"a memo entry that was never written, {index}")
        self.push(self._memo[index])

    def text(self) -> None:
        """Read a string: its length in bytes, then UTF-8."""
        size = self.number(4)
        if size > MAX_TEXT:
            raise refusal(f"a string of {size:,} bytes (at most {MAX_TEXT:,})")
        self.push(_decoded(bytes(self.take(size))))

    def symbol(self) -> None:
        """Read the name of a global: two lines, the module and the name in it."""
        lines = bytes(self.data[self.position : self.position + MAX_TEXT]).split(b"\n", 2)
        if len(lines) != 3:
            raise refusal("a global without a name")
        self.position += len(lines[0]) + len(lines[1]) + 2
        name = _decoded(b".".join(lines[:2]))
        if name not in GLOBALS:
            raise refusal(f"the global {name[:100]!r}")
        self.push(Symbol(name))

    def persistent(self) -> None:
        """Turn the description of a storage into that storage, the same for the same key."""
        storage = make_storage(self.pop_of(tuple))
        known = self.storages.setdefault(storage.key, storage)
        if (known.kind, known.size) != (storage.kind, storage.size):
            raise refusal(f"two different descriptions of storage {storage.key!r}")
        self.push(known)

    def reduce(self) -> None:
        """Do one of the two calls that a file may ask for."""
        arguments = self.pop_of(tuple)
        self.push(call(self.pop_of(Symbol), arguments))

    def build(self) -> None:
        """Drop the attribute ``_metadata`` that a state dictionary carries; refuse all others."""
        state = self.pop_of(dict)
        self.push(self.pop_of(dict))
        if list(state) != ["_metadata"]:
            raise refusal("the pickle opcode BUILD with more than a dictionary's _metadata")

    def set_items(self, items: list[Any]) -> None:
        """Store keys and values, which alternate, in the dictionary under them."""
        target = self.pop_of(dict)
        if len(items) % 2 or any(type(key) is not str for key in items[::2]):
            raise refusal("a dictionary whose keys are not all strings")
        target.update(zip(items[::2], items[1::2], strict=True))
        self.push(target)

    def extend(self, items: list[Any]) -> None:
        """Add values to the list under them."""
        target = self.pop_of(list)
        target.extend(items)
        self.push(target)

    def tuple_of(self, count: int) -> None:
        """Replace the last ``count`` values by a tuple of them."""
        self.push(tuple([self.pop() for _ in range(count)][::-1]))


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise refusal("a name that is not UTF-8") from None


ACTIONS: dict[int, Callable[[Machine], None]] = {
    ord("("): Machine.mark,
    ord("N"): lambda machine: machine.push(None),
    0x88: lambda machine: machine.push(True),
    0x89: lambda machine: machine.push(False),
    ord("J"): lambda machine: machine.push(machine.number(4, signed=True)),
    ord("K"): lambda machine: machine.push(machine.number(1)),
    ord("M"): lambda machine: machine.push(machine.number(2)),
    ord("X"): Machine.text,
    ord("c"): Machine.symbol,
    ord("Q"): Machine.persistent,
    ord("R"): Machine.reduce,
    ord("b"): Machine.build,
    ord(")"): lambda machine: machine.push(()),
    0x85: lambda machine: machine.tuple_of(1),
    0x86: lambda machine: machine.tuple_of(2),
    0x87: lambda machine: machine.tuple_of(3),
    ord("t"): lambda machine: machine.push(tuple(machine.pop_to_mark())),
    ord("]"): lambda machine: machine.push([]),
    ord("a"): lambda machine: machine.extend([machine.pop()]),
    ord("e"): lambda machine: machine.extend(machine.pop_to_mark()),
    ord("}"): lambda machine: machine.push({}),
    ord("s"): lambda machine: machine.set_items([machine.pop(), machine.pop()][::-1]),
    ord("u"): lambda machine: machine.set_items(machine.pop_to_mark()),
    ord("q"): lambda machine: machine.put(machine.number(1)),
    ord("r"): lambda machine: machine.put(machine.number(4)),
    ord("h"): lambda machine: machine.get(machine.number(1)),
    ord("j"): lambda machine: machine.get(machine.number(4)),
}

# Only so that a refusal can name what it refuses.
REFUSED_CODES = b"012IFLSTUVPGBCiodlgp\x80\x81\x82\x83\x84\x8a\x8b" + bytes(range(0x8C, 0x99))
REFUSED_NAMES = """POP POP_MARK DUP INT FLOAT LONG STRING BINSTRING SHORT_BINSTRING UNICODE PERSID
    BINFLOAT BINBYTES SHORT_BINBYTES INST OBJ DICT LIST GET PUT PROTO NEWOBJ EXT1 EXT2 EXT4 LONG1
    LONG4 SHORT_BINUNICODE BINUNICODE8 BINBYTES8 EMPTY_SET ADDITEMS FROZENSET NEWOBJ_EX
    STACK_GLOBAL MEMOIZE FRAME BYTEARRAY8 NEXT_BUFFER READONLY_BUFFER"""
REFUSED = dict(zip(REFUSED_CODES, REFUSED_NAMES.split(), strict=True))


MAX_FILE_BYTES = 512 * 2**20
MAX_TENSORS = 20_000
# Tensors may share numbers. How often is bounded, or a short file could fill the memory.
MAX_SHARING = 4

# The pickle (protocol 2) of PyTorch's magic number 0x1950a86a20f9469cfc6c.
MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
FORMAT_VERSION = 1001

OTHER_FORMATS = {
    b"PK\x03\x04": "a zip archive: the newer PyTorch format, or a .keras or .npz file",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUM": "a NumPy array",
    b"\x80\x02": "some other pickle",
    b"\x80\x03": "some other pickle",
    b"\x80\x04": "some other pickle",
    b"\x80\x05": "some other pickle",
    b"": "a file of some other kind",
}


def read_torch_file(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Read a dictionary of tensors that PyTorch saved in its older format.

    The file is taken to be hostile: nothing in it is executed or imported, and time and memory
    are bounded by its size.

    Parameters
    ----------
    path : str or path-like
        A file of at most 512 MiB.

    Returns
    -------
    dict of str to array
        In the file's order; each array a copy, C-contiguous and writable, in one of the types
        float64, float32, float16, int64, int32, int16, int8, uint8.

    Raises
    ------
    WeightsError
        For a file that is absent, too large, damaged, of another format, or that holds anything
        but a flat dictionary of tensors.
    """
    path = Path(path)
    try:
        return _read(memoryview(_bounded_bytes(path)))
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None


def _bounded_bytes(path: Path) -> bytes:
    """Read an ordinary file whole, unless it is too large."""
    try:
        # Asked before opening, for a named pipe would wait there for ever.
        if not stat.S_ISREG(path.stat().st_mode):
            raise WeightsError("A weights file must be an ordinary file. Received: another kind.")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_FILE_BYTES:
                raise WeightsError(
                    f"A weights file must be at most {MAX_FILE_BYTES:,} bytes long. "
                    f"Received: {size:,}."
                )
            return file.read(size)
    except OSError as error:
        raise WeightsError(
            f"A weights file must be there and readable. Received: {error.strerror or error}."
        ) from None


def _read(data: memoryview) -> dict[str, NDArray[Any]]:
    """Take the parts of the file one after the other, to its very end."""
    if bytes(data[: len(MAGIC)]) != MAGIC:
        start = bytes(data[:4])
        found = next(text for mark, text in OTHER_FORMATS.items() if start.startswith(mark))
        raise WeightsError(
            "Weights must be in PyTorch's older file format, as written by torch.save with "
            f"_use_new_zipfile_serialization=False. Received: {found}."
        )
    machine = Machine(data, len(MAGIC))
    version = machine.run()
    if type(version) is not int or version != FORMAT_VERSION:
        raise refusal(f"a format version other than {FORMAT_VERSION}")
    system = machine.run()
    if (
        type(system) is not dict
        or type(stated := system.get("protocol_version")) is not int
        or stated != FORMAT_VERSION
        or system.get("little_endian") is not True
    ):
        raise refusal("a header that does not say little-endian and the format's version")
    tensors = _checked_tensors(machine.run(), len(data))
    storages = _read_storages(machine)
    if machine.position != len(data):
        raise refusal(f"{len(data) - machine.position:,} bytes after the last storage")
    return {name: tensor_array(part, storages[part.storage.key]) for name, part in tensors.items()}


def _checked_tensors(state: Any, file_bytes: int) -> dict[str, Tensor]:
    """Check that the file's main value is a flat dictionary of tensors, of bounded size."""
    if type(state) is not dict or any(type(value) is not Tensor for value in state.values()):
        raise refusal("something that is not a flat dictionary of tensors")
    total = sum(value.nbytes for value in state.values())
    if len(state) > MAX_TENSORS or total > MAX_SHARING * file_bytes:
        raise refusal(
            f"{len(state):,} tensors of {total:,} bytes together, in a file of {file_bytes:,} "
            f"bytes (at most {MAX_TENSORS:,}, and {MAX_SHARING} times the file)"
        )
    return state


def _read_storages(machine: Machine) -> dict[str, NDArray[Any]]:
    """Read the list of keys, then each storage's numbers; all of them were named before."""
    keys = machine.run()
    expected = machine.storages
    if type(keys) is not list or any(type(key) is not str for key in keys):
        raise refusal("a list of storages that is not a list of names")
    if len(keys) != len(expected) or set(keys) != set(expected):
        raise refusal("a list of storages that does not agree with the tensors")
    storages = {}
    for key in keys:
        storage = expected[key]
        if (size := machine.number(8)) != storage.size:
            raise refusal(f"a storage of {size:,} items where {storage.size:,} were announced")
        storages[key] = np.frombuffer(machine.take(storage.nbytes), storage.dtype)
    return storages
