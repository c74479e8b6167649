"""What a PyTorch state dictionary may hold: names, storages, and tensors that are views of them.

Nothing here is taken from PyTorch or imports it: a global of the file is a :class:`Symbol`, a
name from a short list. Every number that the file gives is checked before it is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import WeightsError

__all__ = [
    "GLOBALS",
    "Storage",
    "Symbol",
    "Tensor",
    "call",
    "make_storage",
    "refusal",
    "tensor_array",
]

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
