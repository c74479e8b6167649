"""Counter-based random numbers: they depend on their purpose, not on earlier random numbers.

Every random number is a function of (seed, purpose, epoch, index), so it is the same on any thread,
in any batch and order, and after a training was stopped and resumed. The generator is Philox4x32-10
(Salmon, Moraes, Dror & Shaw 2011, *Parallel random numbers: as easy as 1, 2, 3*, SC '11), which
maps a counter of 128 bits and a key of 64 bits to 128 random bits, without a state.
"""

from __future__ import annotations

import hashlib
import operator

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import UsageError

__all__ = ["permutation", "philox", "uniforms"]

_ROUNDS = 10
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_WORD = 1 << 32


def uniforms(
    seed: int, purpose: str, epoch: int, index: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    """Return `count` uniform random numbers for each index.

    Parameters
    ----------
    seed : int
        Any integer.
    purpose : str
        Name of the use; each purpose has independent numbers.
    epoch : int
        0 to 4,294,967,295.
    index : int64 array of shape (n,)
        Indices of the images, in any order, with repeats.
    count : int
        Numbers per index. The first numbers do not depend on it.

    Returns
    -------
    float64 array of shape (n, count)
        In [0, 1), multiples of 2**-53. Row i depends on ``index[i]`` only.

    Raises
    ------
    UsageError
        If an argument is invalid.

    Examples
    --------
    >>> import numpy as np
    >>> uniforms(0, "example", 1, np.array([7, 3]), 4).shape
    (2, 4)
    """
    words = _words("uniforms", seed, purpose, epoch, index, (_integer("count", count) + 1) // 2)
    # The 53 bits of a float64: 27 of one word above 26 of the next.
    high, low = words[..., 0::2] >> np.uint64(5), words[..., 1::2] >> np.uint64(6)
    numbers = (high * 2.0**26 + low) * 2.0**-53
    return numbers.reshape(len(words), 2 * words.shape[1])[:, :count]


def permutation(seed: int, purpose: str, epoch: int, n: int) -> NDArray[np.int64]:
    """Return the numbers from 0 to n - 1 in random order.

    Each number gets 64 random bits that depend on itself only, and the numbers are sorted by them.
    So a longer permutation is a shorter one with more numbers inserted.

    Parameters
    ----------
    seed : int
        Any integer.
    purpose : str
        Name of the use; each purpose has an independent order.
    epoch : int
        0 to 4,294,967,295.
    n : int
        Length of the permutation.

    Returns
    -------
    int64 array of shape (n,)

    Raises
    ------
    UsageError
        If an argument is invalid.
    """
    index = np.arange(_integer("n", n), dtype=np.int64)
    words = _words("permutation", seed, purpose, epoch, index, 1)[:, 0]
    keys = words[:, 0] << _HALF | words[:, 1]
    # Stable: of two equal keys (probability 2**-64), the smaller number comes first.
    return np.argsort(keys, kind="stable").astype(np.int64, copy=False)


def philox(counter: NDArray[np.uint64], key: tuple[int, int]) -> NDArray[np.uint64]:
    """Return Philox4x32-10 of counters, uint64 (..., 4), and a key, both of words below 2**32.

    The result has the shape of the counters.
    """
    a, b, c, d = (np.ascontiguousarray(counter[..., word]) for word in range(4))
    first, second = key
    for _ in range(_ROUNDS):
        left, right = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a = right >> _HALF ^ b ^ np.uint64(first)
        c = left >> _HALF ^ d ^ np.uint64(second)
        b, d = right & _LOW, left & _LOW
        first, second = (first + _KEY_STEPS[0]) % _WORD, (second + _KEY_STEPS[1]) % _WORD
    return np.stack([a, b, c, d], axis=-1)


def _words(
    kind: str, seed: int, purpose: str, epoch: int, index: NDArray[np.int64], blocks: int
) -> NDArray[np.uint64]:
    """Return (n, blocks, 4) random words of 32 bits."""
    index = np.asarray(index)
    if index.ndim != 1 or (index.dtype.kind not in "iu" and index.size):
        raise UsageError(
            f"`index` must be integers in one dimension; got a {index.dtype} array of shape "
            f"{index.shape}."
        )
    wide = index.astype(np.int64).view(np.uint64)[:, None]
    counter = np.empty((len(index), blocks, 4), np.uint64)
    counter[..., 0] = np.arange(blocks, dtype=np.uint64)
    counter[..., 1] = _integer("epoch", epoch, _WORD)
    counter[..., 2] = wide & _LOW
    counter[..., 3] = wide >> _HALF
    return philox(counter, _key(kind, seed, purpose))


def _key(kind: str, seed: int, purpose: str) -> tuple[int, int]:
    """Return the key; seeds, purposes and functions have unrelated numbers."""
    try:
        # The seed is written in digits, so that no two of these texts are equal.
        text = f"{kind}:{operator.index(seed)}:{purpose}".encode()
    except TypeError:
        raise UsageError(f"`seed` must be an integer; got {seed!r}.") from None
    digest = hashlib.blake2b(text, digest_size=8, person=b"kindsight chance").digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def _integer(name: str, value: int, below: int = 1 << 53) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if not 0 <= number < below:
        raise UsageError(f"`{name}` must be an integer from 0 to {below - 1:,}; got {value!r}.")
    return number
