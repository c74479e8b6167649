"""Settings of an augmentation policy: allowed values, short forms, conversion from Keras."""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kindsight.errors import SettingsError

__all__ = ["RULES", "Pair", "Rule", "settings_from_keras"]

Pair = tuple[float, float]

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


@dataclass(frozen=True)
class Rule:
    """The allowed values of a setting."""

    description: str  # to follow "must be"
    parse: Callable[[Any], Any]  # a value to its canonical form, or None if it is not allowed
    shorten: Callable[[Any], Any] = lambda value: value  # a canonical value to its shortest form


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


def _number_rule(low: float, high: float, unit: str = "") -> Rule:
    def parse(value: Any) -> float | None:
        number = _number(value)
        return number if number is not None and low <= number <= high else None

    return Rule(f"a number from {low:g} to {high:g}{unit}", parse, _without_point)


def _fraction_rule(high: float) -> Rule:
    """One fraction for both directions, or (of the height, of the width)."""

    def parse(value: Any) -> Pair | None:
        pair = _pair(value)
        return pair if pair and min(pair) >= 0 and max(pair) <= high else None

    def shorten(value: Pair) -> Any:
        first, second = map(_without_point, value)
        return first if first == second else (first, second)

    description = f"a fraction from 0 to {high:g}, or two: (of the height, of the width)"
    return Rule(description, parse, shorten)


def _factor_rule(low: float, high: float) -> Rule:
    """(Lowest, highest) factor, or a number x for (1 - x, 1 + x)."""

    def parse(value: Any) -> Pair | None:
        number = _number(value)
        if number is not None and number < 0:
            return None
        pair = _pair(value) if number is None else _around_one(number)
        return pair if pair and low <= pair[0] <= pair[1] <= high else None

    def shorten(value: Pair) -> Any:
        spread = round(value[1] - 1.0, 12)
        if spread >= 0 and _around_one(spread) == value:
            return _without_point(spread)
        return _without_point(value[0]), _without_point(value[1])

    description = (
        f"(lowest, highest) factor from {low:g} to {high:g}, or a number x for (1 - x, 1 + x)"
    )
    return Rule(description, parse, shorten)


def _integer_rule(low: int, high: int) -> Rule:
    def parse(value: Any) -> int | None:
        number = _number(value)
        is_allowed = number is not None and number == int(number) and low <= number <= high
        return int(number) if number is not None and is_allowed else None

    return Rule(f"an integer from {low} to {high}", parse)


def _flag_rule() -> Rule:
    return Rule(
        "true or false", lambda value: bool(value) if isinstance(value, (bool, np.bool_)) else None
    )


def _choice_rule(*words: str) -> Rule:
    return Rule(
        f"one of {', '.join(words)}",
        lambda value: value if isinstance(value, str) and value in words else None,
    )


def _colour_rule() -> Rule:
    channel = _integer_rule(0, 255)

    def parse(value: Any) -> tuple[int, ...] | None:
        values = [value] * 3 if _number(value) is not None else _sequence(value)
        channels = tuple(channel.parse(entry) for entry in values or ())
        return None if len(channels) != 3 or None in channels else channels

    return Rule(
        "an integer from 0 to 255, or three: (red, green, blue)",
        parse,
        lambda value: value[0] if len(set(value)) == 1 else value,
    )


def _number(value: Any) -> float | None:
    """Return a finite number of any type but bool as a float."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _sequence(value: Any) -> Sequence[Any] | None:
    if hasattr(value, "tolist"):
        value = value.tolist()
    return value if isinstance(value, (list, tuple)) else None


def _pair(value: Any) -> Pair | None:
    values = [value, value] if _number(value) is not None else _sequence(value)
    found = [number for number in map(_number, values or ()) if number is not None]
    return (found[0], found[1]) if len(found) == 2 == len(values or ()) else None


def _around_one(spread: float) -> Pair:
    """Return 1 - spread and 1 + spread, rounded so that 0.9 gives 0.1 and not a little less."""
    return round(1 - spread, 12), round(1 + spread, 12)


def _without_point(number: float) -> float:
    return int(number) if number == int(number) else number


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


RULES: dict[str, Rule] = {
    "rotation": _number_rule(0, 180, " degrees"),
    "shift": _fraction_rule(1),
    "scale": _factor_rule(0.1, 10),
    "aspect": _number_rule(1, 4),
    "shear": _number_rule(0, 75, " degrees"),
    "horizontal_flip": _flag_rule(),
    "vertical_flip": _flag_rule(),
    # From 0.25 on, corners could come so close to each other that the image folds over.
    "perspective": _number_rule(0, 0.2),
    "fill": _choice_rule("nearest", "reflect", "wrap", "constant"),
    "fill_value": _colour_rule(),
    "brightness": _factor_rule(0, 10),
    "contrast": _factor_rule(0, 10),
    "saturation": _factor_rule(0, 10),
    "hue": _number_rule(0, 180, " degrees"),
    "blur": _number_rule(0, 50, " pixels"),
    "noise": _number_rule(0, 128, " grey levels"),
    "jpeg_quality": _integer_rule(1, 100),
    "erasing": _number_rule(0, 0.8),
    "auto": _flag_rule(),
    "mixup": _number_rule(0, 100),
    "cutmix": _number_rule(0, 100),
}
"""The rule of each setting, in the order in which settings are shown."""
