"""Allowed values of the settings of an augmentation policy, and their short forms."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

__all__ = ["RULES", "Pair", "Rule"]

Pair = tuple[float, float]


class Rule(Protocol):
    """The allowed values of a setting."""

    @property
    def description(self) -> str:
        """The rule in words, to follow "must be"."""

    def parse(self, value: Any) -> Any:
        """Return the value in its canonical form, or None if it is not allowed."""

    def shorten(self, value: Any) -> Any:
        """Return the shortest value that `parse` turns into a canonical value."""


@dataclass(frozen=True)
class Number:
    """A number from `low` to `high`, as a float."""

    low: float
    high: float
    unit: str = ""

    @property
    def description(self) -> str:
        return f"a number from {self.low:g} to {self.high:g}{self.unit}"

    def parse(self, value: Any) -> float | None:
        number = _number(value)
        return number if number is not None and self.low <= number <= self.high else None

    def shorten(self, value: float) -> float:
        return _without_point(value)


@dataclass(frozen=True)
class Fractions:
    """One fraction for both directions, or (of the height, of the width)."""

    high: float

    @property
    def description(self) -> str:
        return f"a fraction from 0 to {self.high:g}, or two: (of the height, of the width)"

    def parse(self, value: Any) -> Pair | None:
        pair = _pair(value)
        return pair if pair and min(pair) >= 0 and max(pair) <= self.high else None

    def shorten(self, value: Pair) -> Any:
        first, second = map(_without_point, value)
        return first if first == second else (first, second)


@dataclass(frozen=True)
class Factors:
    """(Lowest, highest) factor, or a number x for (1 - x, 1 + x)."""

    low: float
    high: float

    @property
    def description(self) -> str:
        return (
            f"(lowest, highest) factor from {self.low:g} to {self.high:g}, or a number x for "
            "(1 - x, 1 + x)"
        )

    def parse(self, value: Any) -> Pair | None:
        number = _number(value)
        if number is not None and number < 0:
            return None
        pair = _pair(value) if number is None else _around_one(number)
        return pair if pair and self.low <= pair[0] <= pair[1] <= self.high else None

    def shorten(self, value: Pair) -> Any:
        spread = round(value[1] - 1.0, 12)
        if spread >= 0 and _around_one(spread) == value:
            return _without_point(spread)
        return _without_point(value[0]), _without_point(value[1])


@dataclass(frozen=True)
class Integer:
    """An integer from `low` to `high`."""

    low: int
    high: int

    @property
    def description(self) -> str:
        return f"an integer from {self.low} to {self.high}"

    def parse(self, value: Any) -> int | None:
        number = _number(value)
        if number is None or number != int(number) or not self.low <= number <= self.high:
            return None
        return int(number)

    def shorten(self, value: int) -> int:
        return value


@dataclass(frozen=True)
class Flag:
    """True or false."""

    description: str = "true or false"

    def parse(self, value: Any) -> bool | None:
        return bool(value) if isinstance(value, (bool, np.bool_)) else None

    def shorten(self, value: bool) -> bool:
        return value


@dataclass(frozen=True)
class Choice:
    """One of some words."""

    words: tuple[str, ...]

    @property
    def description(self) -> str:
        return f"one of {', '.join(self.words)}"

    def parse(self, value: Any) -> str | None:
        return value if isinstance(value, str) and value in self.words else None

    def shorten(self, value: str) -> str:
        return value


@dataclass(frozen=True)
class Colour:
    """(Red, green, blue), or one number for a grey."""

    description: str = "an integer from 0 to 255, or three: (red, green, blue)"

    def parse(self, value: Any) -> tuple[int, int, int] | None:
        values = [value] * 3 if _number(value) is not None else _sequence(value)
        channels = [Integer(0, 255).parse(channel) for channel in values or ()]
        if len(channels) != 3 or None in channels:
            return None
        return tuple(channels)  # type: ignore[return-value]

    def shorten(self, value: tuple[int, int, int]) -> Any:
        return value[0] if len(set(value)) == 1 else value


RULES: dict[str, Rule] = {
    "rotation": Number(0, 180, " degrees"),
    "shift": Fractions(1),
    "scale": Factors(0.1, 10),
    "aspect": Number(1, 4),
    "shear": Number(0, 75, " degrees"),
    "horizontal_flip": Flag(),
    "vertical_flip": Flag(),
    # From 0.25 on, corners could come so close to each other that the image folds over.
    "perspective": Number(0, 0.2),
    "fill": Choice(("nearest", "reflect", "wrap", "constant")),
    "fill_value": Colour(),
    "brightness": Factors(0, 10),
    "contrast": Factors(0, 10),
    "saturation": Factors(0, 10),
    "hue": Number(0, 180, " degrees"),
    "blur": Number(0, 50, " pixels"),
    "noise": Number(0, 128, " grey levels"),
    "jpeg_quality": Integer(1, 100),
    "erasing": Number(0, 0.8),
    "auto": Flag(),
    "mixup": Number(0, 100),
    "cutmix": Number(0, 100),
}
"""The rule of each setting, in the order in which settings are shown."""


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
