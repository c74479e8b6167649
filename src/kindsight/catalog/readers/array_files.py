"""Arrays in files, ``.npz`` and ``.npy``: never unpickled, and bounded before they are read."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from numpy.lib import format as npy
from numpy.typing import NDArray

from kindsight.catalog.names import shown
from kindsight.errors import CatalogError

__all__ = ["read_arrays"]

MAX_ARRAY_BYTES = 4 * 2**30
"""The most bytes of all arrays of a file, unpacked: 4 GiB."""

MAX_ARRAYS = 1000
"""The most arrays of a file."""


def read_arrays(path: str) -> dict[str, NDArray[Any]]:
    """Read the arrays of a file by their names; that of an ``.npy`` is called ``""``.

    Parameters
    ----------
    path : str
        The file.

    Raises
    ------
    CatalogError
        If it is no such file, is damaged, holds Python objects, or is too large.
    """
    where = shown(os.path.basename(path))  # noqa: PTH119
    with _told(where):
        if path.lower().endswith(".npy"):
            with Path(path).open("rb") as file:
                _check(file, os.fstat(file.fileno()).st_size, where)
                file.seek(0)
                return {"": npy.read_array(file, allow_pickle=False)}
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            total = sum(info.file_size for info in members)
            if len(members) > MAX_ARRAYS or total > MAX_ARRAY_BYTES:
                raise _too_large(where, f"{len(members):,} arrays of {total:,} bytes")
            arrays = {}
            for info in members:
                name = info.filename.removesuffix(".npy")
                with archive.open(info) as file:
                    _check(file, info.file_size, f"the array {shown(name)} in {where}")
                with archive.open(info) as file:
                    arrays[name] = npy.read_array(file, allow_pickle=False)
    return arrays


def _check(file: IO[bytes], size: int, where: str) -> None:
    """Hold an array's heading to the size of the file before anything is made of it."""
    version = npy.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = npy.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = npy.read_array_header_2_0(file)
    else:
        raise ValueError(f"version {version[0]}.{version[1]}")
    if dtype.hasobject or dtype.names:
        raise CatalogError(
            f"Arrays must hold numbers or texts. Received: {dtype} in {where}, which is not read: "
            "it could hold a program. Save the array with a plain dtype."
        )
    told = math.prod(shape) * dtype.itemsize
    if told > MAX_ARRAY_BYTES:
        raise _too_large(where, f"{told:,} bytes")
    if told != size - file.tell():
        raise ValueError(f"{where} is cut off, or has more than its heading says")


def _too_large(where: str, received: str) -> CatalogError:
    return CatalogError(
        f"Arrays in files may have {MAX_ARRAY_BYTES:,} bytes and {MAX_ARRAYS:,} names. Received: "
        f"{received} in {where}. Part the file, or write the pictures as files."
    )


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Say in our own words what is wrong with a file."""
    try:
        yield
    except CatalogError:
        raise
    except MemoryError:
        raise CatalogError(
            f"Arrays must fit into this machine's memory. Received: {where}, which does not."
        ) from None
    except OSError as error:
        raise CatalogError(
            f"Data must be a file that can be read. Received: {where} ({error.strerror})."
        ) from error
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, KeyError,
            NotImplementedError, SyntaxError, TypeError, OverflowError) as error:  # fmt: skip
        raise CatalogError(
            f"Arrays must be files as NumPy writes them, whole. Received: {where}, which is none "
            f"({shown(str(error)[:200])[1:-1]})."
        ) from error
