"""Open a weights file that is not trusted, and read the tensors of a safetensors file.

The format: the header's size in 8 bytes, the header in JSON (names, types, shapes and offsets of
the tensors), then their numbers. Nothing in it can be executed, but the file may be hostile: the
header's size and the number of tensors are bounded, and before an array is made, every tensor's
type, shape and offsets are checked, against each other and against the file's size.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import WeightsError

__all__ = ["open_weights", "read_safetensors"]


@contextmanager
def open_weights(path: Path, max_bytes: int) -> Iterator[tuple[BinaryIO, int]]:
    """Yield the open file and its size in bytes.

    WeightsError for a file that is missing, not an ordinary file, or larger than `max_bytes`.
    """
    try:
        # Checked before opening: opening a named pipe would wait for ever.
        if not stat.S_ISREG(path.stat().st_mode):
            raise WeightsError("A weights file must be an ordinary file.")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > max_bytes:
                raise WeightsError(
                    f"A weights file may have at most {max_bytes:,} bytes; got {size:,}."
                )
            yield file, size
    except OSError as error:
        raise WeightsError(f"The file cannot be read: {error.strerror or error}.") from None


MAX_FILE_BYTES = 512 * 2**20
MAX_HEADER_BYTES = 8 * 2**20
"""The header of a network with 1,000 tensors has 0.1 MB."""

MAX_TENSORS = 20_000
MAX_DIMENSIONS = 16
# The NumPy type of each type of the format; bfloat16 is read as the upper half of a float32.
_BF16 = "BF16"
_ITEM_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", _BF16: "<u2", "I64": "<i8", "I32": "<i4",
    "I16": "<i2", "I8": "<i1", "U8": "<u1", "BOOL": "?",
}  # fmt: skip
METADATA = "__metadata__"


class _Tensor(NamedTuple):
    """A tensor of the header; offsets are bytes from the end of the header on."""

    name: str
    type: str
    shape: tuple[int, ...]
    start: int
    stop: int


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Read the tensors of a safetensors file.

    Time and memory are bounded by the file's size, at most 512 MiB. Arrays are C-contiguous,
    writable copies of type float64, float32, float16, int64, int32, int16, int8, uint8 or bool, in
    the order of the file's numbers; bfloat16 becomes float32. The metadata is ignored. WeightsError
    for a file that is missing, too large, damaged, in another format, or has tensors of another
    type.
    """
    path = Path(path)
    try:
        with open_weights(path, MAX_FILE_BYTES) as (file, size):
            tensors = _read_header(file, size)
            return {tensor.name: _read_array(file, tensor) for tensor in tensors}
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None


def _damaged(reason: str) -> WeightsError:
    return WeightsError(
        f"The file is damaged or is no safetensors file: {reason}. Download it again, or save the "
        "weights with safetensors.torch.save_file(model.state_dict(), path)."
    )


def _read_header(file: BinaryIO, size: int) -> list[_Tensor]:
    """Return the tensors of the header, in the order of their numbers, which `file` is at then."""
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise _damaged(f"a header of {length:,} bytes in a file of {size:,}")
    if length > MAX_HEADER_BYTES:
        raise _damaged(f"a header of {length:,} bytes, more than {MAX_HEADER_BYTES:,}")
    header = file.read(length)
    if len(header) < length:
        raise _damaged("it ends within the header")
    try:
        values = json.loads(header.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _damaged(f"its header is not JSON ({str(error)[:100]})") from None
    if type(values) is not dict:
        raise _damaged("its header is no JSON object")
    values.pop(METADATA, None)
    if len(values) > MAX_TENSORS:
        raise _damaged(f"{len(values):,} tensors, more than {MAX_TENSORS:,}")
    tensors = [_tensor(name, facts) for name, facts in values.items()]
    tensors.sort(key=lambda tensor: (tensor.start, tensor.stop))
    # As the format demands, the tensors follow one another without gaps and overlaps.
    expected = 0
    for tensor in tensors:
        if tensor.start != expected:
            raise _damaged(
                f"the tensor {_shown(tensor.name)} begins at byte {tensor.start:,}, not at "
                f"{expected:,}, where the one before it ends"
            )
        expected = tensor.stop
    if expected != size - 8 - length:
        raise _damaged(f"{size - 8 - length:,} bytes of numbers, not {expected:,}")
    return tensors


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a dict; ValueError for a name that occurs twice."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a name occurs twice")
    return values


def _tensor(name: str, facts: Any) -> _Tensor:
    """Return a tensor of the header, whose type, shape and offsets fit together."""
    if type(facts) is not dict or set(facts) != {"dtype", "shape", "data_offsets"}:
        raise _damaged(f"the tensor {_shown(name)} is not described by dtype, shape, data_offsets")
    kind, shape, offsets = facts["dtype"], facts["shape"], facts["data_offsets"]
    # The items of an empty tensor are bounded, too: NumPy multiplies its other sides.
    if (
        not _is_sizes(shape)
        or len(shape) > MAX_DIMENSIONS
        or math.prod(max(1, side) for side in shape) > MAX_FILE_BYTES
    ):
        raise _damaged(f"the tensor {_shown(name)} has the shape {_shown(shape)}")
    if not _is_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _damaged(f"the tensor {_shown(name)} has the offsets {_shown(offsets)}")
    if type(kind) is not str or kind not in _ITEM_TYPES:
        raise WeightsError(
            f"The tensor {_shown(name)} is of type {_shown(kind)}; types that can be read are "
            f"{', '.join(_ITEM_TYPES)}. Save the weights as float32."
        )
    if math.prod(shape) * np.dtype(_ITEM_TYPES[kind]).itemsize != offsets[1] - offsets[0]:
        raise _damaged(
            f"the tensor {_shown(name)}, {kind} of shape {_shown(shape)}, has "
            f"{offsets[1] - offsets[0]:,} bytes"
        )
    return _Tensor(name, kind, tuple(shape), *offsets)


def _is_sizes(values: Any) -> bool:
    """Whether a JSON value is a list of whole numbers from 0 to the largest file's size."""
    return type(values) is list and all(
        type(value) is int and 0 <= value <= MAX_FILE_BYTES for value in values
    )


def _shown(value: Any) -> str:
    return repr(value)[:80]


def _read_array(file: BinaryIO, tensor: _Tensor) -> NDArray[Any]:
    """Read the next tensor's numbers into a new array in the machine's byte order."""
    array: NDArray[Any] = np.empty(tensor.shape, _ITEM_TYPES[tensor.type])
    if array.size:
        content = array.reshape(-1).view(np.uint8)
        if file.readinto(content) != len(content):  # type: ignore[attr-defined]
            raise _damaged("it ends within a tensor")
    if tensor.type == _BF16:
        wide: NDArray[Any] = array.astype(np.uint32) << 16
        return wide.view(np.float32)
    if tensor.type == "BOOL":  # any other byte than 0 and 1 is not a valid bool
        return np.asarray(array.view(np.uint8) != 0)
    return array.astype(array.dtype.newbyteorder("="), copy=False)
