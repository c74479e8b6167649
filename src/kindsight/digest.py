"""BLAKE2b digests (RFC 7693) of files, arrays and text: equal digests mean equal contents."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

__all__ = ["Digests", "content_digest", "file_digest"]

CHUNK_BYTES = 1 << 20


def content_digest(data: bytes | str | NDArray[Any], size: int = 16) -> str:
    """Return the digest of bytes, text or an array.

    Arrays with the same bytes but another shape or type have different digests, and an array never
    has the digest of a file.

    Parameters
    ----------
    data : bytes, str or array
        Text is encoded as UTF-8. The memory layout of an array does not matter.
    size : int, default=16
        Bytes of the digest.

    Returns
    -------
    str
        ``2 * size`` hexadecimal digits.
    """
    if isinstance(data, np.ndarray):
        digest = hashlib.blake2b(digest_size=size, person=b"kindsight array")
        digest.update(f"{data.dtype.str}{data.shape}".encode())
        digest.update(np.ascontiguousarray(data).data)
        return digest.hexdigest()
    content = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    return hashlib.blake2b(content, digest_size=size).hexdigest()


def file_digest(path: str | os.PathLike[str]) -> str:
    """Return the :func:`content_digest` of a file, which is read in chunks."""
    digest = hashlib.blake2b(digest_size=16)
    with Path(path).open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


class Digests(Sequence[str]):
    """Content digests in 16 bytes each: a sequence of their hexadecimal digits.

    An index may also be an array of row numbers, which gives the digests of these rows.

    Parameters
    ----------
    packed : array
        uint8 (n, 16); not copied.
    """

    def __init__(self, packed: NDArray[np.uint8] | None = None) -> None:
        self.packed = np.empty((0, 16), np.uint8) if packed is None else packed

    def __len__(self) -> int:
        return len(self.packed)

    @overload
    def __getitem__(self, key: int) -> str: ...
    @overload
    def __getitem__(self, key: slice | NDArray[Any]) -> Digests: ...

    def __getitem__(self, key: int | slice | NDArray[Any]) -> str | Digests:
        if isinstance(key, (slice, np.ndarray)):
            return Digests(self.packed[key])
        return bytes(self.packed[key]).hex()

    def __iter__(self) -> Iterator[str]:
        for at in range(0, len(self), 1 << 12):
            text = self.packed[at : at + (1 << 12)].tobytes().hex()
            yield from (text[k : k + 32] for k in range(0, len(text), 32))
