"""What is drawn for each image: the same numbers from NumPy's global state, in Keras's order.

One image takes, of what is asked for: the angle, the two shifts, the shear, the two zooms, two
numbers for the flips (always), the channel shift, the brightness. Where each of them is one number
of the uniform distribution, a batch's numbers are one call to NumPy; whole numbers of pixels and
lists are drawn by ``np.random.choice`` one by one, as Keras does.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["GLOBAL", "Draws", "Ranges", "Source", "draw_many", "draw_one", "drawing"]

Source = Any
"""What is drawn from: ``numpy.random`` itself, or a ``numpy.random.RandomState``."""

GLOBAL: Source = np.random
Parameters = dict[str, Any]
Optionals = Sequence[float | None]


class Ranges(Protocol):
    """The part of a generator that is drawn from."""

    rotation_range: Any
    width_shift_range: Any
    height_shift_range: Any
    shear_range: Any
    zoom_range: Any
    horizontal_flip: Any
    vertical_flip: Any
    channel_shift_range: Any
    brightness_range: Any
    row_axis: int
    col_axis: int


class _Turn:
    """Whose turn it is to draw: the global state is one for all iterators and threads."""

    def __init__(self) -> None:
        self.lock = threading.RLock()

    def renew(self) -> None:
        """Forget who held it when the process was forked."""
        self.lock = threading.RLock()


_turn = _Turn()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_turn.renew)


def drawing() -> AbstractContextManager[bool]:
    """Return the lock that is held while a batch's numbers are drawn."""
    return _turn.lock


@dataclass(frozen=True)
class Draws:
    """What was drawn for n images.

    Parameters
    ----------
    affine : float64 array of shape (n, 6)
        Columns theta (degrees), tx, ty (pixels), shear (degrees), zx, zy (factors).
    flips : bool array of shape (n, 2)
        Columns horizontal, vertical.
    channel_shift : sequence of float or None
        n values in the pixels' units.
    brightness : sequence of float or None
        n factors.
    """

    affine: NDArray[np.float64]
    flips: NDArray[np.bool_]
    channel_shift: Optionals
    brightness: Optionals

    @classmethod
    def of(cls, every: Sequence[Parameters]) -> Draws:
        """Take them from dictionaries such as `get_random_transform` returns."""
        names = (("theta", 0), ("tx", 0), ("ty", 0), ("shear", 0), ("zx", 1), ("zy", 1))
        affine = [[float(one.get(name, neutral)) for name, neutral in names] for one in every]
        ways = ("flip_horizontal", "flip_vertical")
        flips = [[bool(one.get(way)) for way in ways] for one in every]
        return cls(
            np.array(affine, np.float64).reshape(len(every), 6),
            np.array(flips, np.bool_).reshape(len(every), 2),
            [one.get("channel_shift_intensity") for one in every],
            [one.get("brightness") for one in every],
        )

    def parameters(self, place: int) -> Parameters:
        """Return what was drawn for one image, in the form of `get_random_transform`."""
        theta, tx, ty, shear, zx, zy = self.affine[place].tolist()
        horizontal, vertical = self.flips[place].tolist()
        return {
            "theta": theta,
            "tx": tx,
            "ty": ty,
            "shear": shear,
            "zx": zx,
            "zy": zy,
            "flip_horizontal": horizontal,
            "flip_vertical": vertical,
            "channel_shift_intensity": self.channel_shift[place],
            "brightness": self.brightness[place],
        }


def draw_one(ranges: Ranges, shape: Sequence[int], source: Source = GLOBAL) -> Parameters:
    """Draw for one image of a shape, in Keras's layout of axes."""
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


def draw_many(ranges: Ranges, shape: Sequence[int], count: int, source: Source = GLOBAL) -> Draws:
    """Draw for `count` images of a shape: the same numbers as `count` times :func:`draw_one`."""
    shifts = ranges.height_shift_range, ranges.width_shift_range
    others = ranges.rotation_range, ranges.shear_range, ranges.channel_shift_range
    if not all(isinstance(value, float | int) for value in others) or not all(
        isinstance(value, float) or value == 0 for value in shifts
    ):
        return Draws.of([draw_one(ranges, shape, source) for _ in range(count)])
    return _draw_uniforms(ranges, shape, count, source)


def _draw_uniforms(ranges: Ranges, shape: Sequence[int], count: int, source: Source) -> Draws:
    low, high = ranges.zoom_range
    zooms = not (low == 1 and high == 1)
    shifts = [
        (reach, shape[axis - 1] if reach < 1 else 1)
        for reach, axis in (
            (ranges.height_shift_range, ranges.row_axis),
            (ranges.width_shift_range, ranges.col_axis),
        )
    ]
    brightness = ranges.brightness_range
    # Lowest and highest value of each number, in the order of drawing; None where none is drawn.
    spans: list[tuple[float, float] | None] = [
        _span(ranges.rotation_range),
        *(_span(reach) for reach, _ in shifts),
        _span(ranges.shear_range),
        *([(low, high)] * 2 if zooms else [None, None]),
        (0.0, 1.0),
        (0.0, 1.0),
        _span(ranges.channel_shift_range),
        None if brightness is None else (brightness[0], brightness[1]),
    ]
    drawn = [place for place, span in enumerate(spans) if span is not None]
    lowest = np.array([spans[place][0] for place in drawn], np.float64)  # type: ignore[index]
    highest = np.array([spans[place][1] for place in drawn], np.float64)  # type: ignore[index]
    neutral = np.array([0, 0, 0, 0, 1, 1, 1, 1, 0, 1], np.float64)
    values = np.tile(neutral, (count, 1))
    values[:, drawn] = lowest + (highest - lowest) * source.random_sample((count, len(drawn)))
    for column, (_, unit) in enumerate(shifts, start=1):
        values[:, column] *= unit
    flips = (values[:, 6:8] < 0.5) & [bool(ranges.horizontal_flip), bool(ranges.vertical_flip)]
    none: Optionals = [None] * count
    return Draws(
        values[:, :6],
        flips,
        values[:, 8].tolist() if spans[8] is not None else none,
        values[:, 9].tolist() if spans[9] is not None else none,
    )


def _span(reach: float) -> tuple[float, float] | None:
    return (-reach, reach) if reach else None


def _symmetric(reach: Any, source: Source) -> Any:
    return source.uniform(-reach, reach)


def _shift(reach: Any, side: int, source: Source) -> Any:
    """Draw a shift in pixels: a fraction of the side, or whole pixels, or one of a list."""
    if not reach:
        return 0
    if isinstance(reach, float):
        shift = _symmetric(reach, source)
    else:
        try:
            shift = source.choice(reach) * source.choice([-1, 1])
        except ValueError:  # neither a list nor a whole number above 0
            shift = _symmetric(reach, source)
    return shift * side if np.max(reach) < 1 else shift
