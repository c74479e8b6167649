"""Random parameters of the transformations: the same draws as Keras, in the same order.

For one image, the following are drawn from NumPy's global state if they are set: the angle, two
shifts, the shear, two zooms, two numbers for the flips (always), the channel shift, the brightness.
If each of them is a single uniform number, the numbers of a batch are drawn in one call. Whole
pixels and lists are drawn one by one with ``np.random.choice``, as in Keras.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Source = Any
"""The random generator: the module ``numpy.random``, or a ``numpy.random.RandomState``."""

GLOBAL: Source = np.random
Parameters = dict[str, Any]
Optionals = Sequence[float | None]


class _Lock:
    """The lock around NumPy's global state, which all iterators and threads share."""

    def __init__(self) -> None:
        self.lock = threading.RLock()

    def renew(self) -> None:
        """Replace the lock in a forked process, where no thread would release it."""
        self.lock = threading.RLock()


_lock = _Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_lock.renew)


def draw_lock() -> AbstractContextManager[bool]:
    """Return the lock that must be held while the parameters of a batch are drawn."""
    return _lock.lock


@dataclass(frozen=True)
class BatchParameters:
    """Parameters of the transformations of n images.

    `affine` has the columns theta (degrees), tx, ty (pixels), shear (degrees), zx, zy (factors);
    `flips` has the columns horizontal, vertical; `channel_shift` is in the units of the pixels.
    """

    affine: NDArray[np.float64]
    flips: NDArray[np.bool_]
    channel_shift: Optionals
    brightness: Optionals

    @classmethod
    def of(cls, images: Sequence[Parameters]) -> BatchParameters:
        """Create from one dictionary for each image, as `get_random_transform` returns it."""
        names = (("theta", 0), ("tx", 0), ("ty", 0), ("shear", 0), ("zx", 1), ("zy", 1))
        affine = [[float(one.get(name, neutral)) for name, neutral in names] for one in images]
        names_of_flips = ("flip_horizontal", "flip_vertical")
        flips = [[bool(one.get(name)) for name in names_of_flips] for one in images]
        return cls(
            np.array(affine, np.float64).reshape(len(images), 6),
            np.array(flips, np.bool_).reshape(len(images), 2),
            [one.get("channel_shift_intensity") for one in images],
            [one.get("brightness") for one in images],
        )

    def parameters(self, index: int) -> Parameters:
        """Return the parameters of one image as `get_random_transform` returns them."""
        theta, tx, ty, shear, zx, zy = self.affine[index].tolist()
        horizontal, vertical = self.flips[index].tolist()
        return {
            "theta": theta, "tx": tx, "ty": ty, "shear": shear, "zx": zx, "zy": zy,
            "flip_horizontal": horizontal, "flip_vertical": vertical,
            "channel_shift_intensity": self.channel_shift[index],
            "brightness": self.brightness[index],
        }  # fmt: skip


def draw_one(ranges: Any, shape: Sequence[int], source: Source = GLOBAL) -> Parameters:
    """Draw the parameters of one image; `shape` is in the data format of the generator."""
    height, width = shape[ranges.row_axis - 1], shape[ranges.col_axis - 1]
    theta = _symmetric(ranges.rotation_range, source) if ranges.rotation_range else 0
    tx = _shift(ranges.height_shift_range, height, source)
    ty = _shift(ranges.width_shift_range, width, source)
    shear = _symmetric(ranges.shear_range, source) if ranges.shear_range else 0
    low, high = ranges.zoom_range
    zx, zy = (1, 1) if low == 1 and high == 1 else source.uniform(low, high, 2)
    return {
        "theta": theta,
        "tx": tx,
        "ty": ty,
        "shear": shear,
        "zx": zx,
        "zy": zy,
        "flip_horizontal": (source.random() < 0.5) * ranges.horizontal_flip,
        "flip_vertical": (source.random() < 0.5) * ranges.vertical_flip,
        "channel_shift_intensity": (
            _symmetric(ranges.channel_shift_range, source)
            if ranges.channel_shift_range != 0
            else None
        ),
        "brightness": (
            None if ranges.brightness_range is None else source.uniform(*ranges.brightness_range)
        ),
    }


def draw_many(
    ranges: Any, shape: Sequence[int], count: int, source: Source = GLOBAL
) -> BatchParameters:
    """Draw the parameters of `count` images: the same numbers as `count` calls of `draw_one`."""
    shifts = ranges.height_shift_range, ranges.width_shift_range
    others = ranges.rotation_range, ranges.shear_range, ranges.channel_shift_range
    if not all(isinstance(value, float | int) for value in others) or not all(
        isinstance(value, float) or value == 0 for value in shifts
    ):
        return BatchParameters.of([draw_one(ranges, shape, source) for _ in range(count)])
    return _draw_uniforms(ranges, shape, count, source)


def _draw_uniforms(
    ranges: Any, shape: Sequence[int], count: int, source: Source
) -> BatchParameters:
    low, high = ranges.zoom_range
    zooms = not (low == 1 and high == 1)
    shifts = [
        (limit, shape[axis - 1] if limit < 1 else 1)
        for limit, axis in (
            (ranges.height_shift_range, ranges.row_axis),
            (ranges.width_shift_range, ranges.col_axis),
        )
    ]
    brightness = ranges.brightness_range
    # Lowest and highest value of each parameter in the order of the draws; None if not drawn.
    spans: list[tuple[float, float] | None] = [
        _span(ranges.rotation_range), *(_span(limit) for limit, _ in shifts),
        _span(ranges.shear_range), *([(low, high)] * 2 if zooms else [None, None]), (0.0, 1.0),
        (0.0, 1.0), _span(ranges.channel_shift_range),
        None if brightness is None else (brightness[0], brightness[1]),
    ]  # fmt: skip
    drawn = [index for index, span in enumerate(spans) if span is not None]
    lowest = np.array([spans[index][0] for index in drawn], np.float64)  # type: ignore[index]
    highest = np.array([spans[index][1] for index in drawn], np.float64)  # type: ignore[index]
    neutral = np.array([0, 0, 0, 0, 1, 1, 1, 1, 0, 1], np.float64)
    values = np.tile(neutral, (count, 1))
    values[:, drawn] = lowest + (highest - lowest) * source.random_sample((count, len(drawn)))
    for column, (_, unit) in enumerate(shifts, start=1):
        values[:, column] *= unit
    flips = (values[:, 6:8] < 0.5) & [bool(ranges.horizontal_flip), bool(ranges.vertical_flip)]
    none: Optionals = [None] * count
    return BatchParameters(
        values[:, :6],
        flips,
        values[:, 8].tolist() if spans[8] is not None else none,
        values[:, 9].tolist() if spans[9] is not None else none,
    )


def _span(limit: float) -> tuple[float, float] | None:
    return (-limit, limit) if limit else None


def _symmetric(limit: Any, source: Source) -> Any:
    return source.uniform(-limit, limit)


def _shift(limit: Any, side: int, source: Source) -> Any:
    """Draw a shift in pixels from a fraction of the side, a number of pixels or a list."""
    if not limit:
        return 0
    if isinstance(limit, float):
        shift = _symmetric(limit, source)
    else:
        try:
            shift = source.choice(limit) * source.choice([-1, 1])
        except ValueError:  # neither a list nor a whole number above 0
            shift = _symmetric(limit, source)
    return shift * side if np.max(limit) < 1 else shift
