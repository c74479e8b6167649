"""A small curve in braille characters, eight dots each."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["draw_braille"]

_BLANK = 0x2800
# Unicode's bits of a cell's dots, by [column][row from the top].
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))


def draw_braille(
    values: Sequence[float], *, length: int, width: int, height: int, low: float, high: float
) -> list[str]:
    """Draw a curve through values at equal distances.

    Parameters
    ----------
    values : sequence of float
        From the left; the curve breaks where one is not finite.
    length : int
        How many values there will be in all, so that the curve grows to the right.
    width, height : int
        Characters across and lines; a character has two dots across and four up.
    low, high : float
        The values at the bottom and at the top; what lies beyond is at the edge.

    Returns
    -------
    list of str
        `height` lines of `width` characters, the top first.
    """
    columns, rows = 2 * width, 4 * height
    cells = [[0] * width for _ in range(height)]
    before: int | None = None
    for column, value in enumerate(_resampled(values, length, columns)):
        if not math.isfinite(value):
            before = None
            continue
        share = (value - low) / (high - low) if high > low else 0.5
        level = round(min(1.0, max(0.0, share)) * (rows - 1))
        start = level if before is None else before + (level > before) - (level < before)
        # Steep parts are filled, so that the curve hangs together.
        for dot in range(min(start, level), max(start, level) + 1):
            line, row = divmod(rows - 1 - dot, 4)
            cells[line][column // 2] |= _DOTS[column % 2][row]
        before = level
    return ["".join(chr(_BLANK | cell) for cell in line) for line in cells]


def _resampled(values: Sequence[float], length: int, columns: int) -> list[float]:
    """Read the curve off at each column that it has reached, straight between two values."""
    if not values:
        return []
    scale = max(length - 1, len(values) - 1, 1) / max(columns - 1, 1)
    read = []
    for column in range(columns):
        place = column * scale
        left = math.floor(place + 1e-9)
        if left > len(values) - 1 or (left == len(values) - 1 and place > left + 1e-9):
            break
        share = place - left
        right = values[min(left + 1, len(values) - 1)]
        read.append(values[left] if share < 1e-9 else values[left] * (1 - share) + right * share)
    return read
