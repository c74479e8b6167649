"""Conversion of the arguments of Keras's ImageDataGenerator to settings of a policy."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from typing import Any

from kindsight.errors import SettingsError

__all__ = ["settings_from_keras"]

_AUGMENTING: dict[str, Any] = {
    "rotation_range": 0, "width_shift_range": 0.0, "height_shift_range": 0.0,
    "brightness_range": None, "shear_range": 0.0, "zoom_range": 0.0, "channel_shift_range": 0.0,
    "fill_mode": "nearest", "cval": 0.0, "horizontal_flip": False, "vertical_flip": False,
}  # fmt: skip
"""The arguments that change images randomly, with Keras's defaults."""

_IGNORED = {
    "rescale": "pixels stay 0-255 and are scaled in the network",
    "data_format": "images are (height, width, 3)",
    "dtype": "images are uint8",
    "validation_split": "validation images are never augmented",
    "interpolation_order": "interpolation is always bilinear, which is order 1",
}
"""Arguments that are no augmentation, with the reason why they are ignored."""

_REFUSED = (
    "featurewise_center", "featurewise_std_normalization", "samplewise_center",
    "samplewise_std_normalization", "zca_whitening", "zca_epsilon", "preprocessing_function",
)  # fmt: skip
"""Arguments that change every image in the same manner, which a policy cannot express."""


def settings_from_keras(
    arguments: dict[str, Any], size: tuple[int, int] | None = None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the settings and notes of a policy; see :meth:`kindsight.Augment.from_keras`."""
    _check_names(arguments)
    values = {**_AUGMENTING, **arguments}
    notes: list[str] = []
    faults: list[str] = []

    def convert(function: Callable[..., Any], *names: str) -> Any:
        try:
            return function(*(values[name] for name in names), notes)
        except SettingsError as error:
            faults.append(str(error))
        except (TypeError, ValueError):
            got = ", ".join(f"{name}={values[name]!r}" for name in names)
            faults.append(f"ImageDataGenerator does not accept this value: {got}.")
        return None

    heights, widths = size or (None, None)
    settings = {
        "rotation": convert(lambda angle, _: min(abs(float(angle)), 180.0), "rotation_range"),
        "shift": (
            convert(lambda v, notes: _shift("height", v, heights, notes), "height_shift_range"),
            convert(lambda v, notes: _shift("width", v, widths, notes), "width_shift_range"),
        ),
        "scale": convert(_scale, "zoom_range"),
        "shear": convert(_shear, "shear_range"),
        "brightness": convert(_brightness, "brightness_range", "channel_shift_range"),
        "fill": values["fill_mode"],
        "fill_value": convert(lambda value, _: round(value), "cval"),
        "horizontal_flip": convert(lambda value, _: bool(value), "horizontal_flip"),
        "vertical_flip": convert(lambda value, _: bool(value), "vertical_flip"),
    }
    if faults:
        raise SettingsError("\n".join(faults))
    notes += [f"{name} is ignored: {why}." for name, why in _IGNORED.items() if arguments.get(name)]
    return settings, tuple(notes)


def _check_names(arguments: dict[str, Any]) -> None:
    known = [*_AUGMENTING, *_IGNORED, *_REFUSED]
    faults = []
    for name, value in arguments.items():
        if name in _REFUSED and value and name != "zca_epsilon":
            faults.append(
                f"{name} changes every image in the same manner, which a policy cannot express. "
                "Leave it out here, and apply it to the images yourself."
            )
        elif name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            faults.append(f"ImageDataGenerator has no argument {name}.{hint}")
    if faults:
        raise SettingsError("\n".join(faults))


def _shift(side: str, value: Any, pixels: int | None, notes: list[str]) -> float:
    """Return a fraction of the side."""
    is_list = hasattr(value, "__len__")
    largest = max(abs(float(one)) for one in value) if is_list else abs(float(value))
    if is_list:
        notes.append(
            f"{side}_shift_range: shifts up to {largest:g} are sampled, not only those listed."
        )
    if largest < 1:
        return largest
    if pixels is None:
        raise SettingsError(
            f"{side}_shift_range={value!r} is in pixels, so the images' size must be known. Give "
            "size=(height, width), or a fraction below 1."
        )
    return round(largest / pixels, 4)


def _scale(zoom: Any, notes: list[str]) -> tuple[float, float]:
    """Return the factors of size; Keras's zoom is the size of the visible area."""
    low, high = (float(one) for one in zoom) if hasattr(zoom, "__len__") else (1 - zoom, 1 + zoom)
    if low == high == 1:
        return 1.0, 1.0
    if not 0 < low <= high:
        raise ValueError
    notes.append(
        f"zoom_range={zoom!r} keeps the aspect ratio; ImageDataGenerator samples the zoom of the "
        "height and of the width separately."
    )
    return round(1 / high, 4), round(1 / low, 4)


def _shear(shear: Any, notes: list[str]) -> float:
    """Return degrees."""
    value = abs(float(shear))
    if not 0 < value < 1:
        return value
    degrees = round(math.degrees(value), 1)
    notes.append(
        f"shear_range={shear!r} is interpreted as radians, {degrees:g} degrees: {shear!r} degrees "
        "would do nothing."
    )
    return degrees


def _brightness(factors: Any, shift: Any, notes: list[str]) -> tuple[float, float]:
    """Return the factors of both arguments combined."""
    low, high = (1.0, 1.0) if factors is None else (float(one) for one in factors)
    if factors is not None:
        notes.append(
            "brightness_range changes the brightness only; ImageDataGenerator also stretches the "
            "contrast."
        )
    added = abs(float(shift))
    if added:
        levels = added * 255 if added <= 1 else added
        notes.append(
            f"channel_shift_range={shift!r} is converted to brightness: up to {levels:g} levels "
            "more or less at a medium grey."
        )
        low, high = low * (1 - min(levels / 127.5, 1)), high * (1 + levels / 127.5)
    return round(low, 4), round(high, 4)
