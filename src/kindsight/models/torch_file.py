"""Read tensors, and nothing else, from a PyTorch file of the older format.

Such a file (``torch.save`` before PyTorch 1.6, or with ``_use_new_zipfile_serialization=False``)
is a run of pickles: a magic number, the format's version, a few facts about the machine that
wrote it, the dictionary of tensors, the list of the storages' keys; then the storages, each as a
count of 8 bytes and the numbers themselves, little-endian. :mod:`.torch_opcodes` interprets the
pickles without being able to run anything.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import WeightsError
from kindsight.models.torch_opcodes import Machine
from kindsight.models.torch_values import Tensor, refusal, tensor_array

__all__ = ["read_torch_file"]

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
