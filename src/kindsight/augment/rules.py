"""Allowed values of the settings of an augmentation policy, and their short forms."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["RULES", "Pair", "Rule"]

Pair = tuple[float, float]


@dataclass(frozen=True)
class Rule:
    """The allowed values of a setting."""

    description: str  # to follow "must be"
    parse: Callable[[Any], Any]  # a value to its canonical form, or None if it is not allowed
    shorten: Callable[[Any], Any] = lambda value: value  # a canonical value to its shortest form


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
