"""What each setting of a policy may be, and how it is written down."""

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
    """What a setting may be."""

    @property
    def says(self) -> str:
        """The rule in words, to follow "must be"."""

    def read(self, value: Any) -> Any:
        """Return the value in the one form that is kept, or None if it cannot be."""

    def short(self, kept: Any) -> Any:
        """Return the shortest value that `read` would make `kept` of."""


@dataclass(frozen=True)
class Number:
    """A number from `low` to `high`."""

    low: float
    high: float
    unit: str = ""

    @property
    def says(self) -> str:
        """The rule in words."""
        return f"a number from {self.low:g} to {self.high:g}{self.unit}"

    def read(self, value: Any) -> float | None:
        """Return a float."""
        number = _number(value)
        return number if number is not None and self.low <= number <= self.high else None

    def short(self, kept: float) -> float:
        """Return a whole number without its point."""
        return _plain(kept)


@dataclass(frozen=True)
class Shares:
    """One share for both directions, or one of the height and one of the width."""

    high: float

    @property
    def says(self) -> str:
        """The rule in words."""
        return f"a share from 0 to {self.high:g}, or two: (of the height, of the width)"

    def read(self, value: Any) -> Pair | None:
        """Return (of the height, of the width)."""
        pair = _pair(value)
        return pair if pair and min(pair) >= 0 and max(pair) <= self.high else None

    def short(self, kept: Pair) -> Any:
        """Return one share where the two are equal."""
        first, second = map(_plain, kept)
        return first if first == second else (first, second)


@dataclass(frozen=True)
class Factors:
    """The lowest and the highest factor, or a number x for 1 - x to 1 + x."""

    low: float
    high: float

    @property
    def says(self) -> str:
        """The rule in words."""
        return (
            f"(lowest, highest) factor from {self.low:g} to {self.high:g}, or a number x that "
            "stands for 1 - x to 1 + x"
        )

    def read(self, value: Any) -> Pair | None:
        """Return (lowest, highest)."""
        number = _number(value)
        if number is not None and number < 0:
            return None
        pair = _pair(value) if number is None else _around(number)
        return pair if pair and self.low <= pair[0] <= pair[1] <= self.high else None

    def short(self, kept: Pair) -> Any:
        """Return x where the factors are 1 - x and 1 + x."""
        spread = round(kept[1] - 1.0, 12)
        if spread >= 0 and _around(spread) == kept:
            return _plain(spread)
        return _plain(kept[0]), _plain(kept[1])


@dataclass(frozen=True)
class Whole:
    """A whole number from `low` to `high`."""

    low: int
    high: int

    @property
    def says(self) -> str:
        """The rule in words."""
        return f"a whole number from {self.low} to {self.high}"

    def read(self, value: Any) -> int | None:
        """Return an int."""
        number = _number(value)
        if number is None or number != int(number) or not self.low <= number <= self.high:
            return None
        return int(number)

    def short(self, kept: int) -> int:
        """Return it as it is."""
        return kept


@dataclass(frozen=True)
class Flag:
    """True or false."""

    says: str = "true or false"

    def read(self, value: Any) -> bool | None:
        """Return a bool."""
        return bool(value) if isinstance(value, (bool, np.bool_)) else None

    def short(self, kept: bool) -> bool:
        """Return it as it is."""
        return kept


@dataclass(frozen=True)
class Choice:
    """One of some words."""

    words: tuple[str, ...]

    @property
    def says(self) -> str:
        """The rule in words."""
        return f"one of {', '.join(self.words)}"

    def read(self, value: Any) -> str | None:
        """Return the word."""
        return value if isinstance(value, str) and value in self.words else None

    def short(self, kept: str) -> str:
        """Return it as it is."""
        return kept


@dataclass(frozen=True)
class Colour:
    """A grey, or red, green and blue."""

    says: str = "a whole number from 0 to 255, or three: (red, green, blue)"

    def read(self, value: Any) -> tuple[int, int, int] | None:
        """Return (red, green, blue)."""
        values = [value] * 3 if _number(value) is not None else _listed(value)
        parts = [Whole(0, 255).read(part) for part in values or ()]
        if len(parts) != 3 or None in parts:
            return None
        return tuple(parts)  # type: ignore[return-value]

    def short(self, kept: tuple[int, int, int]) -> Any:
        """Return one number for a grey."""
        return kept[0] if len(set(kept)) == 1 else kept


RULES: dict[str, Rule] = {
    "rotation": Number(0, 180, " degrees"),
    "shift": Shares(1),
    "scale": Factors(0.1, 10),
    "aspect": Number(1, 4),
    "shear": Number(0, 75, " degrees"),
    "horizontal_flip": Flag(),
    "vertical_flip": Flag(),
    # From 0.25 on, the corners could come so near to each other that the picture folds over.
    "perspective": Number(0, 0.2),
    "fill": Choice(("nearest", "reflect", "wrap", "constant")),
    "fill_value": Colour(),
    "brightness": Factors(0, 10),
    "contrast": Factors(0, 10),
    "saturation": Factors(0, 10),
    "hue": Number(0, 180, " degrees"),
    "blur": Number(0, 50, " pixels"),
    "noise": Number(0, 128, " grey levels"),
    "jpeg_quality": Whole(1, 100),
    "erasing": Number(0, 0.8),
    "auto": Flag(),
    "mixup": Number(0, 100),
    "cutmix": Number(0, 100),
}
"""The rule of each setting, in the order in which they are shown."""


def _number(value: Any) -> float | None:
    """Return a finite number of any kind but bool as a float."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _listed(value: Any) -> Sequence[Any] | None:
    """Return a list, a tuple or an array of few numbers as a sequence."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    return value if isinstance(value, (list, tuple)) else None


def _pair(value: Any) -> Pair | None:
    values = [value, value] if _number(value) is not None else _listed(value)
    parts = [number for number in map(_number, values or ()) if number is not None]
    return (parts[0], parts[1]) if len(parts) == 2 == len(values or ()) else None


def _around(spread: float) -> Pair:
    """Return 1 - spread and 1 + spread, rounded so that 0.9 makes 0.1 and not a little less."""
    return round(1 - spread, 12), round(1 + spread, 12)


def _plain(number: float) -> float:
    return int(number) if number == int(number) else number
