"""From bytes of text to numbers, many cells at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["number_of", "scaled", "texts_of", "whole_numbers"]

_ZERO = ord("0")


def whole_numbers(
    data: NDArray[np.uint8], ends: NDArray[np.int64], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """Read cells of one to three digits.

    Parameters
    ----------
    data : uint8 array
        The text.
    ends, lengths : int64 arrays
        Where each cell ends in it, and how long it is.

    Returns
    -------
    uint16 array
        The numbers.
    bool array
        Which of them are right: 0 to 255, of digits alone.
    """
    # What is no digit becomes 10 or more; what lies before a cell's start is made 0.
    units = data[ends - 1] - np.uint8(_ZERO)
    tens = (data[ends - 2] - np.uint8(_ZERO)) * (lengths > 1)
    hundreds = (data[ends - 3] - np.uint8(_ZERO)) * (lengths > 2)
    digits = np.maximum(np.maximum(units, tens), hundreds) < 10
    values = units + tens * np.uint16(10) + hundreds * np.uint16(100)
    return values, digits & (lengths >= 1) & (lengths <= 3) & (values <= 255)


def texts_of(block: bytes, ends: NDArray[np.int64], lengths: NDArray[np.int64]) -> list[str]:
    """Return the cells of a column, of which it is known where they end and how long they are."""
    pairs = zip((ends - lengths).tolist(), ends.tolist(), strict=True)
    return [block[start:end].decode("utf-8", "surrogateescape").strip() for start, end in pairs]


def number_of(text: str) -> float | None:
    """Read a number from 0 to 255; None where it is none."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number <= 255 and "_" not in text else None


def scaled(block: NDArray[Any]) -> NDArray[np.uint8]:
    """Return fractions from 0 to 1 as 0 to 255."""
    return np.asarray(np.round(block.astype(np.float64) * 255), np.uint8)
