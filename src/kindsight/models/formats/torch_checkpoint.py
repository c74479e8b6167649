"""Read the tensors of a PyTorch checkpoint, in the zip or the legacy format, without PyTorch.

A pickle is a program that can import and call anything, so a file is treated as hostile.
:func:`_check_program` reads the opcodes first: only those that PyTorch writes are allowed, and
nesting, sharing and counts are bounded. Then :class:`_Unpickler`, whose ``find_class`` knows three
kinds of names, runs it. Sizes are checked against the file's.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import pickletools
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import WeightsError
from kindsight.models.formats.safetensors import open_weights

__all__ = ["read_torch_file"]

MAX_FILE_BYTES = 512 * 2**20
MAX_TENSORS = 20_000
MAX_DIMENSIONS = 16
MAX_OPCODES = 1_000_000
"""In one pickle; that of EfficientNet-Lite2 has 15,000."""

MAX_NESTING = 100
# Tensors may share a storage. Their total size, as a multiple of the file's, is bounded, or a
# small file could fill the memory. So is the number of items of an empty tensor.
MAX_SHARING = 4
MAX_ITEMS = 2**40

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
FORMAT_VERSION = 1001

# The NumPy type of one item of each kind of storage.
_ITEM_TYPES = {
    "torch.DoubleStorage": "<f8", "torch.FloatStorage": "<f4", "torch.HalfStorage": "<f2",
    "torch.LongStorage": "<i8", "torch.IntStorage": "<i4", "torch.ShortStorage": "<i2",
    "torch.CharStorage": "<i1", "torch.ByteStorage": "<u1",
}  # fmt: skip

# What PyTorch writes with pickle protocol 2. Missing on purpose: whatever creates objects without
# find_class (EXT1, EXT2, EXT4) or instances (INST, OBJ, NEWOBJ), and later protocols.
_OPCODES = {
    "PROTO", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1",
    "BINUNICODE", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "APPEND",
    "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS", "GLOBAL", "BINPERSID", "REDUCE", "BUILD",
    "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET",
}  # fmt: skip
# What malformed files make pickle, pickletools, zipfile and NumPy raise.
_DAMAGE = (
    pickle.UnpicklingError, zipfile.BadZipFile, struct.error, ArithmeticError, AttributeError,
    EOFError, LookupError, MemoryError, NotImplementedError, RuntimeError, TypeError, ValueError,
    Warning,  # of pickletools, where Python turns warnings into errors
)  # fmt: skip


def read_torch_file(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Read a state dictionary, a flat dictionary of tensors, that ``torch.save`` wrote.

    Nothing in the file is executed or imported; time and memory are bounded by its size, at most
    512 MiB. Arrays are C-contiguous, writable copies of type float64, float32, float16, int64,
    int32, int16, int8 or uint8, in the file's order. WeightsError for a file that is missing, too
    large, damaged, in another format, or holds anything but a flat dictionary of tensors.
    """
    path = Path(path)
    try:
        with open_weights(path, MAX_FILE_BYTES) as (file, size):
            data = file.read(size)
        read = _read_zip if data.startswith(b"PK\x03\x04") else _read_legacy
        return read(data)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    except _DAMAGE as error:
        reason = str(error)[:200] or type(error).__name__
        raise WeightsError(
            f"{path}: The file is damaged or is no PyTorch checkpoint: {reason}."
        ) from None


def _refusal(found: str) -> WeightsError:
    return WeightsError(
        f"A checkpoint must hold a flat dictionary of tensors and nothing else; got {found}. Save "
        "the weights with torch.save(model.state_dict(), path)."
    )


