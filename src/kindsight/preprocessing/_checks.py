"""Settings that cannot be, and those that lead into a trap with the pictures that are given."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import SettingsError
from kindsight.preprocessing._traps import warn_of

__all__ = [
    "augments",
    "check_generator",
    "check_pixels",
    "check_shape",
    "check_subset",
    "is_ours",
    "pair_or_none",
    "zoom_pair",
]

# What is smaller is likely meant in other units: a shear in radians, a part of the pixels' range.
_SMALL = 1


def check_generator(generator: Any) -> None:
    """Warn of settings that do other things than they say."""
    shear = generator.shear_range
    if _is_number(shear) and 0 < abs(shear) <= _SMALL:
        warn_of("shear-degrees", value=shear, degrees=float(np.rad2deg(shear)))
    low, high = generator.zoom_range
    if low != high and min(low, high) > 0:
        warn_of("zoom-stretches", value=generator.zoom_range, most=max(low, high) / min(low, high))
    width, height = generator.width_shift_range, generator.height_shift_range
    if not _same(width, height):
        warn_of("swapped-shifts", width=width, height=height)
    for name in ("width_shift_range", "height_shift_range"):
        value = getattr(generator, name)
        if isinstance(value, int) and value == 1:
            warn_of("shift-of-one", name=name)


def is_ours(generator: object) -> bool:
    """Whether a generator is one of this room's, and not Keras's or somebody else's."""
    return hasattr(generator, "_draws_alone")


def check_shape(generator: Any, height: int, width: int) -> None:
    """Warn of pictures that are not square, where that matters."""
    turns = any(_asked(generator, name) for name in ("rotation_range", "shear_range"))
    if height != width and (turns or generator.zoom_range != [1, 1]):
        warn_of("off-centre", height=height, width=width)


def check_subset(generator: Any, subset: str | None) -> None:
    """Warn of a validation part that is augmented."""
    if subset == "validation" and augments(generator):
        warn_of("augmented-validation")


def check_pixels(generator: Any, low: float, high: float) -> None:
    """Warn of ranges that are in other units than the pictures' pixels.

    Parameters
    ----------
    generator : ImageDataGenerator
    low, high : float
        The darkest and the brightest pixel of all pictures.
    """
    shift = generator.channel_shift_range
    if _is_number(shift) and 0 < abs(shift) <= _SMALL and high > 2:
        warn_of("channel-shift-small", value=shift, pixels=255 * shift)
    if _is_number(shift) and high > low and abs(shift) > high - low:
        warn_of("channel-shift-large", value=shift, low=low, high=high)
    if generator.brightness_range is not None:
        if low >= 0 and 0 < high <= 1:
            warn_of("brightness-rounds", low=low, high=high)
        if low < 0 or high > 255:
            warn_of("brightness-stretches", low=low, high=high)


def pair_or_none(brightness_range: Any) -> Any:
    """Return a range of brightness if it is one; :class:`SettingsError` otherwise."""
    if brightness_range is not None and (
        not isinstance(brightness_range, tuple | list) or len(brightness_range) != 2
    ):
        raise SettingsError(
            "brightness_range must be a pair of factors such as (0.8, 1.2). "
            f"Received: {brightness_range!r}."
        )
    return brightness_range


def zoom_pair(zoom_range: Any) -> list[Any]:
    """Return the lowest and highest zoom; :class:`SettingsError` where there are none."""
    if isinstance(zoom_range, Real):
        return [1 - zoom_range, 1 + zoom_range]
    values = list(zoom_range) if hasattr(zoom_range, "__len__") else []
    if len(values) != 2 or not all(isinstance(value, Real) for value in values):
        raise SettingsError(
            "zoom_range must be a number such as 0.2, or a pair of factors such as (0.8, 1.2). "
            f"Received: {zoom_range!r}."
        )
    return values


def augments(generator: Any) -> bool:
    """Whether a generator changes pictures at random."""
    names = (
        "rotation_range",
        "width_shift_range",
        "height_shift_range",
        "shear_range",
        "channel_shift_range",
        "horizontal_flip",
        "vertical_flip",
    )
    asked = any(_asked(generator, name) for name in names)
    return asked or generator.brightness_range is not None or generator.zoom_range != [1, 1]


def _asked(generator: Any, name: str) -> bool:
    value: NDArray[Any] = np.asarray(getattr(generator, name))
    return bool(np.any(value != 0))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _same(first: float | Sequence[float], second: float | Sequence[float]) -> bool:
    return np.array_equal(np.asarray(first), np.asarray(second))
