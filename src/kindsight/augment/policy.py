"""The augmentation policy: what may be done to an image, as a small frozen value."""

from __future__ import annotations

import difflib
import math
import numbers
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kindsight.errors import SettingsError
from kindsight.files import read_toml, write_text

__all__ = [
    "RULES",
    "Augment",
    "Pair",
    "Rule",
    "parse_augment",
]

# SECTION: What each setting of a policy may be, and how it is written down.

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
    # From 0.25 on, the corners could come so near to each other that the image folds over.
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


@dataclass(frozen=True, kw_only=True, repr=False)
class Augment:
    """What is done to an image each time that it is seen in training.

    Without arguments, nothing. Everything is drawn anew for each image and epoch, evenly within
    the bounds given here. Geometry is one warp, bilinear, in the order flip, scale and aspect,
    shear, rotation, shift, perspective; colour comes after it, and then blur, noise, JPEG and
    erasing, each of which falls on half of the images. What may be given as one number or two is
    kept as two.

    Parameters
    ----------
    rotation : float
        Degrees, 0 to 180: turned by as much as this, either way.
    shift : float or (float, float)
        Shares, 0 to 1, of the height and of the width: moved by as much as this, either way.
    scale : float or (float, float)
        The least and the greatest factor of size, 0.1 to 10; below 1 things become smaller.
        Doubling is as likely as halving where both are within bounds. The number 0.2 stands for
        (0.8, 1.2). Proportions are kept.
    aspect : float
        1 to 4: made wider or taller by up to this factor, at the same area.
    shear : float
        Degrees, 0 to 75: what stood upright leans by as much as this, either way.
    horizontal_flip : bool
        Whether half of the images are mirrored left to right.
    vertical_flip : bool
        Whether half of the images are mirrored top to bottom.
    perspective : float
        0 to 0.2: each corner moved by up to this share of the sides.
    fill : {"nearest", "reflect", "wrap", "constant"}
        What is seen beyond the image's edge: its last pixel, its mirror image, the image
        again, or the colour `fill_value`.
    fill_value : int or (int, int, int)
        Grey, or red, green and blue, 0-255.
    brightness : float or (float, float)
        The least and the greatest factor of all pixels, 0 to 10. The number 0.2 stands for
        (0.8, 1.2), here and below.
    contrast : float or (float, float)
        Factors, 0 to 10, of each pixel's distance from the image's mean grey.
    saturation : float or (float, float)
        Factors, 0 to 10, of each pixel's distance from the grey that is as bright.
    hue : float
        Degrees, 0 to 180, on the circle of colours, either way; greys stay as they are.
    blur : float
        Pixels, 0 to 50: the greatest standard deviation of a Gaussian blur.
    noise : float
        Grey levels, 0 to 128: the greatest standard deviation of Gaussian noise, independent in
        each pixel and channel.
    jpeg_quality : int
        1 to 100: the lowest quality at which the image is compressed; 100 for never.
    erasing : float
        0 to 0.8: the greatest share of the area that a rectangle of one colour covers (random
        erasing: Zhong et al. 2020, AAAI).
    auto : bool
        One more operation an image, drawn out of 13 and none, at a strength that is drawn, too
        (in the manner of TrivialAugment: Müller & Hutter 2021, ICCV).
    mixup : float
        0 to 100: the parameter of the Beta distribution of the shares in which images of a batch
        are laid over one another (Zhang et al. 2018, ICLR); 0 for not at all.
    cutmix : float
        0 to 100: the same for rectangles of one image that are put into another (Yun et al.
        2019, ICCV). Where both are given, each batch is mixed in one of the two ways.
    notes : tuple of str
        What :meth:`from_keras` has to say. No part of the policy: not compared, not written.

    Raises
    ------
    SettingsError
        Naming every setting that cannot be.

    Examples
    --------
    >>> Augment(rotation=15, scale=(0.8, 1.25), horizontal_flip=True)
    Augment(rotation=15, scale=(0.8, 1.25), horizontal_flip=True)
    >>> print(Augment.recipe("classic"))
    rotation ±40°, shift ±20%, scale 0.833-1.25, shear ±11.5°, horizontal flip
    """

    rotation: float = 0.0
    shift: float | Pair = (0.0, 0.0)
    scale: float | Pair = (1.0, 1.0)
    aspect: float = 1.0
    shear: float = 0.0
    horizontal_flip: bool = False
    vertical_flip: bool = False
    perspective: float = 0.0
    fill: str = "nearest"
    fill_value: int | tuple[int, int, int] = (0, 0, 0)
    brightness: float | Pair = (1.0, 1.0)
    contrast: float | Pair = (1.0, 1.0)
    saturation: float | Pair = (1.0, 1.0)
    hue: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    jpeg_quality: int = 100
    erasing: float = 0.0
    auto: bool = False
    mixup: float = 0.0
    cutmix: float = 0.0
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        kept = {name: rule.read(getattr(self, name)) for name, rule in RULES.items()}
        faults = [
            f"{name} must be {RULES[name].says}. Received: {getattr(self, name)!r}."
            for name, value in kept.items()
            if value is None
        ]
        if faults:
            raise SettingsError("\n".join(faults))
        for name, value in {**kept, "notes": tuple(self.notes)}.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return f"Augment({', '.join(f'{k}={v!r}' for k, v in self._set().items())})"

    def __str__(self) -> str:
        from kindsight.augment.words import policy_words

        return policy_words(self)

    def _set(self) -> dict[str, Any]:
        """Return the settings that are not as they are unless they are given, short."""
        return {
            name: rule.short(getattr(self, name))
            for name, rule in RULES.items()
            if getattr(self, name) != _DEFAULTS[name]
        }

    @property
    def mixes(self) -> bool:
        """Whether batches are mixed: whether :func:`mix_batch` does anything."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def changes_images(self) -> bool:
        """Whether :func:`augment_images` ever changes an image."""
        return bool(self._set().keys() - {"fill", "fill_value", "mixup", "cutmix"})

    def to_dict(self) -> dict[str, Any]:
        """Return all settings as plain values, for JSON or TOML."""
        short = {name: rule.short(getattr(self, name)) for name, rule in RULES.items()}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in short.items()}

    def to_toml(self) -> str:
        """Return all settings as TOML."""
        import tomli_w

        return tomli_w.dumps(self.to_dict())

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write all settings as a TOML file."""
        write_text(path, self.to_toml())

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "The policy") -> Augment:
        """Make a policy of a mapping.

        Parameters
        ----------
        values : mapping
            Settings by name. Those that are left out are as in the recipe that ``recipe`` names,
            or do nothing.
        source : str
            Where they come from, for messages.

        Raises
        ------
        SettingsError
            For unknown names, with the nearest right one, and values that cannot be.
        """
        from kindsight.augment.recipes import recipe

        if not isinstance(values, Mapping):
            raise SettingsError(
                f"{source} must be a table of settings. Received: {type(values).__name__}."
            )
        faults = [_unknown(name, source) for name in values if name not in {*RULES, "recipe"}]
        if faults:
            raise SettingsError("\n".join(faults))
        base = recipe(values["recipe"]) if "recipe" in values else cls()
        changed = {name: value for name, value in values.items() if name != "recipe"}
        try:
            return cls(**{**base._set(), **changed})
        except SettingsError as error:
            raise SettingsError(f"{source}: {error}") from error

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> Augment:
        """Read a policy from a TOML file, as :meth:`write` writes it, or by hand.

        A line ``recipe = "classic"`` starts from that recipe.

        Raises
        ------
        SettingsError
            For a file that cannot be read, unknown names, and values that cannot be.
        """
        return cls.from_dict(read_toml(path, "A policy"), os.fspath(path))

    @classmethod
    def recipe(cls, name: str) -> Augment:
        """Return a named recipe: none, light, classic, strong or auto.

        See :data:`kindsight.augment.recipes.RECIPES` for what each is.

        Raises
        ------
        SettingsError
            If there is no recipe of that name.
        """
        from kindsight.augment.recipes import recipe

        return recipe(name)

    @classmethod
    def from_keras(cls, *, size: tuple[int, int] | None = None, **arguments: Any) -> Augment:
        """Make a policy of the arguments of Keras's ImageDataGenerator, its traps mended.

        See :func:`kindsight.augment.recipes.from_keras`.
        """
        from kindsight.augment.recipes import from_keras

        return from_keras(size=size, **arguments)


_DEFAULTS = {entry.name: entry.default for entry in fields(Augment)}


def parse_augment(text: str) -> Augment:
    """Make a policy of what ``--augment`` was given.

    Parameters
    ----------
    text : str
        A recipe's name, or the path of a TOML file.

    Raises
    ------
    SettingsError
        If it is neither, or the file holds what cannot be.
    """
    from kindsight.augment.recipes import RECIPES

    if text in RECIPES:
        return RECIPES[text]
    if text.lower().endswith(".toml") or Path(text).is_file():
        return Augment.from_toml(text)
    near = difflib.get_close_matches(text, RECIPES, 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise SettingsError(
        f"An augmentation must be one of {', '.join(RECIPES)}, or a TOML file. "
        f"Received: {text!r}.{hint}"
    )


def _unknown(name: object, source: str) -> str:
    near = difflib.get_close_matches(str(name), RULES, 1)
    hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(RULES)}."
    return f"{source}: there is no setting {name!r}. {hint}"