def _read_zip(data: bytes) -> dict[str, NDArray[Any]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {member.filename: member for member in archive.infolist()}
        if any(member.compress_type != zipfile.ZIP_STORED for member in members.values()):
            raise _refusal("compressed members, which PyTorch does not write")
        (program,) = (name for name in members if name.rpartition("/")[2] == "data.pkl")
        folder = program.removesuffix("data.pkl")
        if f"{folder}byteorder" in members and archive.read(f"{folder}byteorder") != b"little":
            raise _refusal("numbers that are not little-endian")
        tensors, storages = _load_tensors(io.BytesIO(archive.read(program)), len(data))
        arrays = {}
        for key, storage in storages.items():
            member = members[f"{folder}data/{key}"]
            if member.file_size != storage.nbytes:
                raise _refusal(f"a storage of {member.file_size:,} bytes, not {storage.nbytes:,}")
            arrays[key] = np.frombuffer(archive.read(member), storage.dtype)
    return {name: _to_array(tensor, arrays) for name, tensor in tensors.items()}


def _read_legacy(data: bytes) -> dict[str, NDArray[Any]]:
    file = io.BytesIO(data)
    magic, version, system = (_load(file)[0] for _ in range(3))
    if (type(magic), magic, type(version), version) != (int, MAGIC_NUMBER, int, FORMAT_VERSION):
        raise ValueError("no PyTorch magic number at the start")
    if type(system) is not dict or system.get("little_endian") is not True:
        raise _refusal("numbers that are not little-endian")
    tensors, storages = _load_tensors(file, len(data))
    keys, _ = _load(file)
    if type(keys) is not list or any(type(key) is not str for key in keys):
        raise _refusal("storages without keys")
    if sorted(keys) != sorted(storages):
        raise _refusal("other storages than the tensors need")
    arrays = {}
    for key in keys:
        storage = storages[key]
        (size,) = struct.unpack("<q", file.read(8))
        if size != storage.size:
            raise _refusal(f"a storage of {size:,} items, not {storage.size:,}")
        content = file.read(storage.nbytes)
        if len(content) < storage.nbytes:
            raise EOFError("it ends within a storage")
        arrays[key] = np.frombuffer(content, storage.dtype)
    if file.read(1):
        raise _refusal("more after the last storage")
    return {name: _to_array(tensor, arrays) for name, tensor in tensors.items()}


class _Storage(NamedTuple):
    """A flat array of numbers: its key in the file, its type and its number of items."""

    key: str
    type: str
    size: int

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(_ITEM_TYPES[self.type])

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize


class _Tensor(NamedTuple):
    """A view of a storage; offset and strides count items, not bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _load_tensors(file: BinaryIO, limit: int) -> tuple[dict[str, _Tensor], dict[str, _Storage]]:
    """Load a state dictionary, whose storages must fit into `limit` bytes, the file's size."""
    tensors, storages = _load(file)
    if not isinstance(tensors, dict) or not all(
        type(name) is str and type(tensor) is _Tensor for name, tensor in tensors.items()
    ):
        raise _refusal("something else")
    total = sum(math.prod(t.shape) * t.storage.dtype.itemsize for t in tensors.values())
    stored = sum(storage.nbytes for storage in storages.values())
    if len(tensors) > MAX_TENSORS or total > MAX_SHARING * limit or stored > limit:
        raise _refusal(f"{len(tensors):,} tensors of {total:,} bytes in a file of {limit:,} bytes")
    return dict(tensors), storages


def _to_array(tensor: _Tensor, storages: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """Copy a tensor into a new array in the machine's byte order."""
    items = storages[tensor.storage.key]
    dtype = items.dtype.newbyteorder("=")
    if 0 in tensor.shape:
        return np.empty(tensor.shape, dtype)
    # PyTorch may write any stride for a dimension of one item.
    strides = tuple(
        stride * items.itemsize if size > 1 else 0
        for size, stride in zip(tensor.shape, tensor.strides, strict=True)
    )
    # NumPy raises ValueError for a view that does not lie within the items.
    view: NDArray[Any] = np.ndarray(
        tensor.shape, items.dtype, items, tensor.offset * items.itemsize, strides
    )
    return np.array(view, dtype, order="C")


def _load(file: BinaryIO) -> tuple[Any, dict[str, _Storage]]:
    """Load the pickle that starts here; return its value and the storages that it refers to."""
    start = file.tell()
    _check_program(file)
    end = file.tell()
    file.seek(start)
    unpickler = _Unpickler(io.BytesIO(file.read(end - start)))
    return unpickler.load(), unpickler.storages


def _check_program(file: BinaryIO) -> None:
    """Read one pickle's opcodes, to its end, and refuse what could harm the unpickler."""
    # Nested tuples overflow the C stack when they are hashed; tuples that contain another one twice
    # take exponential time; large memo indices reserve memory. So nesting is bounded, only values
    # that hold no others (depth 0) may be used twice, and the memo is filled in order.
    stack: list[int] = []  # the depth of each value
    marks: list[int] = []
    memo: list[int] = []
    argument: Any
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        name = opcode.name
        if name not in _OPCODES or count >= MAX_OPCODES:
            raise _refusal(f"the pickle opcode {name}, number {count:,}")
        if name == "MARK":
            marks.append(len(stack))
        elif name in ("BINPUT", "LONG_BINPUT"):
            if argument != len(memo):
                raise _refusal("a memo that is not in order")
            memo.append(stack[-1])
        elif name in ("BINGET", "LONG_BINGET"):
            if memo[argument] > 0:
                raise _refusal("a collection that is used twice")
            stack.append(0)
        else:
            start = _first_operand(opcode, stack, marks)
            depth = 1 + max(stack[start:], default=-1)
            if depth > MAX_NESTING:
                raise _refusal(f"values nested more than {MAX_NESTING} deep")
            del stack[start:]
            if opcode.stack_after:
                # A call's result is a tensor or an empty dictionary: not hashable, or not deep.
                stack.append(0 if name in ("REDUCE", "BINPERSID") else depth)


def _first_operand(opcode: pickletools.OpcodeInfo, stack: list[int], marks: list[int]) -> int:
    """Return the stack index of the first value that an opcode takes."""
    taken = opcode.stack_before
    if pickletools.markobject in taken:
        start = marks.pop() - taken.index(pickletools.markobject)
    else:
        start = len(stack) - len(taken)
    if start < (marks[-1] if marks else 0):
        raise _refusal("a pickle that takes a value from an empty stack")
    return start


class _StateDict(dict[Any, Any]):
    """The ordered dictionary of a file. Its BUILD may set nothing but PyTorch's ``_metadata``."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        if type(state) is not dict or list(state) != ["_metadata"]:
            raise _refusal("a dictionary with attributes")


class _NewDict:
    """Stands for ``collections.OrderedDict``. Without attributes, so that BUILD cannot set any."""

    __slots__ = ()

    def __call__(self, *arguments: Any) -> _StateDict:
        if arguments:
            raise _refusal("a dictionary made from arguments")
        return _StateDict()


class _NewTensor:
    """Stands for ``torch._utils._rebuild_tensor_v2``."""

    __slots__ = ()

    def __call__(self, *arguments: Any) -> _Tensor:
        types = [type(argument) for argument in arguments]
        if types != [_Storage, int, tuple, tuple, bool, _StateDict]:
            raise _refusal("a tensor that is not described by six values of the usual types")
        storage, offset, shape, strides, _, _ = arguments
        if len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS:
            raise _refusal(f"a tensor of {len(shape)} dimensions and {len(strides)} strides")
        if any(type(value) is not int or value < 0 for value in (offset, *shape, *strides)):
            raise _refusal("a tensor whose offset, shape and strides are not all integers >= 0")
        if math.prod(max(1, size) for size in shape) > MAX_ITEMS:
            raise _refusal("a tensor of more items than fit into memory")
        last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        if 0 not in shape and last >= storage.size:
            raise _refusal("a tensor that does not lie within its storage")
        return _Tensor(storage, offset, shape, strides)


# Of the file's names, those that it may use. None of the values is a class, so that no opcode
# can make an instance, and none has attributes that could be set.
_GLOBALS: dict[str, Any] = {
    "collections.OrderedDict": _NewDict(),
    "torch._utils._rebuild_tensor_v2": _NewTensor(),
    **{name: name for name in _ITEM_TYPES},
}


class _Unpickler(pickle.Unpickler):
    """An unpickler that can make dictionaries and descriptions of tensors only."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str, /) -> Any:
        """Return what stands for a global of the file; import nothing."""
        try:
            return _GLOBALS[f"{module}.{name}"]
        except KeyError:
            raise _refusal(f"the global '{module[:50]}.{name[:50]}'") from None

    def persistent_load(self, pid: Any) -> _Storage:
        """Return the storage that ``("storage", type, key, device, size[, None])`` describes."""
        types = [type(value) for value in pid] if type(pid) is tuple else []
        if types not in ([str, str, str, str, int], [str, str, str, str, int, type(None)]):
            raise _refusal("a storage that is not described by values of the usual types")
        word, kind, key, _, size = pid[:5]
        if word != "storage" or kind not in _ITEM_TYPES or not 0 <= size <= MAX_FILE_BYTES:
            raise _refusal(f"a storage of {size:,} items")
        storage = _Storage(key, kind, size)
        if self.storages.setdefault(key, storage) != storage:
            raise _refusal("two different descriptions of one storage")
        return storage
