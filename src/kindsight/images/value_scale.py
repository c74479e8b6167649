"""Scale samples of more than 8 bits to 0-255, by a given range of values or the file's own."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import SettingsError

__all__ = ["ValueRange", "ValueScale", "as_value_range", "scale_values"]

ValueRange = tuple[float, float]
"""The value that becomes black and the one that becomes white; others are clipped."""

RULE = "must be two different finite numbers, the lower first"


def as_value_range(value: Any) -> ValueRange:
    """Return a pair of numbers as a range of values; SettingsError if it is not a range."""
    try:
        low, high = map(float, value)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise SettingsError(f"`value_range` {RULE}; got {value!r}.")
    return low, high


class ValueScale:
    """Scales the samples of one image, and records their range.

    Parameters
    ----------
    value_range : (low, high), optional
        Values that become 0 and 255; the file's own rule by default: see
        :func:`kindsight.images.read_image`.

    Attributes
    ----------
    low, high : float
        The least and the greatest finite value among samples of more than 8 bits; infinite where
        there are none.
    stated : bool
        Whether the file states its depth.
    """

    def __init__(self, value_range: ValueRange | None = None) -> None:
        self.value_range = value_range
        self.low, self.high = math.inf, -math.inf
        self.stated = False
        self._outside = self._samples = 0

    @property
    def clipped(self) -> float:
        """The fraction of samples outside of the given range, 0 to 1."""
        return self._outside / self._samples if self._samples else 0.0

    def record(self, values: NDArray[Any]) -> None:
        """Record the range of some samples."""
        finite = values if values.dtype.kind in "ui" else values[np.isfinite(values)]
        if not finite.size:
            return
        self.low, self.high = (
            min(self.low, float(finite.min())),
            max(self.high, float(finite.max())),
        )
        self._samples += finite.size
        if self.value_range is not None:
            low, high = self.value_range
            if self.low < low or self.high > high:
                self._outside += int(np.count_nonzero((finite < low) | (finite > high)))

    def apply(self, values: NDArray[Any], default: ValueRange) -> NDArray[np.uint8]:
        """Return samples as 0-255, by the given range or else `default`, and record them."""
        self.record(values)
        return scale_values(values, *(self.value_range or default))


def scale_values(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Scale numbers to 0-255: `low` becomes 0, `high` 255, others are clipped; NaN becomes 0.

    The formula is ``floor((value - low) / (high - low) * 255 + 0.5)``.
    """
    if values.dtype == np.uint16:
        scaled: NDArray[np.uint8] = _table(low, high)[values]
        return scaled
    return _scaled(values, low, high)


def _scaled(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    if not high > low:
        return np.zeros(values.shape, np.uint8)
    share = (np.clip(values.astype(np.float64), low, high) - low) / (high - low)
    return np.floor(np.nan_to_num(share, nan=0.0) * 255 + 0.5).astype(np.uint8)


@functools.lru_cache(maxsize=8)
def _table(low: float, high: float) -> NDArray[np.uint8]:
    return _scaled(np.arange(65536), low, high)
