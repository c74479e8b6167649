"""The augmentation policy: how images may be changed in training, as a small frozen value."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from kindsight.augment.settings import RULES, Pair, settings_from_keras
from kindsight.errors import SettingsError
from kindsight.files import read_toml, write_text

__all__ = ["RECIPES", "Augment", "parse_augment"]


@dataclass(frozen=True, kw_only=True, repr=False)
class Augment:
    """Random changes of each image each time it is used in training.

    Without arguments, images are not changed. Changes are sampled anew for each image and epoch,
    uniformly within the bounds given here. Geometry is one bilinear warp, in the order flip, scale
    and aspect, shear, rotation, shift, perspective. Colour follows, then blur, noise, JPEG and
    erasing, each of which is applied to half of the images. Settings that may be one number or two
    are stored as two.

    Parameters
    ----------
    rotation : float
        Largest rotation in either direction, 0 to 180 degrees.
    shift : float or (float, float)
        Largest shift in either direction, as a fraction (0 to 1) of the height and of the width.
    scale : float or (float, float)
        Smallest and largest factor of size, 0.1 to 10; below 1 things become smaller. Doubling is
        as likely as halving if both are within bounds. The number 0.2 means (0.8, 1.2). The aspect
        ratio does not change.
    aspect : float
        Largest factor, 1 to 4, by which the image becomes wider or taller at the same area.
    shear : float
        Largest lean of vertical lines in either direction, 0 to 75 degrees.
    horizontal_flip, vertical_flip : bool
        Whether half of the images are mirrored left to right, or top to bottom.
    perspective : float
        Largest shift of each corner, as a fraction of the sides, 0 to 0.2.
    fill : {"nearest", "reflect", "wrap", "constant"}
        Pixels beyond the image's edge: its last pixel, its mirror image, the image again, or the
        colour `fill_value`.
    fill_value : int or (int, int, int)
        Grey, or red, green and blue, 0-255.
    brightness : float or (float, float)
        Smallest and largest factor of all pixels, 0 to 10. The number 0.2 means (0.8, 1.2), here
        and below.
    contrast : float or (float, float)
        Factors, 0 to 10, of each pixel's distance from the image's mean grey.
    saturation : float or (float, float)
        Factors, 0 to 10, of each pixel's distance from the grey of the same luma.
    hue : float
        Largest rotation of the colour circle in either direction, 0 to 180 degrees; greys do not
        change.
    blur : float
        Largest standard deviation of a Gaussian blur, 0 to 50 pixels.
    noise : float
        Largest standard deviation of Gaussian noise, 0 to 128 grey levels, independent in each
        pixel and channel.
    jpeg_quality : int
        Lowest quality of JPEG compression, 1 to 100; 100 means none.
    erasing : float
        Largest fraction of the area, 0 to 0.8, that a rectangle of one colour covers (random
        erasing: Zhong et al. 2020, AAAI).
    auto : bool
        One more operation per image, chosen from 13 and none, at a random strength (similar to
        TrivialAugment: Müller & Hutter 2021, ICCV).
    mixup : float
        Parameter, 0 to 100, of the Beta distribution of the weights with which two images of a
        batch are blended (Zhang et al. 2018, ICLR); 0 means none.
    cutmix : float
        The same for rectangles of one image that are pasted into another (Yun et al. 2019, ICCV).
        If both are given, each batch is mixed by one of them.
    notes : tuple of str
        Notes of :meth:`from_keras`; neither compared nor saved.

    Raises
    ------
    SettingsError
        If values are invalid; the message lists all of them.

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
        values = {name: rule.parse(getattr(self, name)) for name, rule in RULES.items()}
        faults = [
            f"`{name}` must be {RULES[name].description}; got {getattr(self, name)!r}."
            for name, value in values.items()
            if value is None
        ]
        if faults:
            raise SettingsError("\n".join(faults))
        for name, value in {**values, "notes": tuple(self.notes)}.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return f"Augment({', '.join(f'{k}={v!r}' for k, v in self._changed_settings().items())})"

    def __str__(self) -> str:
        texts = [*_geometry_text(self), *_colour_text(self), *_effects_text(self)]
        if self.fill != "nearest" and _geometry_text(self):
            texts.append(f"{self.fill} fill")
        return ", ".join(texts) or "none"

    def _changed_settings(self) -> dict[str, Any]:
        """Return the settings that differ from their defaults, in short form."""
        return {
            name: rule.shorten(getattr(self, name))
            for name, rule in RULES.items()
            if getattr(self, name) != _DEFAULTS[name]
        }

    @property
    def mixes(self) -> bool:
        """Whether :func:`mix_batch` changes batches."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def changes_images(self) -> bool:
        """Whether :func:`augment_images` ever changes an image."""
        return bool(self._changed_settings().keys() - {"fill", "fill_value", "mixup", "cutmix"})

    def to_dict(self) -> dict[str, Any]:
        """Return all settings as plain values, for JSON or TOML."""
        short = {name: rule.shorten(getattr(self, name)) for name, rule in RULES.items()}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in short.items()}

    def to_toml(self) -> str:
        """Return all settings as TOML."""
        import tomli_w

        return tomli_w.dumps(self.to_dict())

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write all settings to a TOML file."""
        write_text(path, self.to_toml())

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "The policy") -> Augment:
        """Return the policy with the settings of a mapping.

        Settings that it lacks are those of the recipe that ``recipe`` names, or defaults. `source`
        is the origin of the settings, for error messages. Raises `SettingsError` for unknown names,
        with the closest known one, and invalid values.
        """
        if not isinstance(values, Mapping):
            raise SettingsError(
                f"{source} must be a table of settings; got {type(values).__name__}."
            )
        faults = [_unknown(name, source) for name in values if name not in {*RULES, "recipe"}]
        if faults:
            raise SettingsError("\n".join(faults))
        base = cls.recipe(values["recipe"]) if "recipe" in values else cls()
        changed = {name: value for name, value in values.items() if name != "recipe"}
        try:
            return cls(**{**base._changed_settings(), **changed})
        except SettingsError as error:
            raise SettingsError(f"{source}: {error}") from error

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> Augment:
        """Read a policy from a TOML file; a line ``recipe = "classic"`` starts from that recipe.

        Raises `SettingsError` for an unreadable file, unknown names and invalid values.
        """
        return cls.from_dict(read_toml(path, "A policy"), os.fspath(path))

    @classmethod
    def recipe(cls, name: str) -> Augment:
        """Return the policy of a recipe: none, light, classic, strong or auto.

        See :data:`kindsight.augment.policy.RECIPES`.

        Raises `SettingsError` if there is no recipe of that name.
        """
        if isinstance(name, str) and name in RECIPES:
            return RECIPES[name]
        near = difflib.get_close_matches(str(name), RECIPES, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise SettingsError(f"`recipe` must be one of {', '.join(RECIPES)}; got {name!r}.{hint}")

    @classmethod
    def from_keras(cls, *, size: tuple[int, int] | None = None, **arguments: Any) -> Augment:
        """Convert the arguments of Keras's ImageDataGenerator to a policy, with their traps fixed.

        The policy's `notes` say what was fixed or ignored:

        - ``shear_range`` below 1 is interpreted as radians, as when tutorials began to write 0.2.
          Keras has long used degrees, of which 0.2 do nothing. From 1 on it is degrees.
        - ``zoom_range`` is a factor of the visible area, so that 0.8 enlarges: `scale` is its
          inverse. Keras samples it separately for height and width, which distorts; here the aspect
          ratio does not change. Use `aspect` to distort on purpose.
        - ``brightness_range`` changes the brightness only; Keras also stretches the contrast of the
          image to 0-255.
        - ``channel_shift_range``, a number added to all channels, becomes the factor of brightness
          with the same effect on a medium grey. Up to 1 it is interpreted for pixels of 0-1, since
          it does nothing to pixels of 0-255.
        - Shifts from 1 on are pixels, and need `size`. Of a list of shifts, everything up to the
          largest is sampled.

        Parameters
        ----------
        size : (height, width), optional
            The images' size in pixels, to convert shifts in pixels to fractions.
        **arguments
            Arguments of ImageDataGenerator. Those without augmentation, such as ``rescale``, are
            ignored with a note.

        Raises
        ------
        SettingsError
            For invalid values, unknown names, and arguments that a policy cannot express, such as
            ``zca_whitening`` or ``preprocessing_function``.

        Examples
        --------
        >>> policy = Augment.from_keras(rotation_range=20, shear_range=0.2)
        >>> policy
        Augment(rotation=20, shear=11.5)
        >>> print(policy.notes[0])
        shear_range=0.2 is interpreted as radians, 11.5 degrees: 0.2 degrees would do nothing.
        """
        settings, notes = settings_from_keras(arguments, size)
        return cls(**settings, notes=notes)


_DEFAULTS = {entry.name: entry.default for entry in fields(Augment)}


RECIPES: dict[str, Augment] = {
    "none": Augment(),
    "light": Augment(
        rotation=10, shift=0.05, scale=(0.9, 1.1), horizontal_flip=True, brightness=0.1,
        contrast=0.1, fill="reflect",
    ),
    "classic": Augment.from_keras(
        rotation_range=40, width_shift_range=0.2, height_shift_range=0.2, shear_range=0.2,
        zoom_range=0.2, horizontal_flip=True, fill_mode="nearest",
    ),
    "strong": Augment(
        rotation=30, shift=0.15, scale=(0.7, 1.4), aspect=1.2, shear=10, horizontal_flip=True,
        perspective=0.05, brightness=0.4, contrast=0.4, saturation=0.5, hue=15, blur=1.5, noise=10,
        jpeg_quality=40, erasing=0.25, fill="reflect",
    ),
    "auto": Augment(auto=True, horizontal_flip=True, fill="reflect"),
}  # fmt: skip
"""The recipes by name, from weak to strong.

``classic`` has the course's arguments of ImageDataGenerator: rotation 40, shifts 0.2, shear 0.2,
zoom 0.2, horizontal flip, nearest fill. Its shear is 11.5 degrees, since 0.2 meant radians when
tutorials began to write it; Keras now takes it for 0.2 degrees, half a pixel in 150.
"""


def parse_augment(text: str) -> Augment:
    """Return the policy of the option ``--augment``: name of a recipe, or path of a TOML file.

    Raises `SettingsError` if it is neither, or the file has invalid settings.
    """
    if text in RECIPES:
        return RECIPES[text]
    if text.lower().endswith(".toml") or Path(text).is_file():
        return Augment.from_toml(text)
    near = difflib.get_close_matches(text, RECIPES, 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise SettingsError(
        f"An augmentation must be one of {', '.join(RECIPES)}, or a TOML file; got {text!r}.{hint}"
    )


def _unknown(name: object, source: str) -> str:
    near = difflib.get_close_matches(str(name), RULES, 1)
    hint = f"Did you mean {near[0]!r}?" if near else f"The settings are: {', '.join(RULES)}."
    return f"{source}: there is no setting {name!r}. {hint}"


def _geometry_text(policy: Augment) -> list[str]:
    down, across = _two(policy.shift)
    shift = (
        _percent(down) if down == across else f"{_percent(down)} down, ±{_percent(across)} across"
    )
    return _texts(
        (f"rotation ±{policy.rotation:g}°", policy.rotation),
        (f"shift ±{shift}", down or across),
        (f"scale {_range(policy.scale)}", _two(policy.scale) != (1, 1)),
        (f"aspect to {policy.aspect:.3g}", policy.aspect != 1),
        (f"shear ±{policy.shear:g}°", policy.shear),
        ("horizontal flip", policy.horizontal_flip),
        ("vertical flip", policy.vertical_flip),
        (f"perspective ±{_percent(policy.perspective)}", policy.perspective),
        ("automatic", policy.auto),
    )


def _colour_text(policy: Augment) -> list[str]:
    names = ("brightness", "contrast", "saturation")
    factors = {name: getattr(policy, name) for name in names}
    return _texts(
        *((f"{name} {_range(value)}", _two(value) != (1, 1)) for name, value in factors.items()),
        (f"hue ±{policy.hue:g}°", policy.hue),
    )


def _effects_text(policy: Augment) -> list[str]:
    return _texts(
        (f"blur to {policy.blur:g} px", policy.blur),
        (f"noise to {policy.noise:g} levels", policy.noise),
        (f"JPEG down to {policy.jpeg_quality}", policy.jpeg_quality < 100),
        (f"erasing to {_percent(policy.erasing)}", policy.erasing),
        (f"MixUp {policy.mixup:g}", policy.mixup),
        (f"CutMix {policy.cutmix:g}", policy.cutmix),
    )


def _texts(*candidates: tuple[str, object]) -> list[str]:
    return [text for text, is_set in candidates if is_set]


def _two(value: Any) -> Pair:
    first, second = value
    return float(first), float(second)


def _range(value: Any) -> str:
    low, high = _two(value)
    return f"{low:.3g}-{high:.3g}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.3g}%"
